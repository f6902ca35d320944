"""The supervised loss against its formulas in float64 numpy, and what it teaches."""

import math

import numpy as np
import pytest
import torch

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.teacher.supervised_loss import anchor_head_loss
from cmkd_ros.training.teacher.targets import assign_targets

MATCHED = (0.6, 0.5, 0.5)
UNMATCHED = (0.45, 0.35, 0.35)
SIZES = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))
HEAD = AnchorHead(8, 3, SIZES, (-1.78, -0.6, -0.6), (0.0, 1.57), (0, -4, -3, 12, 4, 1))
BOXES = [
    torch.tensor([[5.2, 0.2, -1, 4, 1.7, 1.5, 0.2], [8.1, 1.1, 0, 0.8, 0.7, 1.7, 2.0]]),
    torch.zeros(0, 7),
    torch.tensor([[3.2, -2.2, -1, 4.2, 1.6, 1.5, -2.9]]),
]
CLASS_IDS = [torch.tensor([1, 2]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]


def random_maps(scale: float = 1.0) -> AnchorHeadOutput:
    generator = torch.Generator().manual_seed(5)
    maps = [torch.randn(3, 9, 13, n, generator=generator) * scale for n in (18, 42, 12)]
    return AnchorHeadOutput(*(m.requires_grad_() for m in maps))


def loss(output, **weights):
    return anchor_head_loss(HEAD, output, BOXES, CLASS_IDS, MATCHED, UNMATCHED, **weights)


def reference(output) -> tuple[float, float, float]:
    """The three unweighted terms, written out."""
    targets = assign_targets(HEAD.anchors((9, 13), 'cpu'), BOXES, CLASS_IDS, MATCHED, UNMATCHED)
    labels = targets.labels_BN.numpy()
    cls_logits, deltas, dirs = (
        m.detach().double().numpy().reshape(3, labels.shape[1], n)
        for m, n in ((output.cls_logits, 3), (output.box_deltas, 7), (output.dir_logits, 2))
    )
    wanted = iter(zip(targets.deltas_P7.double().numpy(), targets.yaws_P.tolist(), strict=True))
    cls = box = direction = 0.0
    for b in range(3):
        n_positive = max(1, int((labels[b] > 0).sum()))
        for n, label in enumerate(labels[b]):
            if label >= 0:
                for k in range(3):
                    p = 1 / (1 + math.exp(-cls_logits[b, n, k]))
                    if label == k + 1:
                        cls += 0.25 * (1 - p) ** 2 * -math.log(p) / n_positive
                    else:
                        cls += 0.75 * p**2 * -math.log(1 - p) / n_positive
            if label > 0:
                delta, yaw = next(wanted)
                gap = deltas[b, n] - delta
                gap[6] = math.sin(gap[6])
                gap = np.abs(gap)
                smooth = np.where(gap < 1 / 9, 4.5 * gap**2, gap - 1 / 18)
                box += smooth.sum() / n_positive
                bin_ = int(((yaw - 0.78539) % (2 * math.pi)) // math.pi)
                own = dirs[b, n]
                direction += (np.log(np.exp(own).sum()) - own[bin_]) / n_positive
    return cls / 3, box / 3, direction / 3


def test_terms_equal_their_formulas():
    output = random_maps()
    terms = loss(output)
    cls, box, direction = reference(output)
    assert terms.cls.item() == pytest.approx(cls, rel=1e-5)
    assert terms.box.item() == pytest.approx(2.0 * box, rel=1e-5)
    assert terms.dir.item() == pytest.approx(0.2 * direction, rel=1e-5)
    assert terms.total.item() == pytest.approx(cls + 2 * box + 0.2 * direction, rel=1e-5)


def test_the_right_answer_costs_nothing_and_a_half_turn_only_the_direction():
    anchors = HEAD.anchors((9, 13), 'cpu')
    targets = assign_targets(anchors, BOXES, CLASS_IDS, MATCHED, UNMATCHED)
    positive = targets.labels_BN > 0
    cls = torch.full((3, anchors.shape[0], 3), -30.0)
    cls[positive, targets.labels_BN[positive] - 1] = 30.0
    deltas = torch.zeros(3, anchors.shape[0], 7)
    deltas[positive] = targets.deltas_P7
    dirs = torch.zeros(3, anchors.shape[0], 2)
    bins = HEAD.direction_bins(targets.yaws_P)
    dirs[positive, bins] = 40.0

    def terms():
        maps = (m.reshape(3, 9, 13, -1) for m in (cls, deltas, dirs))
        return loss(AnchorHeadOutput(*maps))

    assert terms().total.item() < 1e-6
    deltas[positive] += torch.tensor([0, 0, 0, 0, 0, 0, math.pi])
    assert terms().total.item() < 1e-6
    dirs[positive] = dirs[positive].flip(1)
    turned = terms()
    assert turned.dir.item() > 1 and turned.box.item() < 1e-6


def test_every_map_learns_and_weights_scale_their_term():
    output = random_maps()
    terms = loss(output)
    for name, map_ in (
        ('cls', output.cls_logits),
        ('box', output.box_deltas),
        ('dir', output.dir_logits),
    ):
        (gradient,) = torch.autograd.grad(getattr(terms, name), map_, retain_graph=True)
        assert gradient.any(), name
        doubled = getattr(loss(output, **{f'{name}_weight': 3.0}), name)
        factor = {'cls': 1.0, 'box': 2.0, 'dir': 0.2}[name]
        torch.testing.assert_close(doubled, getattr(terms, name) * 3.0 / factor)


def test_extreme_logits_stay_finite():
    output = random_maps(scale=1e4)
    terms = loss(output)
    terms.total.backward()
    assert terms.total.isfinite()
    assert output.cls_logits.grad.isfinite().all()


def test_scans_without_any_label_give_background_only():
    output = random_maps()
    terms = anchor_head_loss(HEAD, output, [BOXES[1]] * 3, [CLASS_IDS[1]] * 3, MATCHED, UNMATCHED)
    assert terms.cls.item() > 0
    assert terms.box.item() == terms.dir.item() == 0
    terms.total.backward()


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='3 scans but boxes of 2'):
        anchor_head_loss(HEAD, random_maps(), BOXES[:2], CLASS_IDS[:2], MATCHED, UNMATCHED)
