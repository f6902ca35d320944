"""Where camera and LiDAR sit in the reference frame of a recording.

Letters: N points.
"""

import re

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import CALIBRATION, MESSAGES, moved, street

from cmkd_ros.geometry import invert_se3, level_camera_pose, matrix_to_quaternion
from cmkd_ros.kitti_files import KittiCalibration
from cmkd_ros.training.data.extract_pose import (
    PoseOptions,
    check_heading,
    ground_below_ref_m,
    judge_ground,
    rig_pose,
)
from cmkd_ros.transform_buffer import TransformBuffer

# The camera in the LiDAR's frame.
T_LIDAR_CAM = invert_se3(CALIBRATION.T_cam_ref)


def buffer(**edges) -> TransformBuffer:
    """Static transforms, given as parent__child=T_parent_child."""
    transforms = TransformBuffer(keep_all=True)
    for edge, T_parent_child in edges.items():
        to_parent_34 = invert_se3(T_parent_child)[:3]
        calibration = KittiCalibration(CALIBRATION.P2_34, np.eye(3), to_parent_34)
        message = MESSAGES.transform(calibration, 0)
        parent, child = edge.split('__')
        message.transforms[0].header.frame_id = parent
        message.transforms[0].child_frame_id = child
        transforms.put(message.transforms, static=True)
    return transforms


def pose_of(transforms, **options):
    return rig_pose(PoseOptions(**options), transforms, 'camera', 'velodyne', 0)


def test_without_a_base_the_lidar_is_the_reference_frame():
    pose = pose_of(buffer(velodyne__camera=T_LIDAR_CAM))
    np.testing.assert_allclose(pose.T_cam_ref, CALIBRATION.T_cam_ref, atol=1e-12)
    np.testing.assert_array_equal(pose.to_ref(street()), street())
    assert pose.source == "the LiDAR's own frame 'velodyne'"


def test_a_base_gives_the_frame_that_the_node_finds():
    T_base_lidar = moved(0.3, 0.1, 1.1)
    transforms = buffer(base_link__velodyne=T_base_lidar, velodyne__camera=T_LIDAR_CAM)
    pose = pose_of(transforms, base_height_m=0.4)
    expected = level_camera_pose(T_base_lidar @ T_LIDAR_CAM, 0.4)
    np.testing.assert_allclose(pose.T_cam_ref, expected, atol=1e-12)
    # A point on the road is 1.73 m below the reference frame, wherever the LiDAR is.
    on_road_14 = np.array([[10.0, 0, -1.5, 0.5]], np.float32)
    np.testing.assert_allclose(pose.to_ref(on_road_14)[0, 2], -1.73, atol=1e-6)
    assert pose.to_ref(on_road_14)[0, 3] == 0.5


@pytest.mark.parametrize('yaw_rad', [0.0, 2.5, -np.pi / 2])
def test_a_lidar_that_looks_elsewhere_needs_its_height_only(yaw_rad):
    """Pixels and heights stay where they are, and the camera looks ahead."""
    turned = moved(yaw_rad=yaw_rad)
    transforms = buffer(velodyne__camera=turned @ T_LIDAR_CAM)
    pose = pose_of(transforms, lidar_height_m=0.9)
    ahead_3 = invert_se3(pose.T_cam_ref)[:3, 2]
    np.testing.assert_allclose(ahead_3, [1, 0, 0], atol=1e-9)
    points_N4 = street(lidar_height_m=0.9).copy()
    points_N4[:, :3] = points_N4[:, :3] @ turned[:3, :3].T
    ref_N4 = pose.to_ref(points_N4)
    np.testing.assert_allclose(ref_N4[:, 2], street(lidar_height_m=0.9)[:, 2] - 0.83, atol=1e-5)
    in_camera_N3 = ref_N4[:, :3] @ pose.T_cam_ref[:3, :3].T + pose.T_cam_ref[:3, 3]
    T_cam_lidar = invert_se3(turned @ T_LIDAR_CAM)
    expected_N3 = points_N4[:, :3] @ T_cam_lidar[:3, :3].T + T_cam_lidar[:3, 3]
    np.testing.assert_allclose(in_camera_N3, expected_N3, atol=1e-5)


