"""The folder that recordings become: frames in KITTI's layout, written so that it can go on.

    OUT/extract.json                 what is extracted and how; written first
    OUT/DATASET                      one name for the recordings of one robot
    OUT/training/{image_2,velodyne,calib}/FRAME.*     a frame is whole when it has its calib
    OUT/training/timestamps.txt, OUT/ImageSets/train.txt
    OUT/check/BAG.png                a scan over its picture, for people
    OUT/MANIFEST.tsv                 file, drive, stamps, bag; written last: then OUT is done

A frame is called after the time of its image, so that it has one name wherever and however often it
is extracted, and leaks are found by it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cmkd_ros.atomic_write import write_bytes_atomically, write_text_atomically
from cmkd_ros.kitti_files import KittiCalibration, write_calibration
from cmkd_ros.training.data.kitti_layout import KittiFolder

SETTINGS_FILE, MANIFEST_FILE = 'extract.json', 'MANIFEST.tsv'
_FOLDERS = ('image_2', 'velodyne', 'calib')
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


@dataclass(frozen=True)
class FrameRecord:
    """What the lists say of a frame.

    Attributes:
        frame: its name, see `frame_name`.
        drive: see `drive_name_at`.
        image_ns, scan_ns: header stamps.
        bag: name of the recording.
    """

    frame: str
    drive: str
    image_ns: int
    scan_ns: int
    bag: str


class ExtractFolder:
    """Writes the folder.

    Args:
        out: to be made; may exist where an extraction with the same settings was interrupted.
        settings: what is extracted and how, as JSON would hold it.

    Attributes:
        path: `out`.

    Raises:
        FileExistsError: `out` is something else, complete already, or of other settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.path = out
        self._kitti = KittiFolder(out / 'training')
        text = json.dumps(settings, indent=1, sort_keys=True) + '\n'
        file = out / SETTINGS_FILE
        check_claim(out)
        if file.is_file() and file.read_text(encoding='utf-8') != text:
            raise FileExistsError(
                f'{out}: holds an extraction of other bags or options ({file.name} tells which); '
                'choose another --out'
            )
        for name in _FOLDERS:
            (out / 'training' / name).mkdir(parents=True, exist_ok=True)
            for leftover in (out / 'training' / name).glob('.*'):
                leftover.unlink()
        (out / 'ImageSets').mkdir(exist_ok=True)
        write_text_atomically(file, text)

    def holds(self, frame: str) -> bool:
        """Whether a frame is written wholly."""
        return self._kitti.calib(frame).is_file()

    def write(
        self,
        frame: str,
        image_HW3: NDArray[np.uint8],
        points_N4: NDArray[np.float32],
        calibration: KittiCalibration,
    ) -> None:
        """Write one frame.

        Args:
            frame: its name.
            image_HW3: rectified, RGB.
            points_N4: in ref, intensity 0 to 1.
            calibration: of these two.

        Raises:
            OSError: it cannot be written, e.g. because the disk is full.
        """
        whole, png = cv2.imencode('.png', image_HW3[..., ::-1], _PNG)
        if not whole:
            raise ValueError(f'frame {frame}: the picture could not be encoded')
        write_bytes_atomically(self._kitti.image(frame), png.tobytes())
        write_bytes_atomically(self._kitti.scan(frame), points_N4.astype('<f4').tobytes())
        write_calibration(self._kitti.calib(frame), calibration)

    def discard(self) -> None:
        """Remove what an extraction without a frame leaves; files of others stay."""
        (self.path / SETTINGS_FILE).unlink()
        made = [self._kitti.path / name for name in _FOLDERS]
        for folder in (*made, self._kitti.path, self.path / 'ImageSets', self.path):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    def finish(self, records: Iterable[FrameRecord], dataset: str) -> None:
        """Write the lists; afterwards the folder is complete."""
        frames = sorted(records, key=lambda record: record.frame)
        write_text_atomically(self.path / 'DATASET', f'{dataset}\n')
        names = ''.join(f'{record.frame}\n' for record in frames)
        write_text_atomically(self.path / 'ImageSets' / 'train.txt', names)
        times = ''.join(f'{_time_text(record.image_ns)}\n' for record in frames)
        write_text_atomically(self._kitti.path / 'timestamps.txt', times)
        rows = ['file\tkitti_raw\ttimestamp_ns\tscan_timestamp_ns\tbag']
        rows += [
            f'training/image_2/{record.frame}.png\t{record.drive}\t{record.image_ns}'
            f'\t{record.scan_ns}\t{record.bag}'
            for record in frames
        ]
        write_text_atomically(self.path / MANIFEST_FILE, '\n'.join(rows) + '\n')


def check_claim(out: Path) -> None:
    """Refuse a folder that holds something else than an unfinished extraction.

    Raises:
        FileExistsError: it does; or it is a file.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out}: is a file; choose another --out')
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / SETTINGS_FILE).is_file():
        raise FileExistsError(
            f'{out}: exists and holds no unfinished extraction; choose another --out'
        )
    if (out / MANIFEST_FILE).exists():
        raise FileExistsError(f'{out}: is complete already; choose another --out')


def frame_name(image_ns: int) -> str:
    """Name of a frame by the stamp of its image: UTC, `20260713_094501_250000`."""
    return f'{_EPOCH + timedelta(microseconds=image_ns // 1000):%Y%m%d_%H%M%S_%f}'


def drive_name_at(start_ns: int) -> str:
    """Name of a recording by the minute in which it began, in the form of KITTI's raw drives."""
    return f'{_EPOCH + timedelta(microseconds=start_ns // 1000):%Y_%m_%d_drive_%H%M_sync}'


def _time_text(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f'{_EPOCH + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.{rest:09d}'
