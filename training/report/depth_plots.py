"""The student's depth distribution against the depth of the LiDAR.

Letters: D depth bins, h w feature pixels, P pixels with a known depth inside the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmkd_ros.geometry.depth_bins import bin_edges
from cmkd_ros.model.spec import DepthSpec
from cmkd_ros.training.report.probe import Probe

_RANGES_M = ((0, 10), (10, 20), (20, 35), (35, 80))


@dataclass(frozen=True)
class DepthErrors:
    """How far the student's most likely depth is from the LiDAR's, by distance.

    Attributes:
        median_m: (from, to) in metres -> median of the absolute error, metres.
        pixels: likewise -> number of pixels.
        beyond: mean probability of 'beyond the bins' where the LiDAR has a depth within them.
    """

    median_m: dict[tuple[int, int], float]
    pixels: dict[tuple[int, int], int]
    beyond: float


def depth_errors(probes: Sequence[Probe], depth: DepthSpec) -> DepthErrors | None:
    """Errors over all frames; None where no frame has a depth."""
    known = [_known(probe, depth) for probe in probes if probe.depth_hw is not None]
    if not known or not sum(len(true) for true, _, _ in known):
        return None
    true_P = np.concatenate([true for true, _, _ in known])
    probability_PD = np.concatenate([p for _, p, _ in known])
    beyond_P = np.concatenate([b for _, _, b in known])
    error_P = np.abs(_centers(depth)[probability_PD.argmax(1)] - true_P)
    medians, pixels = {}, {}
    for low, high in _RANGES_M:
        inside = (true_P >= low) & (true_P < high)
        if inside.any():
            medians[low, high] = float(np.median(error_P[inside]))
            pixels[low, high] = int(inside.sum())
    return DepthErrors(medians, pixels, float(beyond_P.mean()))


def draw_depth(probe: Probe, depth: DepthSpec) -> Any:
    """A figure: LiDAR depth at the features' resolution, and the student's most likely depth."""
    from matplotlib.figure import Figure

    likely = _centers(depth)[probe.probability_Dhw.argmax(0)]
    likely = np.where(probe.beyond_hw > 0.5, np.nan, likely)
    panels = [("student's most likely depth, m (white: beyond)", likely)]
    if probe.depth_hw is not None:
        lidar = np.where(probe.depth_hw > 0, probe.depth_hw, np.nan)
        panels.insert(0, ('depth of the LiDAR, m (white: unknown)', lidar))
    figure = Figure(figsize=(11, 2.2))
    for axes, (title, picture) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        shown = axes.imshow(picture, vmin=depth.min_m, vmax=depth.max_m, cmap='turbo')
        figure.colorbar(shown, ax=axes, shrink=0.7)
        axes.set_title(title, fontsize='small')
        axes.set_axis_off()
    figure.tight_layout()
    return figure


def draw_depth_distribution(probes: Sequence[Probe], depth: DepthSpec) -> Any | None:
    """A figure: for every depth of the LiDAR, the student's mean distribution; None without depth.

    A student that knows its depths shows a bright diagonal; a vertical smear is a guess.
    """
    from matplotlib.figure import Figure

    known = [_known(probe, depth) for probe in probes if probe.depth_hw is not None]
    if not known or not sum(len(true) for true, _, _ in known):
        return None
    true_P = np.concatenate([true for true, _, _ in known])
    probability_PD = np.concatenate([p for _, p, _ in known])
    edges = bin_edges(depth.mode, depth.bins, depth.min_m, depth.max_m)
    bins_P = np.clip(np.searchsorted(edges, true_P, side='right') - 1, 0, depth.bins - 1)
    sums_DD, counts_D = np.zeros((depth.bins, depth.bins)), np.zeros(depth.bins)
    np.add.at(sums_DD, bins_P, probability_PD)
    np.add.at(counts_D, bins_P, 1)
    mean_DD = np.where(counts_D[:, None] > 0, sums_DD / np.maximum(counts_D[:, None], 1), np.nan)
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    shown = axes.pcolormesh(edges, edges, mean_DD.T, cmap='magma')
    axes.plot(edges[[0, -1]], edges[[0, -1]], color='white', linewidth=0.6, linestyle='--')
    axes.set(xlabel='depth of the LiDAR, m', ylabel='depth of the student, m')
    figure.colorbar(shown, ax=axes, label='probability of a bin')
    figure.tight_layout()
    return figure


def _known(probe: Probe, depth: DepthSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True depth (P,), distribution without 'beyond' (P, D) and 'beyond' (P,) of known pixels."""
    true_hw = np.zeros(probe.beyond_hw.shape) if probe.depth_hw is None else probe.depth_hw
    inside = (true_hw > depth.min_m) & (true_hw < depth.max_m)
    return true_hw[inside], probe.probability_Dhw[:, inside].T, probe.beyond_hw[inside]


def _centers(depth: DepthSpec) -> np.ndarray:
    edges = bin_edges(depth.mode, depth.bins, depth.min_m, depth.max_m)
    return (edges[1:] + edges[:-1]) / 2
