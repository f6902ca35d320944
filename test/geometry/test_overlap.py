"""Overlaps against an exact rational polygon clipper, closed forms and symmetries; suppression."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.geometry import (
    iou_3d,
    iou_3d_paired,
    iou_bev,
    iou_bev_nearest_axis_aligned,
    iou_bev_paired,
    nms_bev,
    rotated_intersection_bev,
    rotated_intersection_bev_paired,
)

PI = np.pi
# Yaws and shifts at which edges and corners coincide, and others.
YAWS = st.one_of(
    st.sampled_from([0.0, PI / 2, -PI / 2, PI, -PI, PI / 4, 1.57, 1e-9, -1e-16]), st.floats(-7, 7)
)
SHIFTS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, 1e-12]), st.floats(-5, 5))
SIZES = st.one_of(st.sampled_from([0.0, 1.0, 2.0, 4.0, 1e-3]), st.floats(0.01, 8))
BOXES = st.tuples(SHIFTS, SHIFTS, SHIFTS, SIZES, SIZES, SIZES, YAWS)


def tensor(*rows, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype).reshape(-1, 7)


def random_boxes(n: int, seed: int, spread: float = 8.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    centers_N3 = rng.uniform(-spread, spread, (n, 3)) * [1, 1, 0.1]
    sizes_N3 = rng.uniform(0.3, 6, (n, 3))
    return torch.from_numpy(np.column_stack([centers_N3, sizes_N3, rng.uniform(-7, 7, n)]))


def rectangle(box) -> list[tuple[Fraction, Fraction]]:
    x, y, _, length, width, _, yaw = (float(value) for value in box)
    corners = []
    for ahead, left in ((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)):
        u, v = ahead * length, left * width
        corner = (x + np.cos(yaw) * u - np.sin(yaw) * v, y + np.sin(yaw) * u + np.cos(yaw) * v)
        corners.append((Fraction(float(corner[0])), Fraction(float(corner[1]))))
    return corners


def exact_intersection(box_a, box_b) -> float:
    """Clip one polygon by the edges of the other (Sutherland-Hodgman) in rational numbers."""
    if not (box_b[3] and box_b[4]):
        return 0.0  # no inside to clip to
    polygon, clipper = rectangle(box_a), rectangle(box_b)
    for (x0, y0), (x1, y1) in zip(clipper, clipper[1:] + clipper[:1], strict=True):
        sides = [(x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) for x, y in polygon]
        kept = []
        for i, (x, y) in enumerate(polygon):
            j = (i + 1) % len(polygon)
            if sides[i] >= 0:
                kept.append((x, y))
            if sides[i] * sides[j] < 0:
                t = sides[i] / (sides[i] - sides[j])
                kept.append((x + t * (polygon[j][0] - x), y + t * (polygon[j][1] - y)))
        polygon = kept
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return float(abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)) / 2)


def slow_nms(boxes_N7, scores_N, threshold: float, max_in: int, max_out: int) -> list[int]:
    order = sorted(range(len(boxes_N7)), key=lambda i: (-scores_N[i], i))[:max_in]
    kept: list[int] = []
    for i in order:
        for j in kept:
            shared = exact_intersection(boxes_N7[i], boxes_N7[j])
            areas = [float(boxes_N7[k][3] * boxes_N7[k][4]) for k in (i, j)]
            if shared > 0 and shared / (sum(areas) - shared) > threshold:
                break
        else:
            kept.append(i)
    return kept[:max_out]


@given(BOXES, BOXES)
@settings(deadline=None, max_examples=200)
def test_area_equals_the_exact_clipper(box_a, box_b):
    expected = exact_intersection(box_a, box_b)
    area = rotated_intersection_bev_paired(tensor(box_a), tensor(box_b)).item()
    assert area == pytest.approx(expected, abs=2e-13)
    assert rotated_intersection_bev(tensor(box_a), tensor(box_b)).item() == pytest.approx(
        expected, abs=2e-13
    )
    area32 = rotated_intersection_bev_paired(
        tensor(box_a, dtype=torch.float32), tensor(box_b, dtype=torch.float32)
    ).item()
    assert area32 == pytest.approx(expected, abs=1e-4)


@given(BOXES, st.floats(-100, 100), st.floats(-100, 100), st.floats(-20, 20))
@settings(deadline=None, max_examples=100)
def test_a_box_with_itself_anywhere(box, x, y, turn):
    boxes_N7 = tensor(box, (x, y, *box[2:6], turn))
    full = float(box[3] > 0 and box[4] > 0)
    np.testing.assert_allclose(iou_bev_paired(boxes_N7, boxes_N7), [full] * 2, atol=1e-12)
    np.testing.assert_allclose(iou_bev(boxes_N7, boxes_N7).diagonal(), [full] * 2, atol=1e-12)
    solid = full * float(box[5] > 0)
    np.testing.assert_allclose(iou_3d_paired(boxes_N7, boxes_N7), [solid] * 2, atol=1e-12)


def test_many_boxes_with_themselves_and_turned_copies():
    boxes_N7 = random_boxes(2000, seed=1, spread=80)
    assert (iou_bev_paired(boxes_N7, boxes_N7) - 1).abs().max() < 1e-12
    assert (iou_3d_paired(boxes_N7, boxes_N7) - 1).abs().max() < 1e-12
    half_turn_N7 = boxes_N7 + torch.tensor([0, 0, 0, 0, 0, 0, PI], dtype=torch.float64)
    assert (iou_bev_paired(boxes_N7, half_turn_N7) - 1).abs().max() < 1e-12
    quarter_N7 = boxes_N7[:, [0, 1, 2, 4, 3, 5, 6]]
    quarter_N7[:, 6] += PI / 2
    assert (iou_bev_paired(boxes_N7, quarter_N7) - 1).abs().max() < 1e-12


CLOSED_FORMS = {
    'crossing at a right angle': ((0, 0, 0, 4, 2, 1, 0), (0, 0, 0, 4, 2, 1, PI / 2), 4.0),
    'unit squares at 45 degrees': (
        (0, 0, 0, 1, 1, 1, 0),
        (0, 0, 0, 1, 1, 1, PI / 4),
        2 * (np.sqrt(2) - 1),
    ),
    'half shifted along the length': ((0, 0, 0, 4, 2, 1, 0), (2, 0, 0, 4, 2, 1, 0), 4.0),
    'nested and turned': ((0, 0, 0, 8, 8, 1, 0), (1, -1, 0, 2, 1, 1, 0.3), 2.0),
    'the same nested the other way': ((1, -1, 0, 2, 1, 1, 0.3), (0, 0, 0, 8, 8, 1, 0), 2.0),
    'nested with a common edge': ((0, 0, 0, 4, 4, 1, 0), (1, 0, 0, 2, 4, 1, 0), 8.0),
    'touching along an edge': ((0, 0, 0, 2, 2, 1, 0), (2, 0, 0, 2, 2, 1, 0), 0.0),
    'touching at a corner': ((0, 0, 0, 2, 2, 1, 0), (2, 2, 0, 2, 2, 1, 0), 0.0),
    'tip against an edge': ((0, 0, 0, 2, 2, 1, 0), (1 + 0.5**0.5, 0, 0, 1, 1, 1, PI / 4), 0.0),
    'disjoint, circles meet': ((0, 0, 0, 8, 1, 1, 0), (0, 2, 0, 8, 1, 1, 0), 0.0),
    'far apart': ((0, 0, 0, 4, 2, 1, 0.2), (50, 9, 0, 4, 2, 1, 1.2), 0.0),
    'a line': ((0, 0, 0, 4, 0, 1, 0.7), (0, 0, 0, 4, 2, 1, 0), 0.0),
    'a point': ((0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 4, 2, 1, 0), 0.0),
    'two points': ((0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.0),
    'tiny in huge': ((30, 20, 0, 0.01, 0.01, 1, 0.5), (0, 0, 0, 100, 100, 1, 1.0), 1e-4),
}


@pytest.mark.parametrize(('box_a', 'box_b', 'area'), CLOSED_FORMS.values(), ids=CLOSED_FORMS)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_closed_forms(box_a, box_b, area, dtype):
    a_17, b_17 = tensor(box_a, dtype=dtype), tensor(box_b, dtype=dtype)
    tolerance = 1e-13 if dtype == torch.float64 else 3e-6
    union = box_a[3] * box_a[4] + box_b[3] * box_b[4] - area
    for first, second in ((a_17, b_17), (b_17, a_17)):
        shared = rotated_intersection_bev(first, second)
        assert shared.dtype == dtype
        assert shared.item() == pytest.approx(area, abs=tolerance)
        iou = iou_bev(first, second).item()
        assert iou == pytest.approx(area / union if union else 0, abs=tolerance)


def test_disjoint_is_exactly_zero():
    """Rounding must not leave crumbs that count as an overlap at threshold 0."""
    rng = np.random.default_rng(3)
    a_N7, b_N7 = random_boxes(4000, 4, spread=40), random_boxes(4000, 5, spread=40)
    angle = rng.uniform(-PI, PI, 4000)
    apart = np.hypot(*a_N7[:, 3:5].T.numpy()) + np.hypot(*b_N7[:, 3:5].T.numpy())
    # Half diagonals would touch at apart / 2: the paired form has no pruning that hides this.
    b_N7[:, 0] = a_N7[:, 0] + torch.from_numpy(np.cos(angle) * apart * 0.501)
    b_N7[:, 1] = a_N7[:, 1] + torch.from_numpy(np.sin(angle) * apart * 0.501)
    for dtype in (torch.float64, torch.float32):
        assert not rotated_intersection_bev_paired(a_N7.to(dtype), b_N7.to(dtype)).any()


def test_all_pairs_equal_the_paired_form_and_are_symmetric():
    a_N7, b_M7 = random_boxes(60, 6), random_boxes(45, 7)
    i, j = torch.cartesian_prod(torch.arange(60), torch.arange(45)).T
    for all_pairs, paired in (
        (rotated_intersection_bev, rotated_intersection_bev_paired),
        (iou_bev, iou_bev_paired),
        (iou_3d, iou_3d_paired),
    ):
        table_NM = all_pairs(a_N7, b_M7)
        assert 0.05 < (table_NM > 0).double().mean() < 0.95
        torch.testing.assert_close(table_NM.flatten(), paired(a_N7[i], b_M7[j]), rtol=0, atol=1e-13)
        torch.testing.assert_close(all_pairs(b_M7, a_N7).T, table_NM, rtol=0, atol=1e-12)
        assert table_NM.min() >= 0
    assert iou_bev(a_N7, a_N7).max() <= 1


def test_chunks_do_not_show(monkeypatch):
    from cmkd_ros.geometry import overlap

    a_N7, b_M7 = random_boxes(50, 8), random_boxes(40, 9)
    whole_NM, whole_K = iou_bev(a_N7, b_M7), iou_bev_paired(a_N7[:40], b_M7)
    monkeypatch.setattr(overlap, '_DISTANCES_PER_CHUNK', 100)
    monkeypatch.setattr(overlap, '_PAIRS_PER_CHUNK_CPU', 7)
    assert torch.equal(iou_bev(a_N7, b_M7), whole_NM)
    assert torch.equal(iou_bev_paired(a_N7[:40], b_M7), whole_K)


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-PI, PI))
@settings(deadline=None, max_examples=25)
def test_common_motion_changes_nothing(x, y, turn):
    a_N7, b_M7 = random_boxes(20, 10, spread=4), random_boxes(20, 11, spread=4)
    rotation = torch.tensor(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]], dtype=torch.float64
    )

    def moved(boxes_N7):
        boxes_N7 = boxes_N7.clone()
        boxes_N7[:, :2] = boxes_N7[:, :2] @ rotation.T + torch.tensor([x, y])
        boxes_N7[:, 6] += turn
        return boxes_N7

    torch.testing.assert_close(
        iou_3d(moved(a_N7), moved(b_M7)), iou_3d(a_N7, b_M7), rtol=0, atol=1e-11
    )


def test_volume_overlap():
    box = (1, 2, 0, 4, 2, 2, 0.5)
    raised = (1, 2, 1.5, 4, 2, 2, 0.5)
    above = (1, 2, 2, 4, 2, 2, 0.5)
    inner = (1, 2, 0.25, 4, 2, 1, 0.5)
    flat = (1, 2, 0, 4, 2, 0, 0.5)
    found = iou_3d(tensor(box), tensor(box, raised, above, inner, flat))
    np.testing.assert_allclose(found, [[1, 0.5 / 3.5, 0, 0.5, 0]], atol=1e-15)
    assert iou_3d(tensor(flat), tensor(flat)).item() == 0


def test_nearest_axis_aligned():
    upright = (0, 0, 0, 4, 2, 1, 0)
    found = iou_bev_nearest_axis_aligned(
        tensor(upright),
        tensor(
            (0, 0, 0, 4, 2, 1, PI / 4 - 1e-6),
            (0, 0, 0, 4, 2, 1, PI / 4 + 1e-6),
            (0, 0, 0, 4, 2, 1, PI),
            (0, 0, 0, 2, 4, 1, -PI / 2 + 0.1),
            (2, 0, 0, 4, 2, 1, 3 * PI + 0.2),
            (9, 0, 0, 4, 2, 1, 0),
            (0, 0, 0, 0, 0, 1, 0),
        ),
    )
    np.testing.assert_allclose(found, [[1, 4 / 12, 1, 1, 4 / 12, 0, 0]], atol=1e-15)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('threshold', [0.0, 0.01, 0.5])
def test_suppression_equals_the_slow_one(seed, threshold):
    boxes_N7 = random_boxes(60, 20 + seed)
    # Few distinct scores: ties everywhere.
    scores_N = torch.from_numpy(np.random.default_rng(seed).integers(0, 8, 60) / 8)
    kept = nms_bev(boxes_N7, scores_N, threshold, 50, 20)
    expected = slow_nms(boxes_N7, scores_N.tolist(), threshold, 50, 20)
    assert kept.dtype == torch.int64
    assert kept.tolist() == expected


def test_suppression_across_blocks(monkeypatch):
    from cmkd_ros.geometry import overlap

    boxes_N7, scores_N = random_boxes(700, 30, spread=30), torch.rand(700)
    whole = nms_bev(boxes_N7, scores_N, 0.1, 700, 700)
    monkeypatch.setattr(overlap, '_NMS_BLOCK', 16)
    assert torch.equal(nms_bev(boxes_N7, scores_N, 0.1, 700, 700), whole)
    assert torch.equal(nms_bev(boxes_N7, scores_N, 0.1, 700, 33), whole[:33])
    best = scores_N.argsort(descending=True, stable=True)[:100]
    assert set(nms_bev(boxes_N7, scores_N, 0.1, 100, 700).tolist()) <= set(best.tolist())


def test_equal_scores_keep_the_given_order():
    same_N7 = tensor(*[(0, 0, 0, 4, 2, 1, 0)] * 5)
    apart_N7 = tensor(*[(10.0 * i, 0, 0, 4, 2, 1, 0) for i in range(300)])
    assert nms_bev(same_N7, torch.ones(5), 0.5, 10, 10).tolist() == [0]
    assert nms_bev(apart_N7, torch.ones(300), 0.5, 300, 300).tolist() == list(range(300))


def test_threshold_is_strict():
    half_N7 = tensor((0, 0, 0, 4, 2, 1, 0), (2, 0, 0, 4, 2, 1, 0))
    scores_N = torch.tensor([0.9, 0.8])
    assert nms_bev(half_N7, scores_N, 1 / 3 + 1e-9, 9, 9).tolist() == [0, 1]
    assert nms_bev(half_N7, scores_N, 1 / 3 - 1e-9, 9, 9).tolist() == [0]
    touching_N7 = tensor((0, 0, 0, 4, 2, 1, 0), (4, 0, 0, 4, 2, 1, 0))
    assert nms_bev(touching_N7, scores_N, 0.0, 9, 9).tolist() == [0, 1]


def test_nothing_in_nothing_out():
    none_07 = torch.zeros(0, 7)
    assert iou_3d(none_07, torch.ones(3, 7)).shape == (0, 3)
    assert iou_bev(torch.ones(3, 7), none_07).shape == (3, 0)
    assert iou_bev_paired(none_07, none_07).shape == (0,)
    assert iou_bev_nearest_axis_aligned(none_07, none_07).shape == (0, 0)
    kept = nms_bev(none_07, torch.zeros(0), 0.1, 10, 10)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_official_kept_set(shared_dir):
    golden = np.load(shared_dir / 'goldens' / 'student_scd_R50_V2_000002.npz')
    boxes_N7 = torch.from_numpy(golden['final.0.boxes'])
    scores_N = torch.from_numpy(golden['final.0.scores'])
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(boxes_N7)))
    # What survived the official suppression survives ours, by score.
    kept = nms_bev(boxes_N7[shuffled], scores_N[shuffled], 0.01, 4096, 500)
    assert len(kept) == len(boxes_N7)
    torch.testing.assert_close(scores_N[shuffled][kept], scores_N)
    # Of boxes each doubled with a lower score, the doubles go.
    doubled_N7, lower_N = boxes_N7.repeat(2, 1), torch.cat([scores_N, scores_N - 1])
    assert sorted(nms_bev(doubled_N7, lower_N, 0.01, 4096, 500).tolist()) == list(range(164))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_equals_cpu():
    a_N7, b_M7 = random_boxes(300, 40, spread=15), random_boxes(200, 41, spread=15)
    for function in (rotated_intersection_bev, iou_bev, iou_3d, iou_bev_nearest_axis_aligned):
        on_cuda = function(a_N7.cuda(), b_M7.cuda())
        assert on_cuda.is_cuda
        torch.testing.assert_close(on_cuda.cpu(), function(a_N7, b_M7), rtol=0, atol=1e-12)
    scores_N = torch.rand(300)
    kept = nms_bev(a_N7.float().cuda(), scores_N.cuda(), 0.01, 4096, 500)
    assert torch.equal(kept.cpu(), nms_bev(a_N7.float(), scores_N, 0.01, 4096, 500))


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: iou_bev(torch.ones(2, 6), torch.ones(2, 7)), r'expected \(N, 7\).*\(2, 6\)'),
        (lambda: iou_3d(torch.ones(7), torch.ones(2, 7)), r'expected \(N, 7\).*\(7,\)'),
        (
            lambda: iou_bev_nearest_axis_aligned(torch.ones(1, 7), torch.ones(1, 7).long()),
            'floating point, found .* torch.int64',
        ),
        (
            lambda: iou_bev(torch.ones(1, 7), torch.ones(1, 7).double()),
            'one dtype, found torch.float32 and torch.float64',
        ),
        (lambda: iou_3d_paired(torch.ones(1, 7), torch.ones(2, 7)), 'found 1 and 2'),
        (lambda: nms_bev(torch.ones(2, 7), torch.ones(3), 0.1, 9, 9), 'a score for each box'),
        (lambda: nms_bev(torch.ones(2, 6), torch.ones(2), 0.1, 9, 9), r'expected \(N, 7\)'),
        (lambda: nms_bev(torch.ones(2, 7) / 0, torch.ones(2), 0.1, 9, 9), 'NaN or Inf'),
        (lambda: nms_bev(torch.ones(2, 7), torch.ones(2) * np.nan, 0.1, 9, 9), 'NaN or Inf'),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
