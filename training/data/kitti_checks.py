"""A thorough look at one frame of a KITTI object folder: every file decoded, read and compared.

Letters: N points or objects. Frames: ref (FLU at the LiDAR), cam (optical).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.kitti_files import KittiCalibration, KittiObjects, read_calibration, read_labels
from cmkd_ros.training.data.image_space import inside_image, ref_to_image
from cmkd_ros.training.data.kitti import float32_calibration
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_depth, read_png_rgb
from cmkd_ros.training.data.scan import read_scan

T = TypeVar('T')

CLASSES = (
    *('Car', 'Van', 'Truck', 'Pedestrian', 'Person_sitting', 'Cyclist', 'Tram', 'Misc'),
    'DontCare',
)
_FARTHEST_POINT_M = 500.0
_SLACK_PX = 2.0
_FARTHEST_SENSOR_M = 5.0


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, and why; the reason names it."""

    path: Path
    reason: str


@dataclass(frozen=True)
class FileStamp:
    """What tells a changed file from the one that was checked, cheaply (size, time) and surely."""

    size: int
    mtime_ns: int
    sha256: str

    def is_of(self, path: Path) -> bool:
        """Whether size and time are still those of the file."""
        if not path.is_file():
            return False
        found = path.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True)
class FrameRecord:
    """A frame that passed all checks.

    Attributes:
        folder, frame: e.g. 'training', '000003'.
        image_size: (height, width) in pixels.
        points: in its scan, -1 without one.
        objects: in its label file, DontCare included, -1 without one.
        files: kind ('image', 'calib', 'scan', 'label', 'depth') -> stamp.
    """

    folder: str
    frame: str
    image_size: tuple[int, int]
    points: int
    objects: int
    files: dict[str, FileStamp]

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FrameRecord:
        """Undo `dataclasses.asdict` after a way through JSON."""
        files = {kind: FileStamp(**stamp) for kind, stamp in document['files'].items()}
        size = tuple(document['image_size'])
        return cls(**{**document, 'image_size': size, 'files': files})


def check_frame(
    folder: KittiFolder, frame: str, kinds: Sequence[str]
) -> FrameRecord | tuple[Fault, ...]:
    """Read all files of a frame.

    Args:
        folder: where they lie.
        frame: frame id.
        kinds: which files it needs: 'image' and 'calib', maybe 'scan', 'label', 'depth'.

    Returns:
        The frame's record, or its faults, at most one a file. Files are compared with each other
        only where both can be read, and the fault is that of the file that does not fit.
    """
    faults: list[Fault] = []

    def look(kind: str, read: Callable[[Path], T]) -> T | None:
        if kind not in kinds:
            return None
        path = folder.file(kind, frame)
        try:
            return read(path)
        except (OSError, ValueError) as error:
            reason = str(error)
            faults.append(Fault(path, reason if str(path) in reason else f'{path}: {reason}'))
        return None

    size = look('image', lambda path: read_png_rgb(path).shape[:2])
    calibration = look('calib', lambda path: _sane_calibration(path, size))
    points_N4 = look('scan', lambda path: _sane_scan(path, calibration, size))
    objects = look('label', lambda path: _sane_labels(path, size))
    look('depth', lambda path: _sane_depth(path, size))
    stamps = {kind: look(kind, _stamp) for kind in kinds} if not faults else {}
    if faults or size is None:
        return tuple(faults)
    return FrameRecord(
        folder=folder.path.name,
        frame=frame,
        image_size=(size[0], size[1]),
        points=-1 if points_N4 is None else len(points_N4),
        objects=-1 if objects is None else len(objects),
        files={kind: stamp for kind, stamp in stamps.items() if stamp is not None},
    )


