"""The loss terms of a run, read from its CSV logs."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

LossCurves = dict[str, tuple[np.ndarray, np.ndarray]]
_PART = re.compile(r'metrics_(\d+)')


def read_curves(run: Path) -> LossCurves:
    """The weighted terms by name, and their sum `loss`.

    Args:
        run: folder of a training run; parts from before an interruption come first, and steps that
            were done again count once.

    Returns:
        term -> (steps, values), float64, by rising step; empty where nothing was logged.
    """
    folder = run / 'logs' / 'csv'
    parts = sorted(folder.glob('metrics_*.csv'), key=_number)
    values: dict[str, dict[int, float]] = {}
    for path in (*parts, folder / 'metrics.csv'):
        if not path.is_file():
            continue
        with path.open(encoding='utf-8', newline='') as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if name and name.startswith('loss') and text:
                        term = values.setdefault(name.removeprefix('loss/'), {})
                        term[int(row['step'])] = float(text)
    return {
        term: (np.array(sorted(points), float), np.array([points[s] for s in sorted(points)]))
        for term, points in values.items()
    }


def draw_loss_curves(curves: LossCurves) -> Any:
    """A figure with one term a panel, over the steps."""
    from matplotlib.figure import Figure

    columns = 3
    rows = max(1, -(-len(curves) // columns))
    figure = Figure(figsize=(11, 2.6 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (term, (steps, values)) in zip(grid, sorted(curves.items()), strict=False):
        axes.plot(steps, values, linewidth=0.8)
        axes.set_yscale('symlog', linthresh=1e-4)  # a term may be zero
        axes.set_title(term, fontsize='medium')
        axes.grid(alpha=0.3)
    for axes in grid[len(curves) :]:
        axes.set_axis_off()
    figure.tight_layout()
    return figure


def _number(path: Path) -> int:
    found = _PART.fullmatch(path.stem)
    return int(found.group(1)) if found else 0
