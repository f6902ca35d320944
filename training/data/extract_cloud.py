"""PointCloud2 messages -> KITTI's x, y, z, intensity, whatever their fields, order and layout.

Letters: N points. Frame: that of the message, until somebody transforms the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# sensor_msgs/PointField's numbers of the types.
_TYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}
INTENSITY_FIELDS = ('intensity', 'i', 'intensities', 'reflectivity', 'reflectance')
_BRIGHT_SHARE = 99.9  # per cent: single mirrors must not make everything else black


def cloud_to_points(message: Any) -> NDArray[np.float32]:
    """Read the points of a message that are real.

    Args:
        message: a `sensor_msgs/PointCloud2`; x, y, z as float32 or float64, intensity as any number
            under one of the names of `INTENSITY_FIELDS`; organised or not, either byte order.

    Returns:
        (N, 4) float32 x, y, z, metres, and intensity as the sensor counts it, 0 without such a
        field. Points that are not finite or lie at the origin (no return) are left out.

    Raises:
        ValueError: a field is missing or of another type, or the data is shorter than it says.
    """
    record = _record(message)
    height, width = int(message.height), int(message.width)
    row_step = int(message.row_step) or width * record.itemsize
    needed = (height - 1) * row_step + width * record.itemsize if height and width else 0
    if len(message.data) < needed:
        raise ValueError(
            f'point cloud: expected {needed} bytes of {height} x {width} points, '
            f'found {len(message.data)}'
        )
    points_HW = np.ndarray(
        (height, width), record, message.data, strides=(row_step, record.itemsize)
    )
    columns = [points_HW[name].reshape(-1).astype(np.float32) for name in ('x', 'y', 'z')]
    intensity = _intensity_field(record.names or ())
    if intensity is None:
        columns.append(np.zeros(height * width, np.float32))
    else:
        columns.append(points_HW[intensity].reshape(-1).astype(np.float32))
    points_N4 = np.column_stack(columns)
    np.nan_to_num(points_N4[:, 3], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    places_N3 = points_N4[:, :3]
    return points_N4[np.isfinite(places_N3).all(axis=1) & (places_N3 != 0).any(axis=1)]


class IntensityScale:
    """What full brightness is, in the sensor's own counts, found over whole recordings.

    One byte a point means 255. Other numbers are taken as they come: up to 1 they are fractions
    already, up to 255 they are bytes in another type, and beyond that the brightest 0.1 per cent
    of a scan count as full. Sensors that count differently have no full brightness in common.
    """

    def __init__(self) -> None:
        self._largest_by_type: dict[str, float] = {}
        self._bright: list[float] = []
        self._field: str | None = None

    def see(self, message: Any, points_N4: NDArray[np.float32]) -> None:
        """Take note of a scan."""
        kinds = {field.name: field.datatype for field in message.fields}
        field = _intensity_field(tuple(kinds))
        if field is None or not len(points_N4):
            return
        self._field, kind = field, _TYPES[kinds[field]]
        largest = float(points_N4[:, 3].max())
        self._largest_by_type[kind] = max(self._largest_by_type.get(kind, 0.0), largest)
        if largest > 255:
            self._bright.append(float(np.percentile(points_N4[:, 3], _BRIGHT_SHARE)))

    def full(self) -> float:
        """The number that becomes 1.

        Raises:
            ValueError: there are bytes, and numbers of another type that are no bytes.
        """
        others = [most for kind, most in self._largest_by_type.items() if kind != 'u1']
        largest = max(others, default=255.0)
        if 'u1' in self._largest_by_type and not 1.0 < largest <= 255:
            raise ValueError(
                f'the recordings count intensity differently: bytes in some, up to {largest:g} in '
                'others; extract them one by one, or say what full brightness is '
                '(--intensity-max)'
            )
        if largest <= 1.0:
            return 1.0
        return 255.0 if largest <= 255 else max(float(np.median(self._bright)), 255.0)

    def describe(self, full: float) -> str:
        """One phrase for the log."""
        if self._field is None:
            return f'no field of {", ".join(INTENSITY_FIELDS)}: intensity is 0'
        largest = max(self._largest_by_type.values())
        return f"field '{self._field}', up to {largest:g}: divided by {full:g}"


def scale_intensity(points_N4: NDArray[np.float32], full: float) -> NDArray[np.float32]:
    """Bring intensities to 0 to 1; (N, 4) float32, a copy unless `full` is 1 and all fit."""
    intensity_N = points_N4[:, 3]
    if full == 1.0 and (not len(points_N4) or 0 <= intensity_N.min() <= intensity_N.max() <= 1):
        return points_N4
    scaled_N4 = points_N4.copy()
    scaled_N4[:, 3] = np.clip(intensity_N / np.float32(full), 0.0, 1.0)
    return scaled_N4


def _record(message: Any) -> np.dtype:
    """One point as it lies in memory."""
    order = '>' if message.is_bigendian else '<'
    fields = {field.name: field for field in message.fields}
    missing = [name for name in ('x', 'y', 'z') if name not in fields]
    if missing:
        raise ValueError(
            f"point cloud: expected a field '{missing[0]}', found {', '.join(fields) or 'none'}"
        )
    names = ['x', 'y', 'z']
    intensity = _intensity_field(tuple(fields))
    if intensity is not None:
        names.append(intensity)
    kinds = [_TYPES.get(int(fields[name].datatype), '') for name in names]
    for name, kind in zip(names, kinds, strict=True):
        wanted = ('f4', 'f8') if name in 'xyz' else tuple(_TYPES.values())
        if kind not in wanted:
            raise ValueError(
                f"point cloud: field '{name}' has the datatype {fields[name].datatype}, expected "
                f'{"float32 or float64" if name in "xyz" else "a number"}'
            )
    offsets = [int(fields[name].offset) for name in names]
    end = max(offset + np.dtype(kind).itemsize for offset, kind in zip(offsets, kinds, strict=True))
    if end > message.point_step:
        raise ValueError(
            f'point cloud: its fields end at byte {end}, but point_step is {message.point_step}'
        )
    return np.dtype(
        {
            'names': names,
            'formats': [order + kind for kind in kinds],
            'offsets': offsets,
            'itemsize': int(message.point_step),
        }
    )


def _intensity_field(names: Sequence[str]) -> str | None:
    return next((name for name in INTENSITY_FIELDS if name in names), None)
