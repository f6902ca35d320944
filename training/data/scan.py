"""LiDAR scans in KITTI's format: float32 x, y, z, intensity, little endian, nothing else.

Letters: N points. Frame: ref (FLU at the LiDAR).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTES_PER_POINT = 16


def check_scan_size(path: Path) -> int:
    """Number of points a scan file must hold by its size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: empty, or not a whole number of points.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file')
    size = path.stat().st_size
    if size == 0 or size % BYTES_PER_POINT:
        raise ValueError(
            f'{path}: expected a positive multiple of {BYTES_PER_POINT} bytes '
            f'(x, y, z, intensity), found {size}'
        )
    return size // BYTES_PER_POINT


def read_scan(path: Path) -> NDArray[np.float32]:
    """Read one scan.

    Returns:
        (N, 4) float32: x, y, z in ref, metres, and intensity.

    Raises:
        FileNotFoundError: no such file.
        ValueError: truncated, empty, or a number that is not finite.
    """
    check_scan_size(path)
    points_N4 = np.fromfile(path, dtype='<f4').astype(np.float32, copy=False).reshape(-1, 4)
    finite_N = np.isfinite(points_N4).all(axis=1)
    if not finite_N.all():
        raise ValueError(
            f'{path}: expected finite numbers, found {points_N4[int(np.argmin(finite_N))]} '
            f'in point {int(np.argmin(finite_N))}'
        )
    return points_N4
