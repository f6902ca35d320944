"""Calibration of KITTI raw recordings: the two files of a date make what object frames have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.kitti_files import KittiCalibration

CAMERAS = ('image_02', 'image_03')
_ENTRY = re.compile(r'([A-Za-z]\w*):(.*)')


@dataclass(frozen=True)
class RawCalibration:
    """Calibration of one camera of one date.

    Attributes:
        calibration: as in an object frame; P2_34 is the projection of the chosen camera.
        image_size: (height, width) of its rectified pictures.
    """

    calibration: KittiCalibration
    image_size: tuple[int, int]


def read_raw_calibration(date_folder: Path, camera: str = 'image_02') -> RawCalibration:
    """Read calib_cam_to_cam.txt and calib_velo_to_cam.txt of a date.

    Args:
        date_folder: e.g. `kitti_raw/2011_09_26`.
        camera: 'image_02' (left colour, that of the object benchmark) or 'image_03' (right).

    Returns:
        P_rect, R_rect_00 (all rectified images share camera 0's frame) and [R|T] of the LiDAR:
        equal to P2, R0_rect and Tr_velo_to_cam of object frames of that date.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a line is missing or malformed; file and name are given.
    """
    if camera not in CAMERAS:
        raise ValueError(f'camera: expected one of {CAMERAS}, found {camera!r}')
    number = camera[-2:]
    cameras, lidar = date_folder / 'calib_cam_to_cam.txt', date_folder / 'calib_velo_to_cam.txt'
    camera_lines, lidar_lines = _read_lines(cameras), _read_lines(lidar)
    projection_34 = _numbers(cameras, camera_lines, f'P_rect_{number}', 12).reshape(3, 4)
    rectify_33 = _numbers(cameras, camera_lines, 'R_rect_00', 9).reshape(3, 3)
    width, height = _numbers(cameras, camera_lines, f'S_rect_{number}', 2).tolist()
    rotation_33 = _numbers(lidar, lidar_lines, 'R', 9).reshape(3, 3)
    translation_3 = _numbers(lidar, lidar_lines, 'T', 3)
    try:
        calibration = KittiCalibration(
            projection_34, rectify_33, np.column_stack([rotation_33, translation_3])
        )
    except ValueError as error:
        raise ValueError(f'{cameras}, {lidar}: {error}') from error
    return RawCalibration(calibration, (round(height), round(width)))


def _read_lines(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (calibration of the date)')
    matches = map(_ENTRY.fullmatch, path.read_text(encoding='utf-8').splitlines())
    return {match[1]: match[2] for match in matches if match}


def _numbers(path: Path, lines: dict[str, str], name: str, count: int) -> NDArray[np.float64]:
    if name not in lines:
        raise ValueError(f'{path}: expected a line {name!r}, found none')
    words = lines[name].split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f'{path}: {name}: {error}') from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f'{path}: {name}: expected {count} finite numbers, found {words}')
    return numbers
