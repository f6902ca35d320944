"""Matching of anchors and labels against a slow obvious version and cases with known answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.model.anchor_head import AnchorHead, decode_boxes
from cmkd_ros.training.teacher.targets import assign_targets

MATCHED = (0.6, 0.5, 0.5)
UNMATCHED = (0.45, 0.35, 0.35)
SIZES = ((3.9, 1.6, 1.56), (0.8, 0.6, 1.73), (1.76, 0.6, 1.73))
HEAD = AnchorHead(8, 3, SIZES, (-1.78, -0.6, -0.6), (0.0, 1.57), (0, -4, -3, 12, 4, 1))
ANCHORS_N7 = HEAD.anchors((9, 13), 'cpu')


def footprint(box):
    """x and y borders of a box turned to the nearest axis."""
    x, y, _, length, width, _, yaw = box
    turned = abs((yaw + math.pi / 2) % math.pi - math.pi / 2) >= math.pi / 4
    half_x, half_y = (width / 2, length / 2) if turned else (length / 2, width / 2)
    return x - half_x, y - half_y, x + half_x, y + half_y


def overlap(a, b):
    ax0, ay0, ax1, ay1 = footprint(a)
    bx0, by0, bx1, by1 = footprint(b)
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / (a[3] * a[4] + b[3] * b[4] - shared)


def obvious_labels(boxes, class_ids):
    """Allowed labels and the matched box of every anchor, anchor by anchor and box by box.

    Anchors that share a box's highest overlap may win or lose by rounding.
    """
    allowed, matches = [], []
    table = [
        [
            overlap(anchor, box) if n // 2 % 3 == k - 1 else 0.0
            for box, k in zip(boxes, class_ids, strict=True)
        ]
        for n, anchor in enumerate(ANCHORS_N7.double().tolist())
    ]
    ranked = [sorted((row[m] for row in table), reverse=True) for m in range(len(boxes))]
    for n, row in enumerate(table):
        k = n // 2 % 3
        own = [m for m, c in enumerate(class_ids) if c == k + 1]
        match = max(own, key=lambda m: row[m]) if own else 0
        label = 0
        if own and row[match] >= UNMATCHED[k]:
            label = k + 1 if row[match] >= MATCHED[k] else -1
        labels = {label}
        for m in own:
            if row[m] > 0 and row[m] > ranked[m][0] - 1e-5:
                alone = ranked[m][1] <= ranked[m][0] - 1e-5
                labels = {k + 1} if alone else labels | {k + 1}
        allowed.append(labels)
        matches.append(match)
    return allowed, matches


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 6))
def test_equals_the_obvious_matching(seed, n):
    generator = np.random.default_rng(seed)
    class_ids = generator.integers(1, 4, n)
    sizes = np.array(SIZES)[class_ids - 1] * generator.uniform(0.8, 1.2, (n, 3))
    centers = generator.uniform((-1, -5, -1.5), (13, 5, 0), (n, 3))
    boxes_M7 = np.concatenate([centers, sizes, generator.uniform(-4, 4, (n, 1))], axis=1)
    boxes_M7 = boxes_M7.astype(np.float32)
    targets = assign_targets(
        ANCHORS_N7,
        [torch.from_numpy(boxes_M7)],
        [torch.from_numpy(class_ids)],
        MATCHED,
        UNMATCHED,
    )
    allowed, matches = obvious_labels(boxes_M7.tolist(), class_ids.tolist())
    labels_N = targets.labels_BN[0]
    wrong = [
        (n, label, right)
        for n, (label, right) in enumerate(zip(labels_N.tolist(), allowed, strict=True))
        if label not in right
    ]
    assert wrong == []
    decoded = decode_boxes(targets.deltas_P7, ANCHORS_N7[labels_N > 0]).numpy()
    expected = boxes_M7[np.array(matches, dtype=int)[(labels_N > 0).numpy()]] if n else boxes_M7
    np.testing.assert_allclose(decoded, expected, atol=1e-4)
    np.testing.assert_allclose(targets.yaws_P, expected[:, 6])


def test_each_box_gets_its_best_anchor_however_many_share_it():
    # Inside four anchors alike, all of which overlap it equally up to rounding.
    targets = assign([[[6.0, 0.0, 0, 0.5, 0.4, 1.7, 0.0]]], [[1]])
    assert (targets.labels_BN == 1).any()


def assign(boxes, class_ids):
    boxes = [torch.tensor(b, dtype=torch.float32).view(-1, 7) for b in boxes]
    ids = [torch.tensor(i, dtype=torch.int64) for i in class_ids]
    return assign_targets(ANCHORS_N7, boxes, ids, MATCHED, UNMATCHED)


def test_a_box_on_an_anchor_matches_it_without_residual():
    n = 6 * (4 * 13 + 5) + 2 * 1 + 1  # row 4, column 5, pedestrian, turned
    targets = assign([ANCHORS_N7[n].tolist()], [[2]])
    assert targets.labels_BN[0, n] == 2
    index = targets.labels_BN[0].clamp(min=0).nonzero().squeeze(1).tolist().index(n)
    assert targets.deltas_P7[index].tolist() == [0.0] * 7


def test_a_box_far_from_any_fit_still_gets_its_best_anchors():
    # A lorry overlaps no car anchor by half.
    targets = assign([[[6.2, 0.3, 0, 11.0, 2.5, 3.5, 0.1]]], [[1]])
    assert (targets.labels_BN == 1).sum() >= 1


def test_a_box_beyond_every_anchor_gets_none():
    targets = assign([[[60, 0, 0, 3.9, 1.6, 1.56, 0]]], [[1]])
    assert not targets.labels_BN.any()
    assert targets.deltas_P7.shape == (0, 7)


def test_scans_of_a_batch_are_independent():
    car, walker = [5.2, 0.2, -1, 4, 1.7, 1.5, 0.2], [8.1, 1.1, 0, 0.8, 0.7, 1.7, 2.0]
    both = assign([[car], [], [walker]], [[1], [], [2]])
    alone = [assign([[car]], [[1]]), assign([[]], [[]]), assign([[walker]], [[2]])]
    assert torch.equal(both.labels_BN, torch.cat([one.labels_BN for one in alone]))
    assert torch.equal(both.deltas_P7, torch.cat([one.deltas_P7 for one in alone]))
    assert not both.labels_BN[1].any()


@pytest.mark.parametrize('class_id', [0, 4])
def test_a_class_outside_is_refused(class_id):
    with pytest.raises(ValueError, match=r'class ids must lie in 1\.\.3'):
        assign([[[5, 0, -1, 4, 1.7, 1.5, 0.2]]], [[class_id]])
