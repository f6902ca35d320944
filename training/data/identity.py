"""How a frame is recognised in another folder, on another machine, under another file name.

    KITTI object frame    data set, folder and frame id; and its drive where a mapping says it
    KITTI raw frame       date, drive, camera and frame id; and its drive
    synthetic frame       seed and settings of the set, folder and frame id; and its drive

The data set of an object frame is told by its calibration: copies of KITTI have the same one, other
rigs have others. Recordings of one rig whose frames have equal numbers are told apart by a file
DATASET in their root, one line with a name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cmkd_ros.kitti_files import read_calibration
from cmkd_ros.training.data.drives import drive_name, find_drives
from cmkd_ros.training.data.frames import ConcatFrames, FrameSource
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_index import INDEX_NAME, load_index
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.kitti_raw import KittiRawFrames
from cmkd_ros.training.data.used_data import FrameIdentity

# The drives of the object benchmark are those of KITTI raw: one name for both.
_KITTI = 'kitti'
# Settings of a synthetic set that change neither its streets nor what happens there: more frames
# begin with the same ones, another camera sees the same cars.
_SAME_STREETS = ('frames', 'width', 'height', 'rig', 'label_range_m')


def identify(source: FrameSource) -> tuple[FrameIdentity, ...]:
    """The identities of a data set's frames, in order.

    Raises:
        TypeError: a kind of data set that is not known here.
        FileNotFoundError, ValueError: drives or the name of the data set are malformed.
    """
    if isinstance(source, ConcatFrames):
        return tuple(identity for part in source.sources for identity in identify(part))
    if isinstance(source, KittiFrames):
        return identify_object_frames(source.folder, source.frame_ids)
    if isinstance(source, KittiRawFrames):
        return identify_raw_entries(source.frame_ids)
    raise TypeError(f'expected KITTI frames, found {type(source).__name__}')


def identify_object_frames(
    folder: KittiFolder, frames: Iterable[str], with_drives: bool = False
) -> tuple[FrameIdentity, ...]:
    """The identities of frames of a KITTI object folder.

    Args:
        folder: e.g. `KITTI/training`.
        frames: frame ids; only calibrations are read, and they may be absent.
        with_drives: add all other frames of the drives of these, as far as they are there, as
            witnesses: a network that was trained where no drive was known has used the drive when
            it has used one of them.

    Raises:
        FileNotFoundError, ValueError: drives, a calibration or the name of the data set are
            malformed.
    """
    # Links are not followed: a tree may be put together of them, and its own names count.
    folder = KittiFolder(Path(os.path.abspath(folder.path)))
    root = folder.path.parent
    name = _declared_name(root)
    drives = _drives_of(root, folder.path.name)
    wanted = dict.fromkeys(frames, False)
    if with_drives:
        shared = {drives[frame] for frame in wanted if frame in drives}
        for frame, drive in drives.items():
            if drive in shared and frame not in wanted and folder.calib(frame).is_file():
                wanted[frame] = True
    rigs: dict[bytes, str] = {}
    return tuple(
        FrameIdentity(
            name=f'{folder.path.name}/{frame}',
            frame=f'{name or _rig(folder.calib(frame), rigs)}/{folder.path.name}/{frame}',
            drive=f'{name or _KITTI}/{drives[frame]}' if frame in drives else None,
            witness=witness,
        )
        for frame, witness in wanted.items()
    )


def identify_raw_entries(entries: Sequence[str]) -> tuple[FrameIdentity, ...]:
    """The identities of KITTI raw frames or whole drives (`DATE/DRIVE_sync/...`)."""
    return tuple(
        FrameIdentity(
            name=entry,
            frame=f'{_KITTI}/{entry}',
            drive=f'{_KITTI}/{drive}' if (drive := drive_name(entry)) else None,
        )
        for entry in entries
    )


def _drives_of(root: Path, split_folder: str) -> dict[str, str]:
    """What lies in the root says, or else the index that `cmkd prepare-kitti` wrote there."""
    drives = find_drives(root, split_folder)
    index = root / INDEX_NAME
    if not drives and index.is_file():
        known = (key.rpartition('/') + (drive,) for key, drive in load_index(index).drives.items())
        drives = {frame: drive for folder, _, frame, drive in known if folder == split_folder}
    return drives


def _declared_name(root: Path) -> str | None:
    """The name in DATASET, or that of a synthetic set; None: to be told by the calibrations."""
    declared, synthetic = root / 'DATASET', root / 'synthetic.json'
    if declared.is_file():
        name = declared.read_text(encoding='utf-8').strip()
        if not name or len(name.splitlines()) > 1 or '/' in name:
            raise ValueError(f'{declared}: expected one line with a name, found {name[:60]!r}')
        return f'named {name}'
    if synthetic.is_file():
        try:
            settings = dict(json.loads(synthetic.read_text(encoding='utf-8')))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{synthetic}: expected settings of a synthetic set: {error}'
            ) from error
        for name in _SAME_STREETS:
            settings.pop(name, None)
        text = json.dumps(settings, sort_keys=True)
        return f'synthetic {hashlib.sha256(text.encode()).hexdigest()[:16]}'
    return None


def _rig(calibration: Path, known: dict[bytes, str]) -> str:
    """Digest of the numbers, not of the file: line ends and digits may differ in a copy.

    Args:
        calibration: file of a frame.
        known: digests by content: a date of KITTI has one file for thousands of frames.
    """
    if not calibration.is_file():
        return 'unknown'
    content = calibration.read_bytes()
    if content not in known:
        read = read_calibration(calibration)
        digest = hashlib.sha256()
        for matrix in (read.P2_34, read.R0_33, read.Tr_velo_to_cam_34):
            digest.update((matrix.round(6) + 0.0).astype('<f4').tobytes())
        known[content] = f'rig {digest.hexdigest()[:16]}'
    return known[content]
