"""Overlaps of KITTI boxes against polygon clipping, closed forms and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.evaluation.kitti_overlap import bev_and_3d_iou, bev_far_apart, image_iou
from cmkd_ros.kitti_files import KittiObjects

SEEDS = st.integers(0, 2**32 - 1)


def make_boxes(rows_N7):
    """Rows: x, y, z, h, w, l, rotation_y."""
    rows = np.array(rows_N7, dtype=float).reshape(-1, 7)
    n, zeros = len(rows), np.zeros(len(rows))
    return KittiObjects(
        ('Car',) * n,
        zeros,
        zeros.astype(int),
        zeros,
        np.zeros((n, 4)),
        rows[:, 3:6],
        rows[:, :3],
        rows[:, 6],
    )


def random_rows(random, n):
    rows = np.empty((n, 7))
    rows[:, :3] = random.uniform(-3, 3, (n, 3)) + [5, 1.6, 30]
    rows[:, 3:6] = random.uniform(0.3, 6, (n, 3))
    rows[:, 6] = random.uniform(-4, 4, n)
    return rows


def overlaps(rows_a, rows_b):
    a, b = make_boxes(rows_a), make_boxes(rows_b)
    index = np.arange(len(a))
    return bev_and_3d_iou(a, index, b, index)


def footprint(row):
    """Corners in the x-z plane by the formula of the protocol (kitti-eval 3.3)."""
    x, _, z, _, w, l, ry = row
    offsets = [(l / 2, w / 2), (l / 2, -w / 2), (-l / 2, -w / 2), (-l / 2, w / 2)]
    c, s = np.cos(ry), np.sin(ry)
    return [(x + c * u + s * v, z - s * u + c * v) for u, v in offsets]


def signed_area(polygon):
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    x0, y0 = polygon[0] if polygon else (0, 0)
    return sum((x - x0) * (v - y0) - (u - x0) * (y - y0) for (x, y), (u, v) in pairs) / 2


def clipped_area(subject, window):
    """Area of the intersection of two convex polygons, Sutherland and Hodgman's way."""
    if signed_area(window) < 0:
        window = window[::-1]
    for (ax, ay), (bx, by) in zip(window, window[1:] + window[:1], strict=True):
        side = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in subject]
        kept = []
        for i, (x, y) in enumerate(subject):
            u, v = subject[i - 1]
            if side[i] * side[i - 1] < 0:
                t = side[i - 1] / (side[i - 1] - side[i])
                kept.append((u + t * (x - u), v + t * (y - v)))
            if side[i] >= 0:
                kept.append((x, y))
        subject = kept
    return abs(signed_area(subject))


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_equal_to_polygon_clipping(seed):
    rows_a, rows_b = random_rows(np.random.default_rng(seed), 16).reshape(2, 8, 7)
    bev, volume = overlaps(rows_a, rows_b)
    for i, (a, b) in enumerate(zip(rows_a, rows_b, strict=True)):
        area = clipped_area(footprint(a), footprint(b))
        assert bev[i] == pytest.approx(area / (a[4] * a[5] + b[4] * b[5] - area), abs=1e-12)
        height = max(0, min(a[1], b[1]) - max(a[1] - a[3], b[1] - b[3]))
        union = a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - area * height
        assert volume[i] == pytest.approx(area * height / union, abs=1e-12)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_symmetric(seed):
    rows_a, rows_b = random_rows(np.random.default_rng(seed), 16).reshape(2, 8, 7)
    for one, other in zip(overlaps(rows_a, rows_b), overlaps(rows_b, rows_a), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@given(SEEDS, st.floats(-4, 4))
@settings(max_examples=60, deadline=None)
def test_turning_both_boxes_about_the_camera_changes_nothing(seed, angle):
    rows_a, rows_b = random_rows(np.random.default_rng(seed), 16).reshape(2, 8, 7)
    cos, sin = np.cos(angle), np.sin(angle)

    def turned(rows):
        rows = rows.copy()
        rows[:, 0], rows[:, 2] = (
            cos * rows[:, 0] + sin * rows[:, 2],
            cos * rows[:, 2] - sin * rows[:, 0],
        )
        rows[:, 6] += angle
        return rows

    before, after = overlaps(rows_a, rows_b), overlaps(turned(rows_a), turned(rows_b))
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-12)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_a_box_coincides_with_itself_whichever_way_it_faces(seed):
    rows = random_rows(np.random.default_rng(seed), 8)
    reversed_rows = rows + [0, 0, 0, 0, 0, 0, np.pi]
    for bev_or_3d in (*overlaps(rows, rows), *overlaps(rows, reversed_rows)):
        np.testing.assert_allclose(bev_or_3d, 1.0, rtol=0, atol=1e-12)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_boxes_called_far_apart_share_nothing(seed):
    random = np.random.default_rng(seed)
    rows_a, rows_b = random_rows(random, 16).reshape(2, 8, 7)
    rows_b[:, [0, 2]] += random.uniform(-6, 6, (8, 2))
    a, b, index = make_boxes(rows_a), make_boxes(rows_b), np.arange(8)
    far = bev_far_apart(a, index, b, index)
    assert not overlaps(rows_a, rows_b)[0][far].any()


def test_vertical_overlap_counts_only_in_3d():
    low, high = [0, 0, 10, 2, 2, 4, 0.7], [0, -1.5, 10, 2, 2, 4, 0.7]
    bev, volume = overlaps([low], [high])
    assert bev == pytest.approx(1.0)
    assert volume == pytest.approx(0.5 / 3.5)
    assert overlaps([low], [[0, -2, 10, 2, 2, 4, 0.7]])[1] == 0.0


def test_image_boxes():
    a = np.array([[0.0, 0, 10, 10]] * 4)
    b = np.array([[0.0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    np.testing.assert_allclose(image_iou(a, b), [1, 1 / 3, 0, 0.04])
    np.testing.assert_allclose(image_iou(a, b, over_second=True), [1, 0.5, 0, 1])


def test_boxes_without_area_overlap_nothing():
    point = np.zeros((1, 4))
    assert image_iou(point, point) == 0.0
    flat = [[0, 0, 10, 0, 0, 0, 0.3]]
    assert overlaps(flat, flat) == (0.0, 0.0)


def test_unknown_3d_boxes_overlap_no_known_one():
    unknown, known = [-1000, -1000, -1000, -1, -1, -1, -10], [0, 1.6, 20, 1.5, 1.6, 4, 0.1]
    assert overlaps([unknown], [known]) == (0.0, 0.0)
