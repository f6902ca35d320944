"""KITTI's text files: calibration, labels, results and frame lists, read strictly.

Shape letters: N objects. Camera frame: optical, x right, y down, z forward (rectified camera 0).
Line ends may be LF or CRLF, the last one may be missing, and an empty file holds no objects.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.camera import CameraModel

PathLike = str | os.PathLike[str]
FloatArray = NDArray[np.float64]

LABEL_FIELDS = (
    *('type', 'truncated', 'occluded', 'alpha', 'x1', 'y1', 'x2', 'y2'),
    *('h', 'w', 'l', 'x', 'y', 'z', 'rotation_y'),
)
RESULT_FIELDS = (*LABEL_FIELDS, 'score')
_INTEGER = re.compile(r'[+-]?\d+')
# Calibrations are published with 7 digits or more; a wrong line is off by far more than this.
_ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class KittiCalibration:
    """Calibration of one KITTI frame: left colour camera and LiDAR.

    Args:
        P2_34: projection of the rectified camera 0 frame to pixels of the left colour camera.
        R0_33: rotation of the unrectified to the rectified camera 0 frame.
        Tr_velo_to_cam_34: LiDAR frame to the unrectified camera 0 frame, metres.

    Raises:
        ValueError: on a wrong shape, a non-finite value, a non-positive focal length or a
            matrix that is no rotation.
    """

    P2_34: FloatArray
    R0_33: FloatArray
    Tr_velo_to_cam_34: FloatArray

    def __post_init__(self) -> None:
        for name, shape in (('P2_34', (3, 4)), ('R0_33', (3, 3)), ('Tr_velo_to_cam_34', (3, 4))):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise ValueError(f'{name}: expected finite {shape}, found {array.tolist()}')
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.P2_34[0, 0] <= 0 or self.P2_34[1, 1] <= 0:
            raise ValueError(
                'P2_34: expected positive focal lengths, '
                f'found {self.P2_34[0, 0]:g} and {self.P2_34[1, 1]:g} px'
            )
        for name, matrix in (
            ('R0_33', self.R0_33),
            ('Tr_velo_to_cam_34', self.Tr_velo_to_cam_34[:, :3]),
        ):
            error = float(np.abs(matrix @ matrix.T - np.eye(3)).max())
            if error > _ORTHONORMAL_TOLERANCE or np.linalg.det(matrix) < 0:
                raise ValueError(
                    f'{name}: expected a rotation matrix, found one with determinant '
                    f'{np.linalg.det(matrix):.4g} whose rows are off orthonormal by {error:.3g}'
                )

    @property
    def T_cam_ref(self) -> FloatArray:
        """Pose (4, 4) that maps LiDAR (reference) points to the rectified camera frame."""
        rectify_44, velo_to_cam_44 = np.eye(4), np.eye(4)
        rectify_44[:3, :3] = self.R0_33
        velo_to_cam_44[:3] = self.Tr_velo_to_cam_34
        return rectify_44 @ velo_to_cam_44

    def camera(self, width: int, height: int) -> CameraModel:
        """Return the rectified left colour camera for an image of this size in pixels."""
        return CameraModel.from_projection(self.P2_34, width, height)


@dataclass(frozen=True)
class KittiObjects:
    """The objects of one KITTI frame in file order, as labels or (with scores) as results.

    Args:
        names: class names, written as in the file.
        truncated_N: share of the object outside of the image, 0 to 1; -1 where unknown.
        occluded_N: int64, 0 visible, 1 partly, 2 largely, 3 unknown; -1 where not given.
        alphas_N: observation angle, radians; -10 where unknown.
        boxes_px_N4: image box (x1, y1, x2, y2) in pixels.
        dimensions_N3: height, width, length in metres; -1 where unknown.
        locations_N3: centre of the bottom face in the camera frame; -1000 where unknown.
        rotations_y_N: rotation about the camera's y axis, radians; -10 where unknown.
        scores_N: confidence of a detection, None for labels.

    Raises:
        ValueError: when shapes disagree or a value is not finite.
    """

    names: tuple[str, ...]
    truncated_N: FloatArray
    occluded_N: NDArray[np.int64]
    alphas_N: FloatArray
    boxes_px_N4: FloatArray
    dimensions_N3: FloatArray
    locations_N3: FloatArray
    rotations_y_N: FloatArray
    scores_N: FloatArray | None = None

    def __post_init__(self) -> None:
        names = tuple(self.names)
        for name in names:
            if not isinstance(name, str) or len(name.split()) != 1:
                raise ValueError(f'names: expected words without spaces, found {name!r}')
        object.__setattr__(self, 'names', names)
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is None and field.name == 'scores_N':
                continue
            dtype = np.int64 if field.name == 'occluded_N' else np.float64
            array = np.array(value, dtype=dtype)
            columns = {'N4': (4,), 'N3': (3,)}.get(field.name[-2:], ())
            if array.size == 0 and not names:
                array = array.reshape(0, *columns)
            if array.shape != (len(names), *columns):
                raise ValueError(
                    f'{field.name}: expected shape {(len(names), *columns)}, found {array.shape}'
                )
            if not np.isfinite(array).all():
                raise ValueError(f'{field.name}: expected finite values, found NaN or infinity')
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)

    @classmethod
    def empty(cls, scored: bool = False) -> 'KittiObjects':
        """Return a frame without objects, as results when `scored`."""
        return _objects_from_rows((), (), np.zeros((0, len(RESULT_FIELDS) - 2)), scored)

    @classmethod
    def concatenate(cls, frames: Sequence['KittiObjects'], scored: bool) -> 'KittiObjects':
        """Return the objects of several frames one after another, without scores unless `scored`.

        Raises:
            ValueError: when `scored` and a frame has no scores.
        """
        if scored and any(frame.scores_N is None for frame in frames):
            raise ValueError('expected results, which carry scores, found labels')
        frames = [cls.empty(scored), *frames]
        names = tuple(name for frame in frames for name in frame.names)
        arrays = [field.name for field in fields(cls)[1:] if scored or field.name != 'scores_N']
        return cls(
            names, *(np.concatenate([getattr(frame, name) for frame in frames]) for name in arrays)
        )

    def __len__(self) -> int:
        return len(self.names)

    def boxes(self, T_cam_ref: FloatArray) -> Boxes3D:
        """The objects as boxes in ref; `T_cam_ref` (4, 4) takes ref to the camera frame."""
        return Boxes3D.from_kitti(
            self.locations_N3, self.dimensions_N3, self.rotations_y_N, T_cam_ref
        )

    def select(
        self, mask: NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]
    ) -> 'KittiObjects':
        """Return the objects of a boolean mask (N,) or of a list of indices, in that order."""
        chosen = np.asarray(mask)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        return KittiObjects(
            names=tuple(self.names[i] for i in chosen),
            truncated_N=self.truncated_N[chosen],
            occluded_N=self.occluded_N[chosen],
            alphas_N=self.alphas_N[chosen],
            boxes_px_N4=self.boxes_px_N4[chosen],
            dimensions_N3=self.dimensions_N3[chosen],
            locations_N3=self.locations_N3[chosen],
            rotations_y_N=self.rotations_y_N[chosen],
            scores_N=None if self.scores_N is None else self.scores_N[chosen],
        )


def read_calibration(path: PathLike) -> KittiCalibration:
    """Read a calibration file of the object benchmark (lines `P2:`, `R0_rect:`, `Tr_velo_to_cam:`).

    Raises:
        FileNotFoundError, ValueError: naming file, line, what is expected and what was found.
    """
    found: dict[str, FloatArray] = {}
    wanted = {'P2': (3, 4), 'R0_rect': (3, 3), 'Tr_velo_to_cam': (3, 4)}
    for number, line in _lines(path):
        key, colon, rest = line.partition(':')
        if not colon:
            raise ValueError(f'{path}:{number}: expected "NAME: numbers", found {line[:40]!r}')
        key = key.strip()
        if key not in wanted:
            continue
        if key in found:
            raise ValueError(f'{path}:{number}: {key} stands in the file twice')
        words, shape = rest.split(), wanted[key]
        if len(words) != shape[0] * shape[1]:
            raise ValueError(
                f'{path}:{number}: {key} needs {shape[0] * shape[1]} numbers, found {len(words)}'
            )
        numbers = [_number(word, path, number, key) for word in words]
        found[key] = np.array(numbers).reshape(shape)
    missing = [key for key in wanted if key not in found]
    if missing:
        raise ValueError(f'{path}: expected the lines {", ".join(wanted)}, missing {missing[0]}')
    try:
        return KittiCalibration(found['P2'], found['R0_rect'], found['Tr_velo_to_cam'])
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def write_calibration(path: PathLike, calibration: KittiCalibration) -> None:
    """Write a calibration file with KITTI's seven lines; it reads back to the same bits.

    The other cameras are not known here: P0, P1 and P3 repeat P2, and Tr_imu_to_velo is the
    identity, because many readers pick lines by their number.
    """
    rows = [(f'P{index}', calibration.P2_34) for index in range(4)]
    rows += [
        ('R0_rect', calibration.R0_33),
        ('Tr_velo_to_cam', calibration.Tr_velo_to_cam_34),
        ('Tr_imu_to_velo', np.eye(4)[:3]),
    ]
    lines = [f'{key}: ' + ' '.join(f'{value:.16e}' for value in m.flat) for key, m in rows]
    write_text_atomically(path, '\n'.join(lines) + '\n')


def read_labels(path: PathLike) -> KittiObjects:
    """Read a label file: 15 fields a line (`LABEL_FIELDS`).

    `occluded` must be written as an integer: the official evaluator misreads all later fields of
    a line that has `0.00` there.

    Raises:
        FileNotFoundError, ValueError: naming file, line, field, what is expected and found.
    """
    return _read_objects(path, LABEL_FIELDS)


def read_results(path: PathLike) -> KittiObjects:
    """Read a result file: the 15 fields of a label and the score; errors as `read_labels`."""
    return _read_objects(path, RESULT_FIELDS)


def write_labels(path: PathLike, objects: KittiObjects) -> None:
    """Write a label file with KITTI's two decimals; scores are not written."""
    write_text_atomically(path, ''.join(f'{line}\n' for line in _object_lines(objects, 2)))


