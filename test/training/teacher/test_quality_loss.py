"""SECOND's loss: wanted scores against overlaps found one by one, the loss against its formula."""

import math

import numpy as np
import pytest
import torch

from cmkd_ros.geometry.overlap import iou_3d_paired
from cmkd_ros.model.anchor_head import AnchorHead, decode_boxes, encode_boxes
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.teacher.quality_loss import (
    quality_focal_loss,
    quality_head_loss,
    quality_targets,
)
from cmkd_ros.training.teacher.supervised_loss import anchor_head_loss

SIZES = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))
HEAD = AnchorHead(8, 3, SIZES, (-1.78, -0.6, -0.6), (0.0, 1.57), (0, -4, -3, 12, 4, 1))
MATCHED, UNMATCHED = (0.6, 0.5, 0.5), (0.45, 0.35, 0.35)
BOXES = [
    torch.tensor(
        [
            [5.2, 0.2, -1, 4, 1.7, 1.5, 0.2],
            [8.1, 1.1, 0, 0.8, 0.7, 1.7, 2.0],
            [8.3, 1.3, 0, 1.8, 0.7, 1.7, 1.2],
        ]
    ),
    torch.zeros(0, 7),
]
CLASS_IDS = [torch.tensor([1, 2, 3]), torch.zeros(0, dtype=torch.int64)]


def random_maps() -> AnchorHeadOutput:
    generator = torch.Generator().manual_seed(5)
    maps = [torch.randn(2, 9, 13, n, generator=generator) for n in (18, 42, 12)]
    maps[1] *= 0.3
    return AnchorHeadOutput(*(m.requires_grad_() for m in maps))


def test_the_wanted_score_is_the_overlap_of_the_own_box_with_the_best_label():
    output = random_maps()
    quality = quality_targets(HEAD, output, BOXES, CLASS_IDS)
    anchors = HEAD.anchors((9, 13), 'cpu')
    own = decode_boxes(output.box_deltas[0].reshape(-1, 7), anchors).detach()
    expected = torch.zeros(len(anchors), 3)
    for n in range(len(anchors)):
        overlaps = iou_3d_paired(own[n].expand(3, 7), BOXES[0])
        best = int(overlaps.argmax())
        expected[n, CLASS_IDS[0][best] - 1] = overlaps[best]
    torch.testing.assert_close(quality[0], expected)
    assert ((quality[0] > 0).sum(0) > 5).all()  # labels of all classes, the mixed pair too
    assert not quality[1].any()


def test_a_box_that_hits_its_label_wants_score_1_in_that_class_only():
    anchors = HEAD.anchors((9, 13), 'cpu')
    deltas = torch.zeros(2, len(anchors), 7)
    deltas[:, :, :3] = 30.0  # far away
    deltas[0, 100] = encode_boxes(BOXES[0][1], anchors[100])
    deltas[0, 100, 6] += math.pi  # the other way round is as good
    output = AnchorHeadOutput(torch.zeros(2, 9, 13, 18), deltas.view(2, 9, 13, 42), None)
    quality = quality_targets(HEAD, output, BOXES, CLASS_IDS)
    assert quality[0, 100].tolist() == pytest.approx([0, 1, 0], abs=1e-4)
    assert (quality > 0).sum() == 1


def test_loss_equals_its_formula():
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(2, 4, 3, 6, generator=generator) * 3
    quality = torch.rand(2, 24, 3, generator=generator)
    quality[quality < 0.7] = 0
    quality[1] = 0
    total = 0.0
    for b in range(2):
        y = quality[b].double().numpy()
        p = 1 / (1 + np.exp(-logits[b].double().numpy().reshape(24, 3)))
        cross_entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        total += (cross_entropy * np.abs(p - y) ** 2).sum() / max(1, (y > 0).sum())
    assert quality_focal_loss(logits, quality).item() == pytest.approx(total, rel=1e-5)


def test_boxes_and_directions_learn_as_with_plain_classes():
    output = random_maps()
    labels = (BOXES, CLASS_IDS, MATCHED, UNMATCHED)
    terms = quality_head_loss(HEAD, output, *labels, 8.0, 2.0, 0.2)
    plain = anchor_head_loss(HEAD, output, *labels, 1.0, 2.0, 0.2)
    assert terms.box == plain.box > 0
    assert terms.dir == plain.dir > 0
    quality = quality_targets(HEAD, output, BOXES, CLASS_IDS)
    assert terms.cls == 8 * quality_focal_loss(output.cls_logits, quality)
    torch.testing.assert_close(terms.total, terms.cls + terms.box + terms.dir, rtol=1e-6, atol=1e-6)


def test_classes_teach_the_scores_and_not_the_boxes_that_they_measure():
    output = random_maps()
    terms = quality_head_loss(HEAD, output, BOXES, CLASS_IDS, MATCHED, UNMATCHED)
    gradients = torch.autograd.grad(
        terms.cls, (output.cls_logits, output.box_deltas), allow_unused=True
    )
    assert gradients[0].any()
    assert gradients[1] is None


def test_boxes_that_explode_count_as_misses():
    output = random_maps()
    wild = torch.full_like(output.box_deltas, 200.0)  # sizes of exp(200)
    output = AnchorHeadOutput(output.cls_logits, wild, output.dir_logits)
    quality = quality_targets(HEAD, output, BOXES, CLASS_IDS)
    assert not quality.any()
    assert quality_focal_loss(output.cls_logits, quality).isfinite()


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match='2 scans but boxes of 1'):
        quality_head_loss(HEAD, random_maps(), BOXES[:1], CLASS_IDS[:1], MATCHED, UNMATCHED)
