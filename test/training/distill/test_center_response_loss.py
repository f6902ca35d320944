"""Centre-head responses against their formulas in float64 numpy."""

import numpy as np
import pytest
import torch

from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.training.distill.center_response_loss import center_response_loss

CHANNELS = {'hm': 3, 'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}


def random_maps(seed: int, shift: float) -> CenterHeadOutput:
    generator = torch.Generator().manual_seed(seed)
    maps = {name: torch.randn(2, n, 6, 5, generator=generator) for name, n in CHANNELS.items()}
    maps['hm'] = 3 * maps['hm'] + shift
    return CenterHeadOutput(**{name: map_.requires_grad_() for name, map_ in maps.items()})


def reference(student, teacher) -> tuple[float, float]:
    """Both terms without their weights, written out."""
    s, t = (
        {n: m.detach().double().numpy() for n, m in vars(o).items()} for o in (student, teacher)
    )
    heat = 1 / (1 + np.exp(-t['hm']))
    own = np.clip(1 / (1 + np.exp(-s['hm'])), 1e-4, 1 - 1e-4)
    cross_entropy = -(heat * np.log(own) + (1 - heat) * np.log(1 - own))
    hm = (cross_entropy * (own - heat) ** 2).sum() / max(1, (heat > 0.3).sum())
    belief = heat.sum(1)
    losses = []
    for b, y, x in np.argwhere(belief > 0.1):
        for name in ('center', 'center_z', 'dim', 'rot'):
            gap = np.abs(s[name][b, :, y, x] - t[name][b, :, y, x])
            losses += list(np.where(gap < 1, 0.5 * gap**2, gap - 0.5) * belief[b, y, x] * 8)
    return hm, np.mean(losses) if losses else 0.0


@pytest.mark.parametrize('shift', [-6.0, -2.0])
def test_terms_equal_their_formulas(shift):
    student, teacher = random_maps(1, -2.0), random_maps(2, shift)
    loss = center_response_loss(student, teacher)
    hm, box = reference(student, teacher)
    assert loss.hm.item() == pytest.approx(hm, rel=1e-5)
    assert loss.box.item() == pytest.approx(4 * box, rel=1e-5)
    assert loss.total.item() == pytest.approx(hm + 4 * box, rel=1e-5)


def test_every_map_of_the_student_learns_and_none_of_the_teacher():
    student, teacher = random_maps(3, -2.0), random_maps(4, -2.0)
    center_response_loss(student, teacher).total.backward()
    assert all(map_.grad.any() for map_ in vars(student).values())
    assert all(map_.grad is None for map_ in vars(teacher).values())


def test_a_teacher_that_sees_nothing_does_not_break_the_training():
    student, teacher = random_maps(5, -2.0), random_maps(6, -60.0)
    loss = center_response_loss(student, teacher)
    assert loss.hm.item() > 0
    assert loss.box.item() == 0
    loss.total.backward()
    assert student.center.grad.isfinite().all()


def test_heads_of_different_size_are_refused():
    small = CenterHeadOutput(*(torch.zeros(1, n, 2, 2) for n in CHANNELS.values()))
    with pytest.raises(ValueError, match=r'student \(1, 3, 2, 2\), teacher \(2, 3, 6, 5\)'):
        center_response_loss(small, random_maps(1, 0.0))
