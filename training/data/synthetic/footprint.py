"""
Cells of the ground that something may cover, to spare the rays of all other cells.

Letters: I boxes, N points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]
CELL_M = 1.0
# Points may lie this far below a box: the ground slopes.
_BELOW_M = 6.0


class Footprint:
    """
    Where rays in one direction may meet one of some boxes; says too much, never too little.

    Args:
        low_I3: smallest coordinates of the boxes, world, metres.
        high_I3: largest coordinates.
        direction_3: of the rays; points upwards.
    """

    def __init__(self, low_I3: FloatArray, high_I3: FloatArray, direction_3: FloatArray) -> None:
        self._cells = np.zeros((1, 1), dtype=bool)
        self._origin = np.zeros(2)
        if not len(low_I3):
            return
        drop = (high_I3[:, 2:] - low_I3[:, 2:] + _BELOW_M) / max(float(direction_3[2]), 0.05)
        shift = -drop * np.asarray(direction_3, dtype=np.float64)[:2]
        low = np.minimum(low_I3[:, :2], low_I3[:, :2] + shift) - CELL_M
        high = np.maximum(high_I3[:, :2], high_I3[:, :2] + shift) + CELL_M
        self._origin = np.floor(low.min(0)) - CELL_M
        first = np.floor((low - self._origin) / CELL_M).astype(np.int64)
        last = np.ceil((high - self._origin) / CELL_M).astype(np.int64)
        # A rim of free cells, where points from beyond are clipped to.
        self._cells = np.zeros(last.max(0) + 2, dtype=bool)
        for (x0, y0), (x1, y1) in zip(first, last, strict=True):
            self._cells[x0:x1, y0:y1] = True

    def may_cover(self, points_3N: FloatArray) -> NDArray[np.intp]:
        """Indices of the points from which a ray may meet a box."""
        rows, columns = self._cells.shape
        scale = np.float32(1 / CELL_M)
        x = (points_3N[0] - np.float32(self._origin[0])) * scale
        y = (points_3N[1] - np.float32(self._origin[1])) * scale
        i = np.clip(x, 0, rows - 1).astype(np.intp)
        j = np.clip(y, 0, columns - 1).astype(np.intp)
        return np.flatnonzero(self._cells.ravel().take(i * columns + j))
