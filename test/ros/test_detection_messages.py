"""Boxes into messages and back, in the camera's frame."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from cmkd_ros.detector import Detections
from cmkd_ros.geometry import (
    Boxes3D,
    camera_mount_pose,
    quaternion_to_matrix,
    transform_points,
    wrap_angle,
)
from cmkd_ros.ros.detection_messages import DetectionArrayPool, detections_from_message

T_CAM_REF = camera_mount_pose(1.4, 0.12, -0.07, 0.3)


def detections(count: int, seed: int = 0) -> Detections:
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        [
            rng.uniform(-40, 60, (count, 3)),
            rng.uniform(0.3, 6, (count, 3)),
            rng.uniform(-7, 7, count),
        ]
    )
    names = tuple(rng.choice(['Car', 'Pedestrian'], count))
    return Detections(Boxes3D(rows), np.sort(rng.uniform(0, 1, count))[::-1], names)


def header() -> Header:
    made = Header(frame_id='camera_optical')
    made.stamp.sec, made.stamp.nanosec = 1234, 567
    return made


def over_the_wire(message: Detection3DArray) -> Detection3DArray:
    return deserialize_message(serialize_message(message), Detection3DArray)


def test_header_class_and_score_as_the_contract_says():
    seen = detections(5)
    message = over_the_wire(DetectionArrayPool().fill(header(), seen, T_CAM_REF))
    assert message.header == header()
    assert len(message.detections) == 5
    for detection, score, name in zip(
        message.detections, seen.scores_N, seen.class_names, strict=True
    ):
        assert detection.header == header()
        assert detection.id == ''
        (result,) = detection.results
        assert (result.hypothesis.class_id, result.hypothesis.score) == (name, score)
        assert result.pose.pose == detection.bbox.center
        assert not any(result.pose.covariance)


def test_the_box_in_the_message_is_the_same_body_in_space():
    """Its corners, built from centre, orientation and size, are the reference corners moved."""
    seen = detections(20)
    message = DetectionArrayPool().fill(header(), seen, T_CAM_REF)
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    for detection, corners_83 in zip(message.detections, seen.boxes.corners_N83(), strict=True):
        center, size = detection.bbox.center, detection.bbox.size
        q, p = center.orientation, center.position
        rotation = quaternion_to_matrix([q.x, q.y, q.z, q.w])
        found = signs * [size.x, size.y, size.z] @ rotation.T + [p.x, p.y, p.z]
        expected = transform_points(T_CAM_REF, corners_83)
        order_found, order_expected = (np.lexsort(a.round(6).T) for a in (found, expected))
        np.testing.assert_allclose(found[order_found], expected[order_expected], atol=1e-9)


def test_heading_is_the_box_own_x_axis():
    ahead = Detections(Boxes3D([[10, 0, 0, 4, 2, 1.5, 0.0]]), np.ones(1), ('Car',))
    (detection,) = DetectionArrayPool().fill(header(), ahead, camera_mount_pose(1.65)).detections
    q = detection.bbox.center.orientation
    forward = quaternion_to_matrix([q.x, q.y, q.z, q.w])[:, 0]
    np.testing.assert_allclose(forward, [0, 0, 1], atol=1e-12)  # along the optical axis


def test_there_and_back_again():
    seen = detections(50)
    message = over_the_wire(DetectionArrayPool().fill(header(), seen, T_CAM_REF))
    back = detections_from_message(message, T_CAM_REF)
    np.testing.assert_allclose(back.boxes.array_N7[:, :6], seen.boxes.array_N7[:, :6], atol=1e-9)
    turned = wrap_angle(back.boxes.yaws_N - seen.boxes.yaws_N)
    np.testing.assert_allclose(turned, 0.0, atol=1e-9)
    np.testing.assert_array_equal(back.scores_N, seen.scores_N)
    assert back.class_names == seen.class_names


def test_the_pool_forgets_the_image_before():
    pool = DetectionArrayPool()
    for count in (7, 0, 3, 12):
        seen = detections(count, seed=count)
        message = pool.fill(header(), seen, T_CAM_REF)
        fresh = DetectionArrayPool().fill(header(), seen, T_CAM_REF)
        # By fields: serialised bytes also hold whatever lies in the padding.
        assert message == fresh
        assert len(message.detections) == count


def test_no_number_that_is_not_finite_gets_out():
    seen = detections(2)
    broken = Detections(seen.boxes, np.array([0.5, np.nan]), seen.class_names)
    with pytest.raises(ValueError, match='not a finite number'):
        DetectionArrayPool().fill(header(), broken, T_CAM_REF)


def test_scores_stay_between_zero_and_one():
    seen = detections(2)
    odd = Detections(seen.boxes, np.array([1.0 + 1e-7, -1e-9]), seen.class_names)
    message = DetectionArrayPool().fill(header(), odd, T_CAM_REF)
    assert [d.results[0].hypothesis.score for d in message.detections] == [1.0, 0.0]


def test_a_message_with_two_opinions_is_not_ours():
    message = DetectionArrayPool().fill(header(), detections(1), T_CAM_REF)
    message.detections[0].results = list(message.detections[0].results) * 2
    with pytest.raises(ValueError, match='expected one result, found 2'):
        detections_from_message(message, T_CAM_REF)
