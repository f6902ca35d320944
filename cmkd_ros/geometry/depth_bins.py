"""Depth bins: how metres of depth are cut into the classes of the depth network.

Bin i covers the real-valued bin coordinates [i, i + 1). LID (linear increasing) bins grow with
depth, UD (uniform) bins do not, SID (spacing increasing) bins are even in log(1 + depth).
"""

from typing import Literal

import numpy as np
import torch

BinMode = Literal['LID', 'UD', 'SID']


def bin_edges(mode: BinMode, n_bins: int, d_min: float, d_max: float) -> np.ndarray:
    """Borders of the bins.

    Args:
        mode: kind of bins.
        n_bins: number of bins.
        d_min: near border of the first bin, metres.
        d_max: far border of the last bin, metres.

    Returns:
        (n_bins + 1,) float64, metres, increasing from d_min to d_max.

    Raises:
        ValueError: unknown mode, no bins, or not 0 <= d_min < d_max.
    """
    coordinates = torch.arange(n_bins + 1, dtype=torch.float64)
    return bin_to_depth(coordinates, mode, n_bins, d_min, d_max).numpy()


def depth_to_bin(
    depth: torch.Tensor, mode: BinMode, n_bins: int, d_min: float, d_max: float
) -> torch.Tensor:
    """Real-valued bin coordinate of a depth (cmkd-spec C1; CaDDN eq. 3 for LID).

    Args:
        depth: depth along the optical axis, metres, any shape.
        mode: kind of bins.
        n_bins: number of bins.
        d_min: near border of the first bin, metres.
        d_max: far border of the last bin, metres.

    Returns:
        Same shape and dtype: 0 at d_min, n_bins at d_max, beyond these outside the range; NaN where
        the formula has no value (LID: nearer than d_min by over an eighth of the first bin).

    Raises:
        ValueError: unknown mode, no bins, or not 0 <= d_min < d_max.
    """
    _check(mode, n_bins, d_min, d_max)
    if mode == 'LID':
        # The order of operations is the official one, so that float32 rounds alike. The root is
        # taken in float64, because vectorised float32 roots may be a digit off.
        bin_size = 2 * (d_max - d_min) / (n_bins * (1 + n_bins))
        square = 1 + 8 * (depth - d_min) / bin_size
        return -0.5 + 0.5 * square.double().sqrt().to(square.dtype)
    if mode == 'UD':
        return (depth - d_min) / ((d_max - d_min) / n_bins)
    log_min, log_max = np.log1p(d_min), np.log1p(d_max)
    return n_bins * (torch.log1p(depth) - log_min) / (log_max - log_min)


def bin_to_depth(
    coordinate: torch.Tensor, mode: BinMode, n_bins: int, d_min: float, d_max: float
) -> torch.Tensor:
    """Depth of a real-valued bin coordinate: the inverse of `depth_to_bin`.

    Args:
        coordinate: bin coordinate, any shape; i is the near border of bin i.
        mode: kind of bins.
        n_bins: number of bins.
        d_min: near border of the first bin, metres.
        d_max: far border of the last bin, metres.

    Returns:
        Depth along the optical axis, metres, same shape and dtype.

    Raises:
        ValueError: unknown mode, no bins, or not 0 <= d_min < d_max.
    """
    _check(mode, n_bins, d_min, d_max)
    if mode == 'LID':
        return d_min + (d_max - d_min) * coordinate * (coordinate + 1) / (n_bins * (n_bins + 1))
    if mode == 'UD':
        return d_min + (d_max - d_min) * coordinate / n_bins
    log_min, log_max = float(np.log1p(d_min)), float(np.log1p(d_max))
    return torch.expm1(log_min + (log_max - log_min) * coordinate / n_bins)


def _check(mode: str, n_bins: int, d_min: float, d_max: float) -> None:
    if mode not in ('LID', 'UD', 'SID'):
        raise ValueError(f'depth bins: expected mode LID, UD or SID, found {mode!r}')
    if n_bins < 1:
        raise ValueError(f'depth bins: expected at least one bin, found {n_bins}')
    if not 0 <= d_min < d_max < float('inf'):
        raise ValueError(f'depth bins: expected 0 <= d_min < d_max, found {d_min} and {d_max}')
