"""What is ROS's own about camera messages: encodings by cv_bridge, and what caches go by.

Letters: H, W image rows, columns. Nothing is copied where the message's own buffer will do, so the
message must outlive the image, and the image must not be written to.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from cmkd_ros.image_pixels import ENCODINGS, decode_image
from cmkd_ros.ros.raw_image import RawImage


def image_to_rgb(message: Image | RawImage, assume_encoding: str = '') -> np.ndarray:
    """Read the pixels of an image message.

    Args:
        message: any encoding of `ENCODINGS`, rows padded or not, either byte order; of others
            those that cv_bridge knows, where it is installed.
        assume_encoding: taken instead of the encoding that the message claims, unless empty.

    Returns:
        (H, W, 3) uint8 RGB; of rgb8, bgr8 and 8UC3 a view of the message's buffer.

    Raises:
        ValueError: an encoding that is not supported, an empty image, or a buffer that is not
            `height` rows of `step` bytes.
    """
    name = assume_encoding or message.encoding
    if name not in ENCODINGS:
        return _by_cv_bridge(message, name)
    return decode_image(message, name, as_view=True)


def _by_cv_bridge(message: Image | RawImage, name: str) -> np.ndarray:
    """Rarer encodings, by the package that every ROS installation has or can have.

    It is not used for the common ones: it copies them all, refuses 8UC3 and lacks some of YUV.
    """
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except (ImportError, AttributeError) as error:  # the latter from a build for another numpy
        raise ValueError(
            f"image encoding '{name}' is not supported; supported: {', '.join(ENCODINGS)}, and "
            f'what the package cv_bridge knows, which cannot be used here ({error})'
        ) from None
    whole = message.message() if isinstance(message, RawImage) else message
    whole.encoding = name
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(whole, 'rgb8'))
    except (CvBridgeError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"image encoding '{name}': cv_bridge cannot convert it: {error}") from None


def info_key(message: CameraInfo) -> tuple:
    """What a camera depends on, for caches: everything but the header."""
    roi = message.roi
    return (
        message.width,
        message.height,
        message.distortion_model,
        message.d.tobytes(),
        message.k.tobytes(),
        message.r.tobytes(),
        message.p.tobytes(),
        (message.binning_x, message.binning_y),
        (roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify),
    )