def test_a_frame_of_the_robot_may_be_the_reference_frame():
    T_ref_lidar = moved(0.1, 0, 0.2, yaw_rad=0.05)
    transforms = buffer(kitti__velodyne=T_ref_lidar, velodyne__camera=T_LIDAR_CAM)
    pose = pose_of(transforms, reference_frame='kitti')
    np.testing.assert_allclose(pose.T_ref_lidar, T_ref_lidar, atol=1e-9)
    np.testing.assert_allclose(
        pose.T_cam_ref, CALIBRATION.T_cam_ref @ invert_se3(T_ref_lidar), atol=1e-9
    )


def test_a_camera_pose_replaces_the_transforms():
    numbers = (*T_LIDAR_CAM[:3, 3], *matrix_to_quaternion(T_LIDAR_CAM[:3, :3]))
    pose = pose_of(TransformBuffer(), camera_pose=tuple(float(n) for n in numbers))
    np.testing.assert_allclose(pose.T_cam_ref, CALIBRATION.T_cam_ref, atol=1e-9)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({}, "no transforms connect 'velodyne' and 'camera'.*tf_static, or give --camera-pose"),
        ({'base_frame': 'base'}, "connect 'velodyne' and 'base'.*another --base-frame"),
        ({'base_height_m': 0.3}, "connect 'velodyne' and 'base_link'.*another --base-frame"),
        ({'reference_frame': 'odom'}, "connect 'velodyne' and 'odom'.*another --reference-frame"),
    ],
)
def test_what_is_missing_is_named(options, words):
    edges = {'velodyne__camera': T_LIDAR_CAM} if options else {}
    with pytest.raises(ValueError, match=words):
        pose_of(buffer(**edges), **options)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'base_frame': 'a', 'lidar_height_m': 1.0}, 'expected one of --reference-frame'),
        ({'base_height_m': 1.0, 'lidar_height_m': 1.0}, '--base-height: goes with --base-frame'),
        ({'lidar_height_m': np.nan}, 'expected finite metres'),
        ({'camera_pose': (0.0,) * 7}, '--camera-pose: expected x y z qx qy qz qw'),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        PoseOptions(**options)


@pytest.mark.parametrize(('yaw_deg', 'fits'), [(0, True), (40, True), (50, False), (180, False)])
def test_a_camera_that_looks_aside_is_refused(yaw_deg, fits):
    pose = pose_of(buffer(velodyne__camera=moved(yaw_rad=np.radians(yaw_deg)) @ T_LIDAR_CAM))
    if fits:
        check_heading(pose)
    else:
        with pytest.raises(ValueError, match=f'looks {yaw_deg} degrees away.*--lidar-height'):
            check_heading(pose)


@pytest.mark.parametrize('height_m', [0.4, 1.73, 2.6])
def test_the_road_is_found(height_m):
    found_m = ground_below_ref_m(street(lidar_height_m=height_m))
    assert found_m == pytest.approx(height_m, abs=1e-3)


def test_no_road_is_found_where_nothing_lies_ahead():
    assert ground_below_ref_m(street() * np.float32([-1, 1, 1, 1])) is None


@pytest.mark.parametrize(
    ('options', 'ground_m', 'words'),
    [
        ({}, 1.73, None),
        ({}, 1.9, None),
        ({}, None, 'no road found'),
        ({}, 0.62, r'the road lies 0\.62 m below .*; by the scans, --lidar-height is 0\.62'),
        ({'lidar_height_m': 1.0}, 2.03, r'; by the scans, --lidar-height is 1\.30'),
        ({'base_height_m': 0.1, 'base_frame': 'base'}, 1.33, r'scans, --base-height is -0\.30'),
        ({'reference_frame': 'base'}, 1.0, r'made for 1\.73 m$'),
    ],
)
def test_a_wrong_height_is_told_with_the_right_one(options, ground_m, words):
    transforms = buffer(velodyne__camera=T_LIDAR_CAM, base__velodyne=np.eye(4))
    verdict = judge_ground(pose_of(transforms, **options), ground_m)
    assert (verdict is None) if words is None else re.search(words, verdict)
