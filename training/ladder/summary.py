"""What a ladder found: every run, mean and spread of every rung, distances, gains by seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.evaluation.kitti_report import KittiReport
from cmkd_ros.evaluation.kitti_split import DIFFICULTIES
from cmkd_ros.evaluation.report import read_report
from cmkd_ros.training.ladder.learning_curve import find_learning_curves
from cmkd_ros.training.ladder.recipe import LadderRecipe
from cmkd_ros.wide_console import wide_console

RESULT = 'result.json'
CLASS, MODERATE = 'Car', DIFFICULTIES.index('moderate')
# name in the JSON -> overlap level and metric; all Car, moderate, AP R40
NUMBERS = {
    '3d_strict': ('strict', '3d'),
    '3d_loose': ('loose', '3d'),
    'bev_strict': ('strict', 'bev'),
    'bev_loose': ('loose', 'bev'),
}
_COLUMNS = ('3D\nstrict', '3D\nloose', 'BEV\nstrict', 'BEV\nloose')
_WIDTH = 110  # of the tables, also where the output is a file


@dataclass(frozen=True)
class Result:
    """One evaluated run.

    Attributes:
        report: every number.
        seconds: of training, of the process that finished it.
        place: its folder.
    """

    report: KittiReport
    seconds: float
    place: Path

    @property
    def numbers(self) -> dict[str, float]:
        """Car AP R40 moderate by the names of `NUMBERS`, percent."""
        found = {}
        for name, (level, metric) in NUMBERS.items():
            averages = self.report.ap[level][CLASS][metric]
            found[name] = float('nan') if averages is None else averages['R40'][MODERATE]
        return found

    @property
    def by_distance(self) -> dict[str, dict[str, float]]:
        """The same by name and range in metres ('0-20')."""
        return {
            name: {
                where: averages['R40'][MODERATE]
                for where, averages in self.report.ap_by_distance[level][CLASS][metric].items()
            }
            for name, (level, metric) in NUMBERS.items()
        }


Results = Mapping[str, Mapping[int, Result]]


def collect(ladder: LadderRecipe, out: Path) -> dict[str, dict[int, Result]]:
    """The finished runs: teacher or rung -> seed -> result."""
    found: dict[str, dict[int, Result]] = {}
    for name in (*ladder.teachers, *ladder.rungs):
        for seed in ladder.seeds:
            place = out / f'seed_{seed}' / name
            if (place / RESULT).is_file():
                note = json.loads((place / RESULT).read_text(encoding='utf-8'))
                report = read_report(place / 'evaluation' / 'ap.json')
                found.setdefault(name, {})[seed] = Result(report, note['seconds'], place)
    return found


def gains_of(ladder: LadderRecipe, results: Results) -> list[dict[str, Any]]:
    """Difference of the pairs in `ladder.gains`, by seed and on average, in points of AP."""
    rows = []
    for lower, upper in ladder.gains:
        low, high = results.get(lower, {}), results.get(upper, {})
        both = [seed for seed in ladder.seeds if seed in low and seed in high]
        row: dict[str, Any] = {'from': lower, 'to': upper, 'seeds': both}
        for name in NUMBERS:
            by_seed = [high[seed].numbers[name] - low[seed].numbers[name] for seed in both]
            row[name] = {
                'by_seed': by_seed,
                'mean': mean(by_seed) if by_seed else None,
                'every_seed_gains': bool(by_seed) and min(by_seed) > 0,
            }
        rows.append(row)
    return rows


def write_summary(ladder: LadderRecipe, results: Results, path: Path) -> None:
    """Write ladder.json: recipe, runs, mean and spread, distances, learning curves, gains."""
    runs = {
        name: {
            str(seed): {**result.numbers, 'seconds': result.seconds, 'folder': str(result.place)}
            for seed, result in by_seed.items()
        }
        for name, by_seed in results.items()
    }
    first = next((r.report for by_seed in results.values() for r in by_seed.values()), None)
    document = {
        'recipe': ladder.model_dump(mode='json'),
        'metric': 'Car AP R40 moderate in percent',
        'frames': None if first is None else first.frames,
        'n_gt': None if first is None else first.n_gt[CLASS],
        'n_gt_by_distance': None if first is None else first.n_gt_by_distance[CLASS],
        'finished': sum(len(results.get(name, {})) for name in ladder.rungs),
        'of': len(ladder.rungs) * len(ladder.seeds),
        'runs': runs,
        'mean_and_spread': {
            name: {key: _mean_and_spread(by_seed.values(), key) for key in NUMBERS}
            for name, by_seed in results.items()
        },
        'by_distance': {name: _by_distance(by_seed) for name, by_seed in results.items()},
        'learning_curves': _learning_curves(ladder, results),
        'gains': gains_of(ladder, results),
    }
    write_text_atomically(path, json.dumps(document, indent=1) + '\n')


def print_ladder(ladder: LadderRecipe, out: Path, console: Console | None = None) -> None:
    """Print the table of a ladder, mean and standard deviation over the seeds."""
    console = wide_console(console, _WIDTH)
    results = collect(ladder, out)
    if not results:
        console.print('nothing is finished yet')
        return
    first = next(iter(next(iter(results.values())).values())).report
    title = (
        f'{ladder.name}: Car AP R40 moderate (n_gt {first.n_gt[CLASS][MODERATE]}) on '
        f'{first.frames} frames, mean±spread over seeds'
    )
    table = _table(title, ('', 'seeds', *_COLUMNS, 'min'))
    for name in (*ladder.teachers, *ladder.rungs):
        by_seed = results.get(name, {})
        label = ladder.rungs[name].title if name in ladder.rungs else f'teacher {name}'
        cells = [_cell(by_seed, key) for key in NUMBERS]
        seconds = [result.seconds for result in by_seed.values()]
        minutes = f'{mean(seconds) / 60:.1f}' if seconds else ''
        style = None if name in ladder.rungs else 'dim'
        table.add_row(label, str(len(by_seed)), *cells, minutes, style=style)
    console.print(table)
    _print_distances(ladder, results, first, console)
    gains = _table('Gains in points: mean (by seed)', ('', *_COLUMNS[:2]))
    for row in gains_of(ladder, results):
        cells = [_changes(row[key]) for key in ('3d_strict', '3d_loose')]
        gains.add_row(f'{row["from"]} -> {row["to"]}', *cells)
    if ladder.gains:
        console.print(gains)


def _print_distances(
    ladder: LadderRecipe, results: Results, report: KittiReport, console: Console
) -> None:
    """Loose overlaps, where small students have any AP far away."""
    n_gt = report.n_gt_by_distance[CLASS]
    heads = [f'{where} m\nn_gt {counts[MODERATE]}' for where, counts in n_gt.items()]
    table = _table('3D loose by distance, mean over seeds', ('', *heads))
    for name in (*ladder.teachers, *ladder.rungs):
        found = _by_distance(results.get(name, {}))['3d_loose']
        label = ladder.rungs[name].title if name in ladder.rungs else f'teacher {name}'
        cells = [f'{found[where]:.1f}' if where in found else '-' for where in n_gt]
        table.add_row(label, *cells, style=None if name in ladder.rungs else 'dim')
    console.print(table)


def _by_distance(by_seed: Mapping[int, Result]) -> dict[str, dict[str, float]]:
    """Mean over the seeds: name of a number -> range -> AP; no range without a result."""
    found = [result.by_distance for result in by_seed.values()]
    ranges = list(found[0]['3d_strict']) if found else []
    return {
        key: {where: mean(one[key][where] for one in found) for where in ranges} for key in NUMBERS
    }


def _learning_curves(ladder: LadderRecipe, results: Results) -> list[dict[str, Any]]:
    """Mean over the seeds by number of unlabelled frames; None where nothing is finished."""
    rows = []
    for curve in find_learning_curves(ladder):
        row: dict[str, Any] = {
            'teacher': curve.teacher,
            'rungs': [point.rung for point in curve.points],
            'unlabelled': [point.unlabelled for point in curve.points],
        }
        for key in NUMBERS:
            found = [results.get(point.rung, {}).values() for point in curve.points]
            row[key] = [mean(r.numbers[key] for r in of) if of else None for of in found]
        rows.append(row)
    return rows


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title, box=box.SIMPLE, pad_edge=False, title_justify='left', title_style='bold'
    )
    for column in columns:
        table.add_column(column, justify='right' if column else 'left', no_wrap=True)
    return table


def _mean_and_spread(results: Any, key: str) -> dict[str, float]:
    values = [result.numbers[key] for result in results]
    return {'mean': mean(values), 'spread': stdev(values) if len(values) > 1 else 0.0}


def _cell(by_seed: Mapping[int, Result], key: str) -> str:
    if not by_seed:
        return '-'
    found = _mean_and_spread(by_seed.values(), key)
    return f'{found["mean"]:.1f}±{found["spread"]:.1f}'


def _changes(gain: Mapping[str, Any]) -> str:
    if gain['mean'] is None:
        return '-'
    return f'{gain["mean"]:+.1f} ({", ".join(f"{value:+.1f}" for value in gain["by_seed"])})'
