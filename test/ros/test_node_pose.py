"""Where the node takes the camera's pose from, and the frame it answers in."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from cmkd_ros import CameraModel, Detector
from cmkd_ros.camera_info import camera_from_info
from cmkd_ros.geometry import camera_mount_pose
from cmkd_ros.ros.detection_messages import detections_from_message


def test_the_pose_may_be_changed_between_two_images(active, messages, picture):
    """The boxes hang on the reference frame: a camera mounted lower sees them higher up."""
    high = active.ask(messages, messages.image(picture(7), 70 * 10**9))
    active.set_parameters(pose__camera_height=1.0)
    low = active.ask(messages, messages.image(picture(7), 71 * 10**9))
    active.set_parameters(pose__camera_height=1.65)
    assert high.detections
    assert low.detections
    assert high.detections[0].bbox != low.detections[0].bbox


def test_the_pose_comes_from_tf_where_there_is_one(
    make_bench, small_model, messages, picture, detector, small_P_px_34
):
    """A camera 1.2 m up and tilted on a robot whose base_link lies 0.1 m above the ground."""
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    from cmkd_ros.geometry import invert_se3, matrix_to_quaternion

    bench = make_bench(
        model__path=str(small_model), device='cpu', pose__source='auto', pose__base_height=0.1
    )
    T_base_cam = invert_se3(camera_mount_pose(1.2, 0.1, 0.0, 1.5, reference_height_m=0.1))
    transform = TransformStamped(child_frame_id='head_camera')
    transform.header.frame_id = 'base_link'
    for axis, value in zip('xyz', T_base_cam[:3, 3], strict=True):
        setattr(transform.transform.translation, axis, float(value))
    for axis, value in zip('xyzw', matrix_to_quaternion(T_base_cam[:3, :3]), strict=True):
        setattr(transform.transform.rotation, axis, float(value))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = bench.peer.create_publisher(TFMessage, '/tf_static', latched)
    publisher.publish(TFMessage(transforms=[transform]))
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    # The transform may still be on its way: until it is here, images wait and are told so.
    for second in range(1, 40):
        image = messages.image(picture(2), second * 10**9, frame='head_camera')
        bench.infos.publish(messages.info(second * 10**9, frame='head_camera'))
        bench.images.publish(image)
        bench.wait(lambda second=second: bench.node.counts['received'] == second)
        time.sleep(0.1)
        if bench.arrays:
            break
    pose = camera_mount_pose(1.2, 0.1)
    found = detections_from_message(bench.arrays[-1], pose)
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    expected = detector(picture(2), camera, pose)
    assert found.class_names == expected.class_names
    np.testing.assert_allclose(
        found.boxes.array_N7[:, :6], expected.boxes.array_N7[:, :6], atol=1e-3
    )
    values = {pair.key: pair.value for pair in bench.status_with(lambda _: True).values}
    assert values['camera pose'] == "TF between 'base_link' and 'head_camera'"


def test_boxes_are_published_in_the_frame_that_is_asked_for(
    make_active, messages, picture, small_model
):
    """Through TF; until it knows the frame, images wait."""
    from geometry_msgs.msg import TransformStamped
    from tf2_msgs.msg import TFMessage

    bench = make_active(target_frame='garage')
    waiting = bench.node.counts['waiting']
    bench.infos.publish(messages.info(10**9, frame='roof_camera'))
    bench.images.publish(messages.image(picture(3), 10**9, frame='roof_camera'))
    bench.wait(lambda: bench.node.counts['waiting'] > waiting)
    transform = TransformStamped(child_frame_id='roof_camera')
    transform.header.frame_id = 'garage'
    transform.header.stamp.sec = 2
    transform.transform.translation.x = 100.0
    publisher = bench.peer.create_publisher(TFMessage, '/tf', 10)
    seconds = 1
    while not bench.arrays:
        seconds += 1
        publisher.publish(TFMessage(transforms=[transform]))
        image = messages.image(picture(3), seconds * 10**9, frame='roof_camera')
        bench.infos.publish(messages.info(seconds * 10**9, frame='roof_camera'))
        bench.images.publish(image)
        time.sleep(0.1)
        assert seconds < 50
    array = bench.arrays[-1]
    assert array.header.frame_id == 'garage'
    assert array.header.stamp.sec > 1
    assert array.detections
    T_garage_ref = np.eye(4)
    T_garage_ref[0, 3] = 100.0
    found = detections_from_message(array, T_garage_ref @ camera_mount_pose(1.65))
    expected = Detector.from_file(small_model, precision='auto')(
        picture(3), camera_from_info(messages.info()), camera_mount_pose(1.65)
    )
    np.testing.assert_allclose(
        found.boxes.array_N7[:, :6], expected.boxes.array_N7[:, :6], atol=1e-3
    )
