"""Camera messages -> what the detector takes: RGB pixels and a `CameraModel`.

Letters: H, W image rows, columns. Nothing is copied where the message's own buffer will do, so the
message must outlive the image, and the image must not be written to.
"""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmkd_ros.camera_info import camera_from_info
from cmkd_ros.geometry import CameraModel
from cmkd_ros.image_pixels import ENCODINGS, decode_compressed, decode_image
from cmkd_ros.ros.raw_image import RawImage

__all__ = [
    'ENCODINGS',
    'camera_from_info',
    'check_size',
    'compressed_to_rgb',
    'image_to_rgb',
    'info_key',
]


def image_to_rgb(message: Image | RawImage, assume_encoding: str = '') -> np.ndarray:
    """Read the pixels of an image message.

    Args:
        message: any encoding of `ENCODINGS`, rows padded or not, either byte order; of others
            those that cv_bridge knows, where it is installed.
        assume_encoding: taken instead of the encoding that the message claims, unless empty.

    Returns:
        (H, W, 3) uint8 RGB; for rgb8 a view of the message's buffer.

    Raises:
        ValueError: an encoding that is not supported, an empty image, or a buffer that is not
            `height` rows of `step` bytes.
    """
    name = assume_encoding or message.encoding
    if name not in ENCODINGS:
        return _by_cv_bridge(message, name)
    return decode_image(message, name)


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


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """Decode a JPEG or PNG image message to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the data is no picture that OpenCV can decode.
    """
    return decode_compressed(message)


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


def check_size(image_HW3: np.ndarray, camera: CameraModel) -> None:
    """Raise ValueError unless the image has the size that its camera_info describes."""
    height, width = image_HW3.shape[:2]
    if (width, height) != (camera.width, camera.height):
        raise ValueError(
            f'image is {width}x{height} pixels, but camera_info describes '
            f'{camera.width}x{camera.height}'
        )
