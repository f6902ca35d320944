"""Comparing a value with a recorded one: a row of the parity table.

Source of the record format: cmkd-spec K2. A record keeps shape, sums and a sample of every large
array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Record = Mapping[str, NDArray]

# Largest deviations: relative root mean square of maps, metres or radians of boxes, relative of
# losses, relative of gradients.
MAP_LIMIT = 1e-4
BOX_LIMIT = 1e-3
LOSS_LIMIT = 1e-5
GRADIENT_LIMIT = 1e-3
EXACT = 0.0


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: of the tensor or term, in the official code's words.
        golden, ours: the two values in words: a number, or what sums up an array.
        deviation: of all that was compared; infinite where shapes or counts differ.
        limit: the largest deviation that passes.
    """

    name: str
    golden: str
    ours: str
    deviation: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the deviation is within the limit (a NaN is not)."""
        return self.deviation <= self.limit


def sampled(array: NDArray, n: int = 4096) -> NDArray:
    """The elements of an array that a record keeps."""
    flat = np.ascontiguousarray(array).ravel()
    if flat.size <= n:
        return flat
    chosen = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(flat.size)
    return flat[chosen.astype(np.int64)]


def relative_rms(found: ArrayLike, expected: ArrayLike) -> float:
    """Root mean square of the difference over that of the expected values."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    scale = math.sqrt(float(np.mean(expected**2)))
    return math.sqrt(float(np.mean((found - expected) ** 2))) / (scale or 1.0)


def map_row(
    name: str, tensor: torch.Tensor, record: Record, key: str = '', limit: float = MAP_LIMIT
) -> Row:
    """Compare a tensor with its record: shape, recorded sample, and mean magnitude of all of it.

    Args:
        name: for the table.
        tensor: ours, in the official layout.
        record: what was recorded.
        key: name in the record, if another.
        limit: of the relative root mean square.
    """
    key = key or name
    array = tensor.detach().cpu().numpy()
    shape = tuple(int(n) for n in record[f'{key}.shape'])
    sample = record[f'{key}.samp']
    stats = record.get(f'{key}.stats')
    if array.shape != shape:
        return Row(name, f'shape {shape}', f'shape {array.shape}', math.inf, limit)
    deviation = relative_rms(sampled(array, len(sample)), sample)
    if stats is None:
        return Row(name, _mean(np.abs(sample).mean()), '', deviation, limit)
    ours, golden = (v / array.size for v in (np.abs(array.astype(np.float64)).sum(), stats[1]))
    deviation = max(deviation, abs(ours - golden) / abs(golden))
    return Row(name, _mean(golden), _mean(ours), deviation, limit)


def array_row(name: str, found: ArrayLike, expected: ArrayLike, limit: float = MAP_LIMIT) -> Row:
    """Compare arrays that were recorded whole."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return Row(name, f'shape {expected.shape}', f'shape {found.shape}', math.inf, limit)
    golden, ours = (_mean(np.abs(a.astype(np.float64)).mean()) for a in (expected, found))
    return Row(name, golden, ours, relative_rms(found, expected), limit)


def exact_row(name: str, found: ArrayLike, expected: ArrayLike) -> Row:
    """Compare what must be equal; the deviation counts the elements that are not."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return Row(name, f'shape {expected.shape}', f'shape {found.shape}', math.inf, EXACT)
    golden, ours = (str(a.item()) if a.size == 1 else f'{a.size} values' for a in (expected, found))
    return Row(name, golden, ours, float(np.count_nonzero(found != expected)), EXACT)


def number_row(name: str, found: float, expected: float, limit: float = LOSS_LIMIT) -> Row:
    """Compare two numbers, relative to the expected one."""
    deviation = abs(found - expected) / (abs(expected) or 1.0)
    return Row(name, f'{expected:.8g}', f'{found:.8g}', deviation, limit)


def boxes_row(
    name: str, found_K7: ArrayLike, expected_N7: ArrayLike, limit: float = BOX_LIMIT
) -> Row:
    """Compare sets of boxes, each recorded one with the nearest of ours.

    Ranks may differ where scores are equal but for rounding. The deviation is the largest of any
    coordinate, size (metres) or yaw (radians, modulo a full turn).
    """
    found = np.asarray(found_K7, np.float64)
    expected = np.asarray(expected_N7, np.float64)
    golden, ours = f'{len(expected)} boxes', f'{len(found)} boxes'
    if len(found) != len(expected):
        return Row(name, golden, ours, math.inf, limit)
    gap = found[None] - expected[:, None]
    gap[..., 6] = (gap[..., 6] + np.pi) % (2 * np.pi) - np.pi
    gap_NK = np.abs(gap).max(axis=-1)
    one_each = len(set(gap_NK.argmin(axis=1).tolist())) == len(expected)
    return Row(name, golden, ours, float(gap_NK.min(axis=1).max()) if one_each else math.inf, limit)


def _mean(value: float) -> str:
    return f'mean abs {value:.6g}'
