"""KITTI raw recordings as unlabelled frames, read where they lie.

Letters: H W image rows and columns, N points. Frame: ref (FLU at the LiDAR).
Layout: DATE/calib_*.txt, DATE/DRIVE_sync/image_02/data/*.png, .../velodyne_points/data/*.bin.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch.utils.data import Dataset

from cmkd_ros.training.data.frames import Range, crop_to_range
from cmkd_ros.training.data.kitti import read_camera_frame
from cmkd_ros.training.data.kitti_raw_calib import RawCalibration, read_raw_calibration
from cmkd_ros.training.data.png import read_png_depth
from cmkd_ros.training.data.sample import Sample

LOG = logging.getLogger('cmkd.data')
_ENTRY = re.compile(
    r'(?P<date>\d{4}_\d{2}_\d{2})/(?P<drive>(?P=date)_drive_\d{4}_sync)'
    r'(?:/(?P<camera>image_0[23])(?:/data/(?P<frame>\d{10})(?:\.png)?)?)?/?'
)
_SHOWN = 5


@dataclass(frozen=True, order=True)
class _Recording:
    """One camera of one drive."""

    date: str
    drive: str
    camera: str

    def folder(self, root: Path) -> Path:
        return root / self.date / self.drive

    def frame_id(self, frame: str) -> str:
        return f'{self.date}/{self.drive}/{self.camera}/data/{frame}'


class KittiRawFrames(Dataset[Sample]):
    """Unlabelled frames of KITTI raw; nothing is copied, files are read when a frame is asked for.

    At opening the folders are listed and the calibrations read, no picture and no scan. Some
    drives lack a few scans; such frames are left out and counted (`left_out`).

    Args:
        root: folder of the date folders.
        entries: frames (`DATE/DRIVE_sync/image_02/data/0000000005`), whole drives
            (`DATE/DRIVE_sync`: the left camera) or one camera of a drive
            (`DATE/DRIVE_sync/image_03`).
        range_m: crop of the points after augmentation, None for none.
        with_image, with_points, with_depth: what samples carry, as in `KittiFrames`.
        depth_root: folder of KITTI's depth set (`[train|val/]DRIVE_sync/proj_depth/groundtruth/
            image_02/*.png`); frames without a map there, and all where None is given, get the
            sparse depth of their own scan.

    Raises:
        FileNotFoundError: the root, a drive, a calibration or listed images are missing.
        ValueError: no entries or frames, or an entry that is none of the three forms.
    """

    labelled = False

    def __init__(
        self,
        root: str | Path,
        entries: Sequence[str],
        *,
        range_m: Range | None = None,
        with_image: bool = True,
        with_points: bool = True,
        with_depth: bool = False,
        depth_root: str | Path | None = None,
    ) -> None:
        self.root = Path(root)
        self.range_m = range_m
        self._with_image = with_image
        self._with_points = with_points
        self._with_depth = with_depth
        self._depth_root = None if depth_root is None else Path(depth_root)
        for folder in (self.root, self._depth_root):
            if folder is not None and not folder.is_dir():
                raise FileNotFoundError(f'{folder}: no such folder')
        self.frame_ids, self.left_out = self._find_frames(entries)
        recordings = {_parse(self.root, frame_id)[0] for frame_id in self.frame_ids}
        self._calibrations: dict[tuple[str, str], RawCalibration] = {
            key: read_raw_calibration(self.root / key[0], key[1])
            for key in sorted({(recording.date, recording.camera) for recording in recordings})
        }

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int, augment: Callable[[Sample], Sample] | None = None) -> Sample:
        """One frame; `augment` runs before the crop to the range.

        Raises:
            FileNotFoundError, ValueError: a file is missing, damaged or of another size than the
                calibration says; the message names it.
        """
        sample = self._read(self.frame_ids[index])
        if augment is not None:
            sample = augment(sample)
        return sample if self.range_m is None else crop_to_range(sample, self.range_m)

    def _read(self, frame_id: str) -> Sample:
        recording, frame = _parse(self.root, frame_id)
        raw = self._calibrations[recording.date, recording.camera]
        image = self.root / f'{frame_id}.png'
        depth = self._depth_map(recording, frame) if self._with_depth else None
        from_lidar = self._with_depth and depth is None
        scan = recording.folder(self.root) / 'velodyne_points' / 'data' / f'{frame}.bin'
        sample = read_camera_frame(
            frame_id,
            raw.calibration,
            image,
            scan if self._with_points or from_lidar else None,
            with_image=self._with_image,
            with_points=self._with_points,
            with_depth=from_lidar,
        )
        if depth is not None:
            sample = replace(sample, depth_HW=read_png_depth(depth))
        for path, picture in ((image, sample.image_HW3), (depth, sample.depth_HW)):
            if picture is not None and picture.shape[:2] != raw.image_size:
                raise ValueError(
                    f'{path}: expected {raw.image_size} (height, width) as the calibration of '
                    f'{recording.date} says, found {picture.shape[:2]}'
                )
        return sample

    def _depth_map(self, recording: _Recording, frame: str) -> Path | None:
        if self._depth_root is None:
            return None
        inner = Path(recording.drive, 'proj_depth/groundtruth', recording.camera, f'{frame}.png')
        paths = (self._depth_root / part / inner for part in ('train', 'val', '.'))
        return next((path for path in paths if path.is_file()), None)

    def _find_frames(self, entries: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Frames in the order of the entries, and those left out because they have no scan."""
        parsed = [_parse(self.root, entry) for entry in entries]
        images, scans = self._list_files({recording for recording, _ in parsed})
        wanted: dict[str, bool] = {}
        absent: list[str] = []
        for recording, frame in parsed:
            there = images[recording]
            if frame and f'{frame}.png' not in there:
                absent.append(f'{recording.frame_id(frame)}.png')
            names = [frame] if frame else sorted(name[:-4] for name in there)
            for name in names:
                wanted[recording.frame_id(name)] = f'{name}.bin' in scans[recording]
        if absent:
            raise FileNotFoundError(
                f'{self.root}: {len(absent)} of {len(entries)} listed images are missing: '
                f'{_first(absent)}'
            )
        needs_scan = self._with_points or self._with_depth
        kept = tuple(name for name, has_scan in wanted.items() if has_scan or not needs_scan)
        left_out = tuple(name for name, has_scan in wanted.items() if needs_scan and not has_scan)
        if not kept:
            raise ValueError(
                f'{self.root}: {len(entries)} entries give no frame'
                + (f'; {len(left_out)} images have no scan' if left_out else '')
            )
        if left_out:
            LOG.warning(
                '%s: %d of %d frames have no scan and are left out: %s',
                self.root, len(left_out), len(wanted), _first(left_out),
            )  # fmt: skip
        return kept, left_out

    def _list_files(
        self, recordings: Iterable[_Recording]
    ) -> tuple[dict[_Recording, set[str]], dict[_Recording, set[str]]]:
        images: dict[_Recording, set[str]] = {}
        scans: dict[_Recording, set[str]] = defaultdict(set)
        for recording in sorted(recordings):
            folder = recording.folder(self.root)
            images[recording] = _file_names(folder / recording.camera / 'data', '.png')
            if self._with_points or self._with_depth:
                scans[recording] = _file_names(folder / 'velodyne_points' / 'data', '.bin')
        return images, scans


def read_raw_list(path: str | Path) -> list[str]:
    """Read entries for `KittiRawFrames`, one a line; blank lines and lines with # are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no frame, drive or camera of a drive, or no line at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (list of raw frames or drives)')
    entries = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        entry = line.strip()
        if entry and not entry.startswith('#'):
            _parse(f'{path}:{number}', entry)
            entries.append(entry)
    if not entries:
        raise ValueError(f'{path}: expected frames or drives, found none')
    return entries


def _parse(where: object, entry: str) -> tuple[_Recording, str]:
    """Recording and frame of an entry; the frame is empty for a whole drive."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(
            f'{where}: expected DATE/DRIVE_sync[/image_02[/data/FRAME]] '
            f'like 2011_09_26/2011_09_26_drive_0005_sync/image_02/data/0000000040, found {entry!r}'
        )
    recording = _Recording(match['date'], match['drive'], match['camera'] or 'image_02')
    return recording, match['frame'] or ''


def _file_names(folder: Path, ending: str) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder (KITTI raw layout expected)')
    return {name for name in os.listdir(folder) if name.endswith(ending)}


def _first(names: Sequence[str]) -> str:
    return ', '.join(names[:_SHOWN]) + (' ...' if len(names) > _SHOWN else '')
