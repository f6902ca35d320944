"""Pictures of a ladder: AP by rung and by unlabelled frames, precision, losses over steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cmkd_ros.atomic_write import write_figure_atomically
from cmkd_ros.training.ladder.learning_curve import LearningCurve, find_learning_curves
from cmkd_ros.training.ladder.recipe import LadderRecipe
from cmkd_ros.training.ladder.summary import CLASS, MODERATE, NUMBERS, Results
from cmkd_ros.training.report.loss_curves import LossCurves, read_curves

_TITLES = {'3d_strict': '3D, overlap 0.7', '3d_loose': '3D, overlap 0.5'}


def draw_curves(ladder: LadderRecipe, results: Results, out: Path) -> list[Path]:
    """Draw `ap_by_rung.png`, `precision_recall.png` and `losses.png` into `out`.

    Where the ladder has learning curves, `learning_curve.png` too.

    Args:
        ladder: titles and order of the rungs.
        results: of `collect`; nothing is drawn where there are none.

    Returns:
        The pictures.
    """
    rungs = [name for name in ladder.rungs if name in results]
    if not rungs:
        return []
    pictures = {
        'ap_by_rung.png': _ap_by_rung(rungs, results),
        'precision_recall.png': _precision_recall(rungs, results),
        'losses.png': _losses(rungs, results),
    }
    if learning := find_learning_curves(ladder):
        pictures['learning_curve.png'] = _learning_curves(learning, results)
    for name, figure in pictures.items():
        write_figure_atomically(out / name, figure)
    return [out / name for name in pictures]


def _ap_by_rung(rungs: list[str], results: Results) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2))
    for axes, key in zip(figure.subplots(1, 2), _TITLES, strict=True):
        for x, name in enumerate(rungs):
            values = [result.numbers[key] for result in results[name].values()]
            axes.bar(x, np.mean(values), color='#9db8d9')
            axes.plot([x] * len(values), values, 'o', color='#1f3b63', markersize=4)
        axes.set_xticks(range(len(rungs)), rungs, rotation=30, ha='right')
        axes.set(title=f'{CLASS}, moderate, {_TITLES[key]}', ylabel='AP R40, percent')
        axes.grid(axis='y', alpha=0.3)
    return figure


def _precision_recall(rungs: list[str], results: Results) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2))
    recalls = np.linspace(0, 1, 41)
    for axes, key in zip(figure.subplots(1, 2), _TITLES, strict=True):
        level, metric = NUMBERS[key]
        for name in rungs:
            curves = [
                samples[MODERATE]
                for result in results[name].values()
                if (samples := result.report.curves_41[level][CLASS][metric]) is not None
            ]
            axes.plot(recalls, np.mean(curves, axis=0), label=name)
        axes.set(title=f'{CLASS}, moderate, {_TITLES[key]}', xlabel='recall', ylabel='precision')
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    return figure


def _learning_curves(curves: list[LearningCurve], results: Results) -> Any:
    """AP over the number of unlabelled frames: a dot for every seed, a line through the means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2))
    for axes, key in zip(figure.subplots(1, 2), _TITLES, strict=True):
        for number, curve in enumerate(curves):
            done = [point for point in curve.points if point.rung in results]
            values = [[r.numbers[key] for r in results[point.rung].values()] for point in done]
            colour = f'C{number}'
            for point, of_seeds in zip(done, values, strict=True):
                axes.plot([point.unlabelled] * len(of_seeds), of_seeds, 'o', color=colour, ms=4)
            counts, means = [point.unlabelled for point in done], [np.mean(v) for v in values]
            axes.plot(counts, means, color=colour, label=f'teacher {curve.teacher}')
        axes.set(title=f'{CLASS}, moderate, {_TITLES[key]}', ylabel='AP R40, percent')
        axes.set(xlabel='unlabelled frames beside the labelled ones')
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    return figure


def _losses(rungs: list[str], results: Results) -> Any:
    """Every loss term of the first seed, rung by rung; stages follow each other."""
    from matplotlib.figure import Figure

    curves = {name: _rung_curves(next(iter(results[name].values())).place) for name in rungs}
    terms = sorted({term for found in curves.values() for term in found})
    columns = 4
    rows = max(1, -(-len(terms) // columns))
    figure = Figure(figsize=(3.6 * columns, 2.8 * rows))
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, term in zip(grid, terms, strict=False):
        for name, found in curves.items():
            if term in found:
                axes.plot(*found[term], label=name, linewidth=0.9)
        axes.set_yscale('symlog', linthresh=1e-4)  # a term may be zero
        axes.set_title(term, fontsize='medium')
        axes.grid(alpha=0.3)
    for axes in grid[len(terms) :]:
        axes.set_axis_off()
    if len(terms):
        grid[0].legend(fontsize='x-small')
    figure.tight_layout()
    return figure


def _rung_curves(place: Path) -> LossCurves:
    joined: LossCurves = {}
    begin = 0.0
    for run in sorted(place.glob('stage_*')):
        found = read_curves(run)
        for term, (steps, values) in found.items():
            old_steps, old_values = joined.get(term, (np.zeros(0), np.zeros(0)))
            joined[term] = (
                np.concatenate([old_steps, steps + begin]),
                np.concatenate([old_values, values]),
            )
        begin += max((steps[-1] for steps, _ in found.values() if len(steps)), default=0.0)
    return joined