def _sane_calibration(path: Path, size: tuple[int, ...] | None) -> KittiCalibration:
    calibration = read_calibration(path)
    forward = calibration.T_cam_ref[2, 0]
    if forward < 0.5:
        raise ValueError(
            f'{path}: expected a camera that looks along the x axis of the LiDAR, found the cosine '
            f'{forward:.2f} between the two'
        )
    distance = float(np.linalg.norm(calibration.Tr_velo_to_cam_34[:, 3]))
    if distance > _FARTHEST_SENSOR_M:
        raise ValueError(
            f'{path}: expected LiDAR and camera within {_FARTHEST_SENSOR_M} m, '
            f'found {distance:.2f} m'
        )
    if size is not None:
        for focal in calibration.P2_34[[0, 1], [0, 1]]:
            if not size[1] / 5 < focal < size[1] * 5:
                raise ValueError(
                    f'{path}: expected focal lengths in pixels, a fifth to five times the width of '
                    f'the picture ({size[1]} px), found {focal:g}'
                )
        u, v = calibration.P2_34[:2, 2]
        if not (0 < u < size[1] and 0 < v < size[0]):
            raise ValueError(
                f'{path}: expected the principal point of P2 in the picture of '
                f'{size[1]} x {size[0]} px, found ({u:.1f}, {v:.1f})'
            )
    return calibration


def _sane_scan(
    path: Path, calibration: KittiCalibration | None, size: tuple[int, ...] | None
) -> NDArray[np.float32]:
    points_N4 = read_scan(path)
    farthest = float(np.abs(points_N4[:, :3]).max())
    if farthest > _FARTHEST_POINT_M:
        raise ValueError(
            f'{path}: expected coordinates within {_FARTHEST_POINT_M} m, found {farthest:.3g} m'
        )
    if calibration is not None and size is not None:
        projected = ref_to_image(points_N4[:, :3], *float32_calibration(calibration))
        if not inside_image(*projected, (size[0], size[1])).any():
            raise ValueError(
                f'{path}: expected points that the camera sees, found none of {len(points_N4)} '
                'in the picture'
            )
    return points_N4


def _sane_labels(path: Path, size: tuple[int, ...] | None) -> KittiObjects:
    objects = read_labels(path)
    for number, name in enumerate(objects.names):
        where = f'{path}: object {number + 1} ({name})'
        if name not in CLASSES and name.lower() in {known.lower() for known in CLASSES}:
            raise ValueError(f'{where}: class names are written as in {", ".join(CLASSES)}')
        x1, y1, x2, y2 = objects.boxes_px_N4[number]
        if x2 < x1 or y2 < y1:
            raise ValueError(f'{where}: empty image box {x1} {y1} {x2} {y2}')
        if size is not None and not _inside((x1, y1, x2, y2), size):
            raise ValueError(
                f'{where}: image box {x1} {y1} {x2} {y2} lies outside the picture of '
                f'{size[1]} x {size[0]} px'
            )
        if name == 'DontCare':
            continue
        if (objects.dimensions_N3[number] <= 0).any():
            raise ValueError(
                f'{where}: expected positive dimensions, found {objects.dimensions_N3[number]}'
            )
        if abs(objects.rotations_y_N[number]) > 2 * np.pi:
            raise ValueError(
                f'{where}: expected rotation_y in radians, found {objects.rotations_y_N[number]}'
            )
        if not -1 <= objects.occluded_N[number] <= 3 or objects.truncated_N[number] > 1:
            raise ValueError(
                f'{where}: expected truncated up to 1 and occluded -1 to 3, found '
                f'{objects.truncated_N[number]} and {objects.occluded_N[number]}'
            )
    return objects


def _sane_depth(path: Path, size: tuple[int, ...] | None) -> None:
    found = read_png_depth(path).shape
    if size is not None and found != size:
        raise ValueError(f'{path}: expected the size of the picture {size}, found {found}')


def _inside(box: tuple[float, ...], size: tuple[int, ...]) -> bool:
    x1, y1, x2, y2 = box
    in_width = x1 >= -_SLACK_PX and x2 <= size[1] + _SLACK_PX
    return in_width and y1 >= -_SLACK_PX and y2 <= size[0] + _SLACK_PX


def _stamp(path: Path) -> FileStamp:
    found = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return FileStamp(found.st_size, found.st_mtime_ns, sha256)
