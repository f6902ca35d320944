"""Detections become KITTI results: what is not seen is dropped, the rest reads back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.evaluation.kitti_ap import evaluate_kitti
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.geometry import Boxes3D, CameraModel
from cmkd_ros.geometry.frames import transform_points
from cmkd_ros.kitti_files import (
    read_calibration,
    read_frame_list,
    read_labels,
    read_results,
    write_results,
)

P_PX_34 = np.array([[720.0, 0, 610, 45], [0, 720.0, 173, 0.2], [0, 0, 1, 0.003]])
WIDTH, HEIGHT = 1242, 375
CAMERA = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
T_CAM_REF = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])


def results_of(rows, scores=None):
    boxes = Boxes3D(np.array(rows, dtype=float).reshape(-1, 7))
    scores = np.linspace(0.9, 0.1, len(boxes)) if scores is None else scores
    names = [f'Car{i}' for i in range(len(boxes))]
    return boxes, to_kitti_results(boxes, scores, names, CAMERA, T_CAM_REF)


def test_what_the_camera_cannot_see_is_dropped_and_the_rest_stays_together():
    _, found = results_of(
        [
            [20, 0, -1, 4, 2, 1.5, 0],
            [-20, 0, -1, 4, 2, 1.5, 0],  # behind
            [10, 30, -1, 4, 2, 1.5, 0],  # beside
            [30, 5, -1, 4, 2, 1.5, 1],
            [10, 0, 30, 4, 2, 1.5, 0],  # above
        ]
    )
    assert found.names == ('Car0', 'Car3')
    assert found.scores_N.tolist() == pytest.approx([0.9, 0.3])
    assert found.locations_N3[:, 2].tolist() == pytest.approx([19.73, 29.73])
    assert (found.truncated_N == -1).all()
    assert found.occluded_N.tolist() == [-1, -1]  # integers: the devkit misreads 0.00 there
    assert len(results_of([])[1]) == 0


def test_the_rectangle_is_that_of_the_corners_cut_at_the_border():
    boxes, found = results_of([[20, 0, -1, 4, 2, 1.5, 0.7], [6, 3, -1, 4, 2, 1.5, 0.2]])
    corners_N83 = transform_points(T_CAM_REF, boxes.corners_N83())
    pixels = corners_N83 @ P_PX_34[:, :3].T + P_PX_34[:, 3]
    uv = pixels[..., :2] / pixels[..., 2:]
    expected = np.concatenate([uv.min(axis=1), uv.max(axis=1)], axis=1)
    assert expected[1, 0] < 0 or expected[1, 3] > HEIGHT - 1  # the second one is cut
    limits = [WIDTH - 1, HEIGHT - 1] * 2
    np.testing.assert_allclose(found.boxes_px_N4, np.clip(expected, 0, limits), atol=1e-9)


def test_a_box_that_reaches_behind_the_camera_has_a_rectangle_to_the_border():
    _, found = results_of([[1, 1.2, -1, 6, 2, 1.5, 0]])
    x1, y1, x2, y2 = found.boxes_px_N4[0]
    assert (x1, y2) == (0, HEIGHT - 1)
    assert 0 <= y1 < y2
    assert x1 < x2 <= WIDTH - 1


def test_alpha_is_the_heading_against_the_viewing_ray():
    _, found = results_of([[20, 0, -1, 4, 2, 1.5, 0], [20, 10, -1, 4, 2, 1.5, np.arctan2(10, 20)]])
    # Both show their tails: the observation angle is that of a car ahead that drives away.
    np.testing.assert_allclose(found.alphas_N, -np.pi / 2, atol=1e-9)
    assert found.rotations_y_N[1] == pytest.approx(-np.pi / 2 - np.arctan2(10, 20))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_written_results_read_back_as_the_same_boxes(tmp_path_factory, seed):
    random = np.random.default_rng(seed)
    low, high = (5, -4, -2, 0.5, 0.5, 0.5, -np.pi), (70, 4, 1, 6, 3, 3, np.pi)
    boxes, found = results_of(random.uniform(low, high, (8, 7)), random.uniform(0, 1, 8))
    path = tmp_path_factory.mktemp('results') / '000000.txt'
    write_results(path, found)
    back = read_results(path)
    again = Boxes3D.from_kitti(
        back.locations_N3, back.dimensions_N3, back.rotations_y_N, T_CAM_REF
    ).array_N7
    kept = boxes.array_N7[[int(name[3:]) for name in found.names]]
    np.testing.assert_allclose(again[:, :6], kept[:, :6], atol=1.1e-4)
    np.testing.assert_allclose(np.cos(again[:, 6] - kept[:, 6]), 1, atol=1e-8)
    content = path.read_bytes()
    write_results(path, back)
    assert path.read_bytes() == content


def test_real_labels_through_the_reference_frame_are_perfect_results(shared_dir):
    """Labels -> boxes in ref -> results -> AP: nothing is lost but digits."""
    root = shared_dir / 'kitti_mini'
    labels, results, differences = [], [], []
    for frame in read_frame_list(root / 'ImageSets/train.txt'):
        calibration = read_calibration(root / f'training/calib/{frame}.txt')
        label = read_labels(root / f'training/label_2/{frame}.txt')
        known = label.select([name != 'DontCare' for name in label.names])
        boxes = Boxes3D.from_kitti(
            known.locations_N3, known.dimensions_N3, known.rotations_y_N, calibration.T_cam_ref
        )
        camera = calibration.camera(WIDTH, HEIGHT)
        scores = np.ones(len(known))
        found = to_kitti_results(boxes, scores, known.names, camera, calibration.T_cam_ref)
        assert len(found) == len(known)
        clear = (known.truncated_N == 0) & (known.occluded_N == 0)
        differences.append(np.abs(found.boxes_px_N4 - known.boxes_px_N4)[clear])
        labels.append(label)
        results.append(found)
    # Rectangles were drawn by hand around the pixels, ours lie around the corners.
    assert np.median(np.concatenate(differences)) < 2.0
    report = evaluate_kitti(labels, results)
    assert report.n_gt['Car'][1] >= 41
    assert report.ap['strict']['Car']['3d']['R40'][1] == 100.0
    assert report.ap['strict']['Car']['aos']['R40'][1] > 99.0
