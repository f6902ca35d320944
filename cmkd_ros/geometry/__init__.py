"""Frames, boxes, cameras, depth bins and overlaps: pure geometry, no networks, no files."""

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.camera import (
    CameraModel,
    Rectifier,
    crop_with_camera,
    resize_with_camera,
    undistort_with_camera,
)
from cmkd_ros.geometry.depth_bins import bin_edges, bin_to_depth, depth_to_bin
from cmkd_ros.geometry.frames import (
    OPTICAL_FROM_FLU,
    camera_mount_pose,
    invert_se3,
    make_se3,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotate_covariance,
    transform_points,
    wrap_angle,
    yaw_to_quaternion,
)

__all__ = [
    'OPTICAL_FROM_FLU',
    'Boxes3D',
    'CameraModel',
    'Rectifier',
    'bin_edges',
    'bin_to_depth',
    'camera_mount_pose',
    'crop_with_camera',
    'depth_to_bin',
    'invert_se3',
    'make_se3',
    'matrix_to_quaternion',
    'quaternion_to_matrix',
    'resize_with_camera',
    'rotate_covariance',
    'transform_points',
    'undistort_with_camera',
    'wrap_angle',
    'yaw_to_quaternion',
]
