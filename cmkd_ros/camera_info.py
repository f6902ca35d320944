"""What a camera_info means: whose pixels are rectified, whose frame is where, and the camera.

Messages are taken by their fields (ROS 2 names, or ROS 1's capital ones), from rclpy or from a bag:
no ROS is needed.

Two things cannot be read from the message: whether the pixels are rectified already, and whether
the fourth column of P moves the camera away from the frame in the header (a stereo pair whose
images are both in the left camera's frame) or merely repeats where that frame is. Parameters
decide; `auto` follows the ROS conventions, but for the converters that are known to break them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cmkd_ros.geometry import CameraModel

Choice = Literal['auto', 'true', 'false']
# kitti2bag publishes rectified images with K, D and R of the raw ones, and gives every camera a
# frame at its own place beside P's fourth column, which is counted from camera 0: taken by the
# conventions, boxes are distorted and 6 cm aside. Odometry bags have P only; P is the same.
_KITTI2BAG_FRAMES = frozenset(
    f'camera_{kind}_{side}' for kind in ('gray', 'color') for side in ('left', 'right')
)


@dataclass(frozen=True)
class Convention:
    """How a camera_info is to be read.

    Attributes:
        rectified: True, the pixels are what P describes; False, they are raw; None, raw if the
            message gives a distortion.
        use_projection_offset: whether P's fourth column is part of the projection from the
            header's frame.
        note: a phrase for the log where something else than the plain convention is followed.
    """

    rectified: bool | None
    use_projection_offset: bool
    note: str = ''


def convention_of(
    info: Any, rectified: Choice = 'auto', use_projection_offset: Choice = 'auto'
) -> Convention:
    """Decide how to read a camera_info.

    Args:
        info: a `sensor_msgs/CameraInfo`.
        rectified, use_projection_offset: the parameters of these names.

    Returns:
        The convention; parameters that are not `auto` always win.
    """
    is_kitti2bag = info.header.frame_id.lstrip('/') in _KITTI2BAG_FRAMES
    is_rectified = {'true': True, 'false': False}.get(rectified)
    if is_rectified is None and is_kitti2bag:
        is_rectified = True
    uses_offset = {'true': True, 'false': False}.get(use_projection_offset, not is_kitti2bag)
    followed = is_kitti2bag and 'auto' in (rectified, use_projection_offset)
    note = "read as kitti2bag writes it, by the frame's name" if followed else ''
    return Convention(is_rectified, uses_offset, note)


def camera_from_info(
    message: Any, rectified: Choice = 'auto', use_projection_offset: Choice = 'auto'
) -> CameraModel:
    """Read the calibration of the pixels that are in the image (region of interest and binning
    applied).

    Args:
        message: a `sensor_msgs/CameraInfo`.
        rectified: 'true' where the image is rectified already, 'false' where it is raw, 'auto' to
            take the message's distortion for the truth.
        use_projection_offset: 'true' where P projects from the header's frame as it stands,
            'false' where that frame is the camera's own place and P's fourth column is to be left
            out; 'auto' as `convention_of` says.

    Raises:
        ValueError: not calibrated (K and P zero), or values that no camera has.
    """
    roi = message.roi
    convention = convention_of(message, rectified, use_projection_offset)
    projection_12 = np.array(_numbers(message, 'p'))
    if not convention.use_projection_offset:
        projection_12[3::4] = 0.0
    try:
        with np.errstate(all='ignore'):  # absurd numbers are refused, not warned of
            return CameraModel.from_camera_info(
                message.width,
                message.height,
                _numbers(message, 'k'),
                projection_12,
                _numbers(message, 'r'),
                tuple(_numbers(message, 'd')),
                message.distortion_model,
                roi=(roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify),
                binning=(message.binning_x, message.binning_y),
                rectified=convention.rectified,
            )
    except ValueError as error:
        raise ValueError(f"camera_info of frame '{message.header.frame_id}': {error}") from None


def check_size(image_HW3: np.ndarray, camera: CameraModel) -> None:
    """Check that an image has the size that its camera_info describes.

    Raises:
        ValueError: it has not.
    """
    height, width = image_HW3.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(
            f'image is {width}x{height} pixels, but camera_info describes '
            f'{camera.width}x{camera.height}'
        )


def _numbers(message: Any, name: str) -> Any:
    """K, P, R or D, which ROS 1 writes with capital letters."""
    return getattr(message, name) if hasattr(message, name) else getattr(message, name.upper())