def write_results(path: PathLike, objects: KittiObjects) -> None:
    """Write a result file: four decimals, scores with the nine digits that keep a float32 exact.

    Raises:
        ValueError: when the objects carry no scores.
    """
    if objects.scores_N is None:
        raise ValueError(f'{path}: results need scores, found objects without')
    lines = _object_lines(objects, 4)
    text = ''.join(
        f'{line} {score:.9g}\n' for line, score in zip(lines, objects.scores_N, strict=True)
    )
    write_text_atomically(path, text)


def read_frame_list(path: PathLike) -> list[str]:
    """Read a list of frame ids, one a line (KITTI's ImageSets files), in file order.

    Raises:
        FileNotFoundError, ValueError: when the file is missing or empty, a line is more than
            one id, or an id occurs twice (it would be counted twice).
    """
    first_line: dict[str, int] = {}
    for number, line in _lines(path):
        frame = line.strip()
        if len(frame.split()) != 1:
            raise ValueError(f'{path}:{number}: expected one frame id, found {frame!r}')
        if frame in first_line:
            raise ValueError(
                f'{path}:{number}: frame {frame} was listed before in line {first_line[frame]}'
            )
        first_line[frame] = number
    if not first_line:
        raise ValueError(f'{path}: expected frame ids, found an empty file')
    return list(first_line)


