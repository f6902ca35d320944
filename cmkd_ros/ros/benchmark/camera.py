"""A camera's messages, made for measuring: a picture with noise, and its calibration."""

from __future__ import annotations

import array
import math

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image

FRAME = 'camera'
KITTI_SIZE, KITTI_FX_PX = (1242, 375), 721.5377
SIZES = (KITTI_SIZE, (1920, 1080))  # that are measured
_OTHER_VIEW_RAD = math.radians(70.0)


def time_of(stamp_ns: int) -> Time:
    """Nanoseconds since the epoch as a message."""
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def usual_fx_px(width: int, height: int) -> float:
    """Focal length, pixels: KITTI's for images of its size, else of a view 70 degrees wide."""
    if (width, height) == KITTI_SIZE:
        return KITTI_FX_PX
    return width / 2 / math.tan(_OTHER_VIEW_RAD / 2)


def noise_image(width: int, height: int, encoding: str = 'bgr8', seed: int = 0) -> Image:
    """An image of random pixels, three bytes each."""
    pixels = np.random.default_rng(seed).integers(0, 255, width * height * 3, dtype=np.uint8)
    message = Image(height=height, width=width, encoding=encoding, step=3 * width)
    message.header.frame_id = FRAME
    data = array.array('B')
    data.frombytes(pixels.data)
    message.data = data
    return message


def plain_info(width: int, height: int, fx_px: float) -> CameraInfo:
    """The calibration of a rectified camera that looks straight ahead."""
    message = CameraInfo(width=width, height=height, distortion_model='plumb_bob')
    message.header.frame_id = FRAME
    P_px_34 = np.array([[fx_px, 0, width / 2, 0], [0, fx_px, 0.46 * height, 0], [0, 0, 1, 0]])
    message.p = P_px_34.reshape(-1).tolist()
    message.k = P_px_34[:, :3].reshape(-1).tolist()
    message.r = np.eye(3).reshape(-1).tolist()
    message.d = [0.0] * 5
    return message
