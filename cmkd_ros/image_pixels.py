"""The pixels of image messages as RGB: the encodings that are read here, without ROS.

Letters: H, W image rows, columns. Messages are taken by their fields, from rclpy or from a bag.
Nothing is copied where the message's own buffer will do, so the message must outlive the image, and
the image must not be written to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np


@dataclass(frozen=True)
class _Encoding:
    """How the pixels of one encoding lie in memory, and the way to RGB."""

    channels: int
    to_rgb: Callable[[np.ndarray], np.ndarray]
    dtype: str = 'u1'
    is_bgr: bool = False  # three channels, so that a view is enough


def _colour(code: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: cv2.cvtColor(image, code)


def _as_is(image: np.ndarray) -> np.ndarray:
    return image


def _upper_byte(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((image >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB)


ENCODINGS = {
    'rgb8': _Encoding(3, _as_is),
    'bgr8': _Encoding(3, _colour(cv2.COLOR_BGR2RGB), is_bgr=True),
    'rgba8': _Encoding(4, _colour(cv2.COLOR_RGBA2RGB)),
    'bgra8': _Encoding(4, _colour(cv2.COLOR_BGRA2RGB)),
    'mono8': _Encoding(1, _colour(cv2.COLOR_GRAY2RGB)),
    # Unnamed channels: OpenCV's order, which is what the drivers and converters that use them mean.
    '8UC1': _Encoding(1, _colour(cv2.COLOR_GRAY2RGB)),
    '8UC3': _Encoding(3, _colour(cv2.COLOR_BGR2RGB), is_bgr=True),
    '8UC4': _Encoding(4, _colour(cv2.COLOR_BGRA2RGB)),
    'mono16': _Encoding(1, _upper_byte, 'u2'),
    '16UC1': _Encoding(1, _upper_byte, 'u2'),
    # ROS names the first two pixels of the first row, OpenCV the second pixel of the second row.
    'bayer_rggb8': _Encoding(1, _colour(cv2.COLOR_BayerBG2RGB)),
    'bayer_bggr8': _Encoding(1, _colour(cv2.COLOR_BayerRG2RGB)),
    'bayer_gbrg8': _Encoding(1, _colour(cv2.COLOR_BayerGR2RGB)),
    'bayer_grbg8': _Encoding(1, _colour(cv2.COLOR_BayerGB2RGB)),
    'yuv422': _Encoding(2, _colour(cv2.COLOR_YUV2RGB_UYVY)),
    'uyvy': _Encoding(2, _colour(cv2.COLOR_YUV2RGB_UYVY)),
    'yuv422_yuy2': _Encoding(2, _colour(cv2.COLOR_YUV2RGB_YUY2)),
    'yuyv': _Encoding(2, _colour(cv2.COLOR_YUV2RGB_YUY2)),
}


def decode_image(message: Any, assume_encoding: str = '', as_view: bool = False) -> np.ndarray:
    """Read the pixels of an image message.

    Args:
        message: a `sensor_msgs/Image` of any encoding of `ENCODINGS`, rows padded or not, either
            byte order.
        assume_encoding: taken instead of the encoding that the message claims, unless empty.
        as_view: BGR pixels too are given as a view of the buffer, of strides that few others than
            `Detector` take without a copy.

    Returns:
        (H, W, 3) uint8 RGB; for rgb8 a view of the message's buffer.

    Raises:
        ValueError: an encoding that is not supported, an empty image, or a buffer that is not
            `height` rows of `step` bytes.
    """
    name = assume_encoding or message.encoding
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise ValueError(
            f"image encoding '{name}' is not supported; supported: {', '.join(ENCODINGS)}"
        )
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise ValueError(f'image is empty: {width}x{height} pixels')
    row_bytes = width * encoding.channels * np.dtype(encoding.dtype).itemsize
    if step < row_bytes:
        raise ValueError(
            f'image step is {step} bytes, but a row of {width} pixels {name} has {row_bytes}'
        )
    if len(message.data) != height * step:
        raise ValueError(
            f'image holds {len(message.data)} bytes, expected height * step = {height} * {step} '
            f'= {height * step}'
        )
    if name.startswith('bayer_') and (height < 3 or width < 3):
        raise ValueError(f'image of {width}x{height} pixels is too small for {name}')
    if encoding.channels == 2 and width % 2:
        raise ValueError(f'image is {width} pixels wide, but {name} holds pairs of pixels')
    # A view that steps over the padding: nothing is copied, whatever the step.
    order = '>' if message.is_bigendian else '<'
    item = np.dtype(f'{order}{encoding.dtype}')
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, item.itemsize)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (step, encoding.channels, 1)
    pixels = np.ndarray(shape, item, message.data, strides=strides)
    return pixels[..., ::-1] if as_view and encoding.is_bgr else encoding.to_rgb(pixels)


def decode_compressed(message: Any) -> np.ndarray:
    """Decode a JPEG or PNG `sensor_msgs/CompressedImage` to (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the data is no picture that OpenCV can decode.
    """
    data = np.frombuffer(message.data, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(
            f"compressed image of {len(data)} bytes, format '{message.format}', cannot be decoded; "
            'expected a whole JPEG or PNG'
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