def _lines(path: PathLike) -> Iterable[tuple[int, str]]:
    """Yield (number from 1, text) of the lines that are not blank."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        # A byte order mark would turn the first class name into an unknown one.
        text = Path(path).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}: expected a text file, found binary data ({error})') from error
    return [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]


def _number(word: str, path: PathLike, line_number: int, field: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float('nan')
    # float() takes 1_000 for a number, no other reader of these files does.
    if value - value != 0 or '_' in word:
        raise ValueError(
            f'{path}:{line_number}: {field} must be a finite number, found {word!r}'
        ) from None
    return value


def _read_objects(path: PathLike, names: tuple[str, ...]) -> KittiObjects:
    kind = 'result' if names[-1] == 'score' else 'label'
    classes: list[str] = []
    occluded: list[int] = []
    rows: list[list[float]] = []
    for number, line in _lines(path):
        words = line.split()
        if len(words) != len(names):
            raise ValueError(
                f'{path}:{number}: a {kind} line has {len(names)} fields '
                f'({names[0]} ... {names[-1]}), found {len(words)}'
            )
        if not _INTEGER.fullmatch(words[2]):
            raise ValueError(
                f'{path}:{number}: occluded must be written as an integer, found {words[2]!r}; '
                'the official evaluator misreads such a line'
            )
        classes.append(words[0])
        occluded.append(int(words[2]))
        numbers = [words[1], *words[3:]]
        labels = (names[1], *names[3:])
        rows.append([_number(w, path, number, f) for w, f in zip(numbers, labels, strict=True)])
    return _objects_from_rows(
        tuple(classes), occluded, np.array(rows).reshape(-1, len(names) - 2), kind == 'result'
    )


def _objects_from_rows(
    names: tuple[str, ...], occluded: Sequence[int], rows: FloatArray, scored: bool
) -> KittiObjects:
    """Rows hold every number of a line but `occluded`, in file order."""
    return KittiObjects(
        names=names,
        truncated_N=rows[:, 0],
        occluded_N=np.array(occluded, dtype=np.int64),
        alphas_N=rows[:, 1],
        boxes_px_N4=rows[:, 2:6],
        dimensions_N3=rows[:, 6:9],
        locations_N3=rows[:, 9:12],
        rotations_y_N=rows[:, 12],
        scores_N=rows[:, 13] if scored else None,
    )


def _object_lines(objects: KittiObjects, decimals: int) -> list[str]:
    numbers = np.column_stack(
        [
            objects.alphas_N,
            objects.boxes_px_N4,
            objects.dimensions_N3,
            objects.locations_N3,
            objects.rotations_y_N,
        ]
    )
    return [
        f'{name} {truncated:.2f} {occluded} ' + ' '.join(f'{value:.{decimals}f}' for value in row)
        for name, truncated, occluded, row in zip(
            objects.names, objects.truncated_N, objects.occluded_N, numbers, strict=True
        )
    ]
