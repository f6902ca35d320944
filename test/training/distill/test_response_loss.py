"""Anchor responses against their formulas in float64 numpy, anchor by anchor."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.distill.response_loss import anchor_response_loss

CHANNELS = {'cls_logits': 18, 'box_deltas': 42, 'dir_logits': 12}


def random_maps(seed: int, shift: float, scale: float = 2.0) -> AnchorHeadOutput:
    generator = torch.Generator().manual_seed(seed)
    maps = {
        name: torch.randn(2, 5, 4, n, generator=generator) * scale for name, n in CHANNELS.items()
    }
    maps['cls_logits'] += shift
    return AnchorHeadOutput(**{name: map_.requires_grad_() for name, map_ in maps.items()})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(student, teacher) -> tuple[float, float, float]:
    """The three terms without their weights, written out."""
    s_cls, s_box, s_dir = (m.detach().double().numpy() for m in vars(student).values())
    t_cls, t_box, t_dir = (m.detach().double().numpy() for m in vars(teacher).values())
    cls = box = direction = 0.0
    for b in range(2):
        s, t = s_cls[b].reshape(-1, 3), sigmoid(t_cls[b].reshape(-1, 3))
        p = sigmoid(s)
        cross_entropy = -(t * np.log(p) + (1 - t) * np.log(1 - p))
        focal = cross_entropy * np.abs(p - t) ** 2
        for k in range(3):
            cls += focal[:, k].sum() / max(1, (t[:, k] > 0.1).sum())
        belief = t.sum(1)
        n_chosen = max(1, (belief > 0.1).sum())
        for n in np.flatnonzero(belief > 0.1):
            own, wanted = s_box[b].reshape(-1, 7)[n], t_box[b].reshape(-1, 7)[n]
            gap = own - wanted
            gap[6] = math.sin(own[6]) * math.cos(wanted[6]) - math.cos(own[6]) * math.sin(wanted[6])
            gap = np.abs(gap)
            smooth = np.where(gap < 1 / 9, 4.5 * gap**2, gap - 1 / 18)
            box += smooth.sum() * belief[n] / n_chosen
            own, wanted = s_dir[b].reshape(-1, 2)[n], t_dir[b].reshape(-1, 2)[n]
            log_p = own - np.log(np.exp(own).sum())
            direction += -log_p[int(wanted[1] > wanted[0])] * belief[n] / n_chosen
    return cls, box / 2, direction / 2


@pytest.mark.parametrize('shift', [-4.0, 0.0])
def test_terms_equal_their_formulas(shift):
    student, teacher = random_maps(1, shift=-1.0), random_maps(2, shift)
    loss = anchor_response_loss(student, teacher, 3, cls_weight=2, box_weight=2, dir_weight=0.4)
    cls, box, direction = reference(student, teacher)
    assert loss.cls.item() == pytest.approx(2 * cls, rel=1e-5)
    assert loss.box.item() == pytest.approx(2 * box, rel=1e-5)
    assert loss.dir.item() == pytest.approx(0.4 * direction, rel=1e-5)
    assert loss.total.item() == pytest.approx(2 * cls + 2 * box + 0.4 * direction, rel=1e-5)


def test_every_term_teaches_the_student_and_not_the_teacher():
    student, teacher = random_maps(3, shift=-1.0), random_maps(4, shift=-2.0)
    loss = anchor_response_loss(student, teacher, 3)
    learns = {'cls': 'cls_logits', 'box': 'box_deltas', 'dir': 'dir_logits'}
    for term, map_ in learns.items():
        (gradient,) = torch.autograd.grad(
            getattr(loss, term), getattr(student, map_), retain_graph=True
        )
        assert gradient.any(), term
    loss.total.backward()
    assert all(map_.grad is None for map_ in vars(teacher).values())


def test_the_gradient_of_the_classes_goes_through_the_quality_too():
    # d/ds of CE(s) (p - t)^2, not of CE alone with a constant factor.
    student, teacher = random_maps(5, shift=0.0), random_maps(6, shift=0.0)
    cls = anchor_response_loss(student, teacher, 3, cls_weight=1.0).cls
    (gradient,) = torch.autograd.grad(cls, student.cls_logits)
    step = 1e-3
    nudged = student.cls_logits.detach().clone()
    nudged[1, 2, 3, 7] += step
    up = reference(dataclasses.replace(student, cls_logits=nudged), teacher)[0]
    nudged[1, 2, 3, 7] -= 2 * step
    down = reference(dataclasses.replace(student, cls_logits=nudged), teacher)[0]
    assert gradient[1, 2, 3, 7].item() == pytest.approx((up - down) / (2 * step), rel=1e-3)


def test_equal_maps_cost_only_the_direction():
    teacher = random_maps(7, shift=0.0)
    loss = anchor_response_loss(teacher, teacher, 3)
    assert loss.cls.item() == loss.box.item() == 0
    assert loss.dir.item() > 0


def test_a_half_turn_of_the_yaw_is_left_to_the_direction():
    teacher = random_maps(8, shift=0.0)
    turned = teacher.box_deltas.detach().clone()
    turned[..., 6::7] += math.pi
    student = dataclasses.replace(teacher, box_deltas=turned)
    assert anchor_response_loss(student, teacher, 3).box.item() == pytest.approx(0, abs=1e-9)


def test_saturated_directions_of_the_teacher_mean_bin_0():
    student, teacher = random_maps(9, shift=0.0), random_maps(10, shift=0.0)
    saturated = torch.full_like(teacher.dir_logits, 30.0)
    saturated[..., 1::2] = 40.0  # larger, but both sigmoids are 1 in float32
    first = torch.zeros_like(saturated)
    first[..., 0::2] = 1.0

    def dir_term(logits):
        teacher_ = dataclasses.replace(teacher, dir_logits=logits)
        return anchor_response_loss(student, teacher_, 3).dir.item()

    assert dir_term(saturated) == dir_term(first)


def test_a_teacher_that_sees_nothing_teaches_background_only():
    student, teacher = random_maps(11, shift=0.0), random_maps(12, shift=-40.0, scale=0.1)
    loss = anchor_response_loss(student, teacher, 3)
    assert loss.cls.item() > 0
    assert loss.box.item() == loss.dir.item() == 0
    loss.total.backward()


def test_heads_of_different_size_are_refused():
    small = AnchorHeadOutput(*(torch.zeros(1, 2, 2, n) for n in CHANNELS.values()))
    with pytest.raises(ValueError, match=r'student \(1, 2, 2, 18\), teacher \(2, 5, 4, 18\)'):
        anchor_response_loss(small, random_maps(1, 0.0), 3)
