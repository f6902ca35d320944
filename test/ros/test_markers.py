"""Markers and the debug image show the boxes where they are."""

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from cmkd_ros.detector import Detections
from cmkd_ros.geometry import (
    Boxes3D,
    CameraModel,
    camera_mount_pose,
    invert_se3,
    transform_points,
)
from cmkd_ros.ros.conversions import image_to_rgb
from cmkd_ros.ros.markers import ARROW_M, detection_markers
from cmkd_ros.ros.overlay import debug_image
from cmkd_ros.ros.pipeline import SeenFrame
from cmkd_ros.ros.pose import ReferencePose

T_CAM_REF = camera_mount_pose(1.65, 0.05)
HEADER = Header(frame_id='camera')
SEEN = Detections(
    Boxes3D([[12, 2, -0.8, 4, 1.7, 1.5, 0.3], [20, -3, -0.9, 0.8, 0.6, 1.7, 1.0]]),
    np.array([0.9, 0.4]),
    ('Car', 'Cyclist'),
)
NOTHING = Detections(Boxes3D.empty(), np.zeros(0), ())
CLASSES = ('Car', 'Pedestrian', 'Cyclist')


def test_the_picture_before_is_wiped_first_even_when_nothing_is_seen():
    for seen, count in ((NOTHING, 1), (SEEN, 4)):
        markers = detection_markers(HEADER, seen, T_CAM_REF, CLASSES).markers
        assert len(markers) == count
        assert markers[0].action == Marker.DELETEALL
        assert {marker.header.frame_id for marker in markers} == {'camera'}


def test_lines_join_the_corners_of_the_boxes():
    _, boxes, *_ = detection_markers(HEADER, SEEN, T_CAM_REF, CLASSES).markers
    assert boxes.type == Marker.LINE_LIST
    assert len(boxes.points) == len(boxes.colors) == 2 * 2 * (14 + 3)
    points = np.array([[p.x, p.y, p.z] for p in boxes.points]).reshape(2, -1, 3)
    corners = transform_points(T_CAM_REF, SEEN.boxes.corners_N83())
    for drawn, own in zip(points[:, :28], corners, strict=True):
        distance = np.linalg.norm(drawn[:, None] - own[None], axis=2)
        assert distance.min(axis=1).max() < 1e-12
        assert set(distance.argmin(axis=1)) == set(range(8))
    # The cross on the front: both its lines lie on the face along the heading.
    front = corners[0][[0, 3, 4, 7]]
    cross = points[0][24:28]
    assert np.linalg.norm(cross[:, None] - front[None], axis=2).min(axis=1).max() < 1e-12


def test_an_arrow_leaves_the_box_along_its_heading():
    _, boxes, *_ = detection_markers(HEADER, SEEN, T_CAM_REF, CLASSES).markers
    points = np.array([[p.x, p.y, p.z] for p in boxes.points]).reshape(2, -1, 3)
    points_ref = transform_points(invert_se3(T_CAM_REF), points.reshape(-1, 3)).reshape(2, -1, 3)
    for lines, box in zip(points_ref, SEEN.boxes.array_N7, strict=True):
        x, y, z, length, _, height, yaw = box
        start, tip = lines[28], lines[29]
        np.testing.assert_allclose(start, [x, y, z - height / 2], atol=1e-9)
        along = (length / 2 + ARROW_M) * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        np.testing.assert_allclose(tip - start, along, atol=1e-9)
        np.testing.assert_allclose(lines[[30, 32]], [tip, tip], atol=1e-9)


def test_the_colour_file_of_the_rviz_plugins_has_the_colours_of_the_markers(project_root):
    colours = yaml.safe_load((project_root / 'config/class_colours.yaml').read_text())
    seen = Detections(Boxes3D(np.tile(SEEN.boxes.array_N7[:1], (3, 1))), np.ones(3), CLASSES)
    texts = detection_markers(HEADER, seen, T_CAM_REF, CLASSES).markers[2:]
    for name, text in zip(CLASSES, texts, strict=True):
        drawn = [round(255 * value) for value in (text.color.r, text.color.g, text.color.b)]
        assert [colours[name][c] for c in 'rgb'] == drawn


def test_captions_name_class_and_score():
    texts = detection_markers(HEADER, SEEN, T_CAM_REF, CLASSES).markers[2:]
    assert [marker.text for marker in texts] == ['Car 0.90', 'Cyclist 0.40']
    assert texts[0].color != texts[1].color
    assert len({(marker.ns, marker.id) for marker in texts}) == 2


@pytest.mark.parametrize('raw', [False, True])
def test_the_debug_image_differs_from_the_picture_only_near_the_boxes(raw):
    P_px_34 = np.array([[200.0, 0, 160, 0], [0, 200, 60, 0], [0, 0, 1, 0]])
    camera = CameraModel.from_projection(P_px_34, 320, 120)
    if raw:
        distortion = (-0.2, 0.05, 0.0, 0.0)
        camera = CameraModel(320, 120, P_px_34[:, :3], P_px_34, np.eye(3), distortion, 'plumb_bob')
    grey = np.full((120, 320, 3), 90, np.uint8)
    pose = ReferencePose(T_CAM_REF, 'test')
    frame = SeenFrame(grey, camera, pose, SEEN, Header(), T_CAM_REF)
    message = debug_image(HEADER, frame)
    assert (message.encoding, message.step, message.header.frame_id) == ('rgb8', 960, 'camera')
    drawn = image_to_rgb(message)
    assert drawn.shape == grey.shape
    assert (grey == 90).all()
    boxes_px, _ = SEEN.boxes.project(P_px_34, T_CAM_REF, 320, 120)
    changed = np.abs(drawn.astype(int) - 90).max(axis=2) > 20
    x1, y1, x2, y2 = boxes_px[0].astype(int)
    assert changed[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2].sum() > 40
    assert not changed[:, : x1 - 40][20:100, 20:].any()
