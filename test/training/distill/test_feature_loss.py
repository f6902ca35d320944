"""Feature loss: its value, whom it teaches, what it refuses."""

import pytest
import torch

from cmkd_ros.training.distill.feature_loss import feature_loss


def test_it_is_the_weighted_mean_square_and_teaches_the_student_only():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 8, 5, 4, generator=generator, requires_grad=True)
    teacher = torch.rand(2, 8, 5, 4, generator=generator, requires_grad=True)
    loss = feature_loss(student, teacher, weight=4.0)
    gap = (student - teacher).detach()
    assert loss.bev.item() == pytest.approx(4 * (gap**2).mean().item(), rel=1e-6)
    loss.total.backward()
    torch.testing.assert_close(student.grad, 8 * gap / gap.numel())
    assert teacher.grad is None


def test_maps_of_different_networks_are_refused():
    with pytest.raises(ValueError, match=r'student \(1, 8, 5, 4\), teacher \(1, 8, 5, 6\)'):
        feature_loss(torch.zeros(1, 8, 5, 4), torch.zeros(1, 8, 5, 6))
