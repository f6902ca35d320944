"""A small folder in KITTI's layout, made of noise and a plausible calibration."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmkd_ros.kitti_files import KittiCalibration, write_calibration

LABELS = (
    'Car 0.00 0 -1.57 50.00 20.00 70.00 40.00 1.50 1.60 3.90 1.00 1.65 {z:.2f} -1.57\n'
    'Van 0.00 0 -1.57 50.00 20.00 70.00 40.00 2.00 1.80 4.90 -4.00 1.65 15.00 -1.57\n'
    'DontCare -1 -1 -10 1.00 2.00 3.00 4.00 -1 -1 -1 -1000 -1000 -1000 -10\n'
)


@dataclass(frozen=True)
class MadeKitti:
    """Root of the folder and the frames in it."""

    root: Path
    frames: tuple[str, ...]


@pytest.fixture()
def made_kitti(tmp_path) -> MadeKitti:
    """Six frames; the cars of 000002 and 000004 stand at 90 m, beyond any range used here."""
    frames = tuple(f'{number:06d}' for number in range(6))
    folder = tmp_path / 'training'
    for name in ('image_2', 'velodyne', 'calib', 'label_2'):
        (folder / name).mkdir(parents=True)
    calibration = KittiCalibration(
        np.array([[80.0, 0, 60, 4], [0, 80.0, 20, 0.1], [0, 0, 1, 0.003]]),
        np.eye(3),
        np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]]),
    )
    for number, frame in enumerate(frames):
        generator = np.random.Generator(np.random.PCG64(number))
        size = (40 + number % 2, 120 - 3 * (number % 3), 3)
        picture = generator.integers(0, 256, size, dtype=np.uint8)
        cv2.imwrite(str(folder / 'image_2' / f'{frame}.png'), picture)
        low, high = (-20, -30, -2, 0), (60, 30, 1, 1)
        points_N4 = generator.uniform(low, high, (2000, 4)).astype(np.float32)
        points_N4.tofile(folder / 'velodyne' / f'{frame}.bin')
        write_calibration(folder / 'calib' / f'{frame}.txt', calibration)
        label = LABELS.format(z=90.0 if number in (2, 4) else 20.0)
        (folder / 'label_2' / f'{frame}.txt').write_text(label)
    return MadeKitti(tmp_path, frames)
