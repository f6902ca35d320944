"""Where the files of a KITTI object folder lie, and a cheap check that they can be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmkd_ros.kitti_files import read_calibration, read_labels
from cmkd_ros.training.data.png import read_png_size
from cmkd_ros.training.data.scan import check_scan_size

_FAULTS_SHOWN = 10
_PLACES = {
    'image': ('image_2', '.png'),
    'calib': ('calib', '.txt'),
    'scan': ('velodyne', '.bin'),
    'label': ('label_2', '.txt'),
    'depth': ('depth_2', '.png'),
}


@dataclass(frozen=True)
class KittiFolder:
    """A folder with image_2, calib, velodyne, label_2 and maybe depth_2 (`training` of KITTI)."""

    path: Path

    def image(self, frame: str) -> Path:
        """PNG of the left colour camera."""
        return self.file('image', frame)

    def calib(self, frame: str) -> Path:
        """Calibration text file."""
        return self.file('calib', frame)

    def scan(self, frame: str) -> Path:
        """LiDAR scan."""
        return self.file('scan', frame)

    def label(self, frame: str) -> Path:
        """Label text file."""
        return self.file('label', frame)

    def depth(self, frame: str) -> Path:
        """Depth map, uint16 PNG of metres * 256."""
        return self.file('depth', frame)

    def file(self, kind: str, frame: str) -> Path:
        """File of a frame by kind: 'image', 'calib', 'scan', 'label' or 'depth'."""
        folder, ending = _PLACES[kind]
        return self.path / folder / f'{frame}{ending}'

    def kinds(self) -> tuple[str, ...]:
        """Kinds of which there is a folder."""
        return tuple(
            kind for kind, (folder, _) in _PLACES.items() if self.path.joinpath(folder).is_dir()
        )

    def frames(self, kind: str) -> set[str]:
        """Names of the frames that have a file of a kind."""
        folder, ending = _PLACES[kind]
        return {path.stem for path in self.path.joinpath(folder).glob(f'*{ending}')}


def check_frames(
    folder: KittiFolder, frames: Sequence[str], *, scans: bool, labels: bool, depth: bool
) -> None:
    """Check that every file of the frames is there and can be right; pixels are not decoded.

    Args:
        folder: where the files lie.
        frames: frame ids.
        scans, labels, depth: whether these files are needed; images and calibrations always are.

    Raises:
        FileNotFoundError: only missing files (or the folder itself); the first ones are listed.
        ValueError: some files are damaged; the first faults, missing files too, are listed.
    """
    if not folder.path.is_dir():
        raise FileNotFoundError(f'{folder.path}: no such folder (KITTI layout expected)')
    checks: list[tuple[Callable[[str], Path], Callable[[Path], object]]] = [
        (folder.image, read_png_size),
        (folder.calib, read_calibration),
    ]
    if scans:
        checks.append((folder.scan, check_scan_size))
    if labels:
        checks.append((folder.label, read_labels))
    if depth:
        checks.append((folder.depth, read_png_size))
    faults = [
        fault
        for frame in frames
        for locate, look in checks
        if (fault := find_fault(look, locate(frame))) is not None
    ]
    raise_faults(folder.path, faults)


def find_fault(look: Callable[[Path], object], path: Path) -> OSError | ValueError | None:
    """The error that reading a file raises, None when it reads."""
    try:
        look(path)
    except (OSError, ValueError) as error:
        return error
    return None


def raise_faults(folder: Path, faults: Sequence[OSError | ValueError]) -> None:
    """Raise one error for all faults found, listing the first ones; nothing where there are none.

    Raises:
        FileNotFoundError: every fault is a missing file.
        ValueError: otherwise.
    """
    if not faults:
        return
    message = '; '.join(str(fault) for fault in faults[:_FAULTS_SHOWN])
    if len(faults) > 1:
        more = '' if len(faults) <= _FAULTS_SHOWN else f', the first {_FAULTS_SHOWN}'
        message = f'{folder}: {len(faults)} faulty files{more}: {message}'
    if all(isinstance(fault, FileNotFoundError) for fault in faults):
        raise FileNotFoundError(message)
    raise ValueError(message)
