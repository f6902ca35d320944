"""PNG pictures read strictly: a broken file is an error that names it, never a grey rectangle.

Letters: H W image rows and columns.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_END_CHUNK = b'\x00\x00\x00\x00IEND\xaeB`\x82'
_LARGEST_SIDE_PX = 16384


def read_png_size(path: Path) -> tuple[int, int]:
    """Height and width of a PNG from its first bytes, after a look at its last ones.

    Cheap enough for every file of a data set: it finds missing, empty, foreign and truncated
    files, not damaged pixels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a PNG, an impossible size, or the end is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    with path.open('rb') as file:
        head = file.read(24)
        size = file.seek(0, 2)
        file.seek(max(size - len(_END_CHUNK), 0))
        tail = file.read()
    if len(head) < 24 or head[:8] != _SIGNATURE or head[12:16] != b'IHDR':
        raise ValueError(f'{path}: expected a PNG picture, found {size} bytes of something else')
    width, height = struct.unpack('>II', head[16:24])
    if not (0 < width <= _LARGEST_SIDE_PX and 0 < height <= _LARGEST_SIDE_PX):
        raise ValueError(f'{path}: impossible picture size {width} x {height}')
    if tail != _END_CHUNK:
        raise ValueError(f'{path}: truncated PNG ({size} bytes without an end)')
    return height, width


def read_png_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a colour picture to (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError, ValueError: missing or not decodable; the message names the file.
    """
    picture = _decode(path, cv2.IMREAD_COLOR_RGB)
    if picture.dtype != np.uint8 or picture.ndim != 3:
        raise ValueError(
            f'{path}: expected an 8-bit colour picture, found {picture.dtype} {picture.shape}'
        )
    return picture


def read_png_depth(path: Path) -> NDArray[np.float32]:
    """Decode a KITTI depth map to (H, W) float32 metres, 0 where unknown (uint16 / 256).

    Raises:
        FileNotFoundError, ValueError: missing, not decodable or not 16-bit grey.
    """
    picture = _decode(path, cv2.IMREAD_UNCHANGED)
    if picture.dtype != np.uint16 or picture.ndim != 2:
        raise ValueError(
            f'{path}: expected a 16-bit grey depth map, found {picture.dtype} {picture.shape}'
        )
    return picture.astype(np.float32) / np.float32(256)


def _decode(path: Path, flags: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    content = np.fromfile(path, dtype=np.uint8)
    if content[:8].tobytes() != _SIGNATURE:
        raise ValueError(f'{path}: expected a PNG picture, found {content.size} other bytes')
    try:
        picture = cv2.imdecode(content, flags)
    except cv2.error as error:  # a header that promises more pixels than OpenCV allows
        raise ValueError(f'{path}: not decodable: {error.err}') from error
    if picture is None:
        raise ValueError(f'{path}: damaged or truncated PNG ({content.size} bytes)')
    return picture
