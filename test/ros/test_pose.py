"""The camera's pose: which source, and what it gives."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cmkd_ros.geometry import (
    camera_mount_pose,
    invert_se3,
    matrix_to_quaternion,
    quaternion_to_matrix,
    yaw_to_quaternion,
)
from cmkd_ros.ros.parameters import parse_parameters
from cmkd_ros.ros.pose import PoseChooser, base_pose, mount_pose, transform_pose
from cmkd_ros.transform_buffer import TransformBuffer


def pose_parameters(**values):
    return parse_parameters({f'pose.{name}': value for name, value in values.items()}).pose


def put(buffer, parent, child, T_parent_child):
    from geometry_msgs.msg import TransformStamped

    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    for axis, value in zip('xyz', T_parent_child[:3, 3], strict=True):
        setattr(message.transform.translation, axis, float(value))
    for axis, value in zip('xyzw', matrix_to_quaternion(T_parent_child[:3, :3]), strict=True):
        setattr(message.transform.rotation, axis, float(value))
    buffer.put([message], static=True)


def test_the_defaults_are_kittis_camera_both_ways():
    defaults = pose_parameters()
    mount, transform = mount_pose(defaults, 1.73), transform_pose(defaults)
    np.testing.assert_allclose(mount.T_cam_ref, transform.T_cam_ref, atol=1e-12)
    # A point 10 m in front of the LiDAR and on the ground.
    seen = mount.T_cam_ref @ [10.0, 0.0, -1.73, 1.0]
    np.testing.assert_allclose(seen[:3], [0.0, 1.65, 9.73], atol=1e-12)


def test_transform_parameter_is_the_camera_in_the_reference_frame():
    T_cam_ref = camera_mount_pose(1.2, 0.1, -0.05, 0.4)
    T_ref_cam = invert_se3(T_cam_ref)
    numbers = [*T_ref_cam[:3, 3], *matrix_to_quaternion(T_ref_cam[:3, :3])]
    found = transform_pose(pose_parameters(transform=[float(n) for n in numbers]))
    np.testing.assert_allclose(found.T_cam_ref, T_cam_ref, atol=1e-12)


@pytest.mark.parametrize('heading_rad', [0.0, 0.02, 1.5, -2.9])
def test_a_base_frame_gives_height_and_tilt_but_not_place_and_heading(heading_rad):
    """A camera anywhere on the robot, looking anywhere, sees the same as its bare mount says."""
    T_ref_cam = invert_se3(camera_mount_pose(1.2, 0.1, 0.05, 0.27, 1.73))
    T_base_cam = T_ref_cam.copy()
    turn_33 = quaternion_to_matrix(yaw_to_quaternion(heading_rad))
    T_base_cam[:3, :3] = turn_33 @ T_base_cam[:3, :3]
    T_base_cam[:3, 3] = [2.0, 0.3, 1.2 - 0.25]
    found = base_pose(T_base_cam, pose_parameters(base_height=0.25), 1.73)
    np.testing.assert_allclose(found, camera_mount_pose(1.2, 0.1, 0.05, 0.27, 1.73), atol=1e-12)


def test_auto_prefers_tf_and_waits_for_it_before_it_takes_the_mount():
    buffer = TransformBuffer()
    parameters = pose_parameters(tf_timeout_s=60.0, camera_height=1.0)
    chooser = PoseChooser(1.73, buffer)
    with pytest.raises(LookupError, match='known frames: none'):
        chooser.at(parameters, 'camera', 0)
    late = pose_parameters(tf_timeout_s=0.0, camera_height=1.0)
    fallback = chooser.at(late, 'camera', 0)
    assert fallback.source.startswith('parameters pose.camera_*: 1 m')
    assert 'no TF' in fallback.source
    put(buffer, 'base_link', 'camera', invert_se3(camera_mount_pose(1.2, reference_height_m=0.0)))
    found = chooser.at(parameters, 'camera', 0)
    assert found.source == "TF between 'base_link' and 'camera'"
    np.testing.assert_allclose(found.T_cam_ref, camera_mount_pose(1.2), atol=1e-12)


def test_a_named_reference_frame_is_taken_as_it_is():
    buffer, T_cam_ref = TransformBuffer(), camera_mount_pose(1.65, 0.02, 0.01)
    put(buffer, 'velodyne', 'camera', invert_se3(T_cam_ref))
    parameters = pose_parameters(source='tf', reference_frame='velodyne')
    found = PoseChooser(1.73, buffer).at(parameters, 'camera', 0)
    np.testing.assert_allclose(found.T_cam_ref, T_cam_ref, atol=1e-12)


def test_tf_alone_never_falls_back_and_says_why():
    parameters = pose_parameters(source='tf', tf_timeout_s=0.0)
    with pytest.raises(LookupError, match='tf2_msgs is not installed'):
        PoseChooser(1.73, None).at(parameters, 'camera', 0)
    assert 'tf2_msgs' in PoseChooser(1.73, None).at(pose_parameters(), 'camera', 0).source
