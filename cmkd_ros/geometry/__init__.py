"""Frames, boxes, cameras, depth bins and overlaps: pure geometry, no networks, no files.

What computes with torch is imported on first use: who only wants boxes need not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.camera import (
    CameraModel,
    Rectifier,
    crop_with_camera,
    resize_with_camera,
    undistort_with_camera,
)
from cmkd_ros.geometry.frames import (
    OPTICAL_FROM_FLU,
    camera_mount_pose,
    invert_se3,
    level_camera_pose,
    make_se3,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotate_covariance,
    transform_points,
    wrap_angle,
    yaw_to_quaternion,
)

if TYPE_CHECKING:
    from cmkd_ros.geometry.depth_bins import bin_edges, bin_to_depth, depth_to_bin
    from cmkd_ros.geometry.overlap import (
        iou_3d,
        iou_3d_paired,
        iou_bev,
        iou_bev_nearest_axis_aligned,
        iou_bev_paired,
        nms_bev,
        rotated_intersection_bev,
        rotated_intersection_bev_paired,
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
    'iou_3d',
    'iou_3d_paired',
    'iou_bev',
    'iou_bev_nearest_axis_aligned',
    'iou_bev_paired',
    'level_camera_pose',
    'make_se3',
    'matrix_to_quaternion',
    'nms_bev',
    'quaternion_to_matrix',
    'resize_with_camera',
    'rotate_covariance',
    'rotated_intersection_bev',
    'rotated_intersection_bev_paired',
    'transform_points',
    'undistort_with_camera',
    'wrap_angle',
    'yaw_to_quaternion',
]

_TORCH_HOMES = {
    'depth_bins': ('bin_edges', 'bin_to_depth', 'depth_to_bin'),
    'overlap': (
        'iou_3d',
        'iou_3d_paired',
        'iou_bev',
        'iou_bev_nearest_axis_aligned',
        'iou_bev_paired',
        'nms_bev',
        'rotated_intersection_bev',
        'rotated_intersection_bev_paired',
    ),
}


def __getattr__(name: str) -> object:
    for module, names in _TORCH_HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f'{__name__}.{module}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
