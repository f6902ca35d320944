"""Pictures of boxes, checked at the pixels where something must or must not be."""

import cv2
import numpy as np
import pytest

from cmkd_ros.evaluation.visualize import (
    CLASS_COLOURS,
    TRUTH_COLOUR,
    class_colour,
    draw_boxes,
    plot_bev,
)
from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.camera import CameraModel
from cmkd_ros.geometry.frames import make_se3

WIDTH, HEIGHT = 320, 240
P_PX = np.array([[200.0, 0, 160, 0], [0, 200.0, 120, 0], [0, 0, 1, 0]])
CAMERA = CameraModel.from_projection(P_PX, WIDTH, HEIGHT)
# The camera looks along the reference frame's x axis, from its origin.
T_CAM_REF = make_se3(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))
BLACK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
RED = (255, 0, 0)


def boxes(*rows):
    return Boxes3D(np.array(rows, dtype=float).reshape(-1, 7))


def touched(image):
    rows, columns = np.nonzero(image.any(axis=2))
    return columns.min(), rows.min(), columns.max(), rows.max()


def test_wires_lie_on_the_projected_box():
    box = boxes([10, 1, 0.5, 4, 2, 1.5, 0])
    image = draw_boxes(BLACK, box, CAMERA, T_CAM_REF, colours=[RED])
    (rectangle,), _ = box.project(P_PX, T_CAM_REF, WIDTH, HEIGHT)
    np.testing.assert_allclose(touched(image), rectangle, atol=1.5)
    assert not BLACK.any()
    assert not image[..., 1:].any() and image[..., 0].max() > 250


def test_front_is_marked():
    """Seen from behind, the crossed-out far face has a point in its middle, the near one none."""
    image = draw_boxes(BLACK, boxes([10, 0, 0, 4, 2, 2, 0]), CAMERA, T_CAM_REF, colours=[RED])
    assert image[120, 160].any()
    sideways = draw_boxes(
        BLACK, boxes([10, 0, 0, 4, 2, 2, np.pi / 2]), CAMERA, T_CAM_REF, colours=[RED]
    )
    # Facing left the cross lies on the left side, seen edge-on, and the middle stays free.
    assert not sideways[120, 160].any()


def test_nearer_boxes_cover_farther_ones():
    near, far = [10, 0, 0, 1e-3, 2, 2, 0], [20, 0, 0, 1e-3, 4, 4, 0]
    for rows, colours in (((near, far), (RED, (0, 255, 0))), ((far, near), ((0, 255, 0), RED))):
        image = draw_boxes(BLACK, boxes(*rows), CAMERA, T_CAM_REF, colours=colours)
        assert image[120, 140, 0] > 240 and image[120, 140, 1] < 15


def test_boxes_around_or_behind_the_camera():
    behind = draw_boxes(BLACK, boxes([-10, 0, 0, 4, 2, 2, 0]), CAMERA, T_CAM_REF, ['Car 0.5'])
    assert not behind.any()
    across = draw_boxes(
        BLACK, boxes([0, 3, 0, 12, 2, 2, 0], [0, 0, 0, 60, 4, 3, 0]), CAMERA, T_CAM_REF
    )
    assert across.any()
    # The box on the left stays on the left; without clipping its rear would flip to the right.
    left = draw_boxes(BLACK, boxes([0, 3, 0, 12, 2, 2, 0]), CAMERA, T_CAM_REF)
    assert touched(left)[2] < WIDTH / 2


def test_captions_choose_colours():
    assert class_colour('Car 0.93') == class_colour('car') == CLASS_COLOURS['car']
    assert class_colour('bus 0.5') == class_colour('') != CLASS_COLOURS['car']
    plain = draw_boxes(BLACK, boxes([10, 0, 0, 4, 2, 2, 0]), CAMERA, T_CAM_REF)
    captioned = draw_boxes(BLACK, boxes([10, 0, 0, 4, 2, 2, 0]), CAMERA, T_CAM_REF, ['Car 0.93'])
    assert captioned[:90].any() and not plain[:90].any()


def test_wrong_pictures_and_lists_are_refused():
    with pytest.raises(ValueError, match='expected uint8'):
        draw_boxes(BLACK.astype(float), Boxes3D.empty(), CAMERA, T_CAM_REF)
    with pytest.raises(ValueError, match='labels: expected 1, one per box, found 0'):
        draw_boxes(BLACK, boxes([10, 0, 0, 4, 2, 2, 0]), CAMERA, T_CAM_REF, [])
    with pytest.raises(ValueError, match='range_m'):
        plot_bev(None, Boxes3D.empty(), range_m=(0, 0, 0, 10))
    with pytest.raises(ValueError, match='detection_colours'):
        plot_bev(None, Boxes3D.empty(), detection_colours=[RED])


def test_bev_puts_forward_up_and_left_left(tmp_path):
    window = (0.0, -10.0, 30.0, 10.0)
    detection, truth = boxes([20, 5, 0, 4, 2, 1.5, 0]), boxes([10, -5, 0, 4, 2, 1.5, 0])
    image = plot_bev(tmp_path / 'bev.png', detection, truth, range_m=window)
    assert image.shape == (300, 200, 3)
    # The left edge of the detection: y = 6 m, x = 20 m; of the label: y = -4 m, x = 10 m.
    np.testing.assert_allclose(image[100, 40], CLASS_COLOURS['car'], atol=40)
    np.testing.assert_allclose(image[200, 140], TRUTH_COLOUR, atol=40)
    # The heading reaches past the front (x = 22 m) and not past the rear.
    assert (image[76, 50] > 100).any() and not (image[124, 50] > 100).any()
    written = cv2.imread(str(tmp_path / 'bev.png'))
    np.testing.assert_array_equal(written[..., ::-1], image)


def test_bev_draws_points_inside_its_range_only():
    points_N4 = np.array([[5.05, 0.05, 0.0, 1], [500, 0, 0, 1], [5, 99, 0, 1]], np.float32)
    empty = plot_bev(None, Boxes3D.empty(), range_m=(0, -10, 10, 10))
    image = plot_bev(None, Boxes3D.empty(), None, points_N4, (0, -10, 10, 10))
    assert (image != empty).any(axis=2).sum() == 1
    assert image[49, 99].tolist() == [130, 130, 130]


def test_real_frame(shared_dir):
    """Every labelled box of a KITTI frame is drawn where its labelled rectangle is."""
    from cmkd_ros.kitti_files import read_calibration, read_labels

    folder = shared_dir / 'kitti_mini' / 'training'
    frame = sorted((folder / 'label_2').iterdir())[0].stem
    image = cv2.imread(str(folder / 'image_2' / f'{frame}.png'))[..., ::-1]
    calibration = read_calibration(folder / 'calib' / f'{frame}.txt')
    objects = read_labels(folder / 'label_2' / f'{frame}.txt')
    objects = objects.select((objects.dimensions_N3[:, 0] > 0) & (objects.truncated_N == 0))
    assert len(objects)
    labelled = Boxes3D.from_kitti(
        objects.locations_N3, objects.dimensions_N3, objects.rotations_y_N, calibration.T_cam_ref
    )
    camera = calibration.camera(image.shape[1], image.shape[0])
    for i in range(len(labelled)):
        drawn = draw_boxes(np.zeros_like(image), labelled[[i]], camera, calibration.T_cam_ref)
        np.testing.assert_allclose(touched(drawn), objects.boxes_px_N4[i], atol=8)
