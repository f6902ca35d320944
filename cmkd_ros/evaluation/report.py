"""KITTI AP of result folders, and its forms for people: table, JSON, precision-recall pictures."""

import json
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from cmkd_ros.atomic_write import write_bytes_atomically, write_text_atomically
from cmkd_ros.evaluation.kitti_ap import evaluate_kitti
from cmkd_ros.evaluation.kitti_matching import N_SAMPLES
from cmkd_ros.evaluation.kitti_report import KittiReport, highest_ap
from cmkd_ros.evaluation.kitti_split import DIFFICULTIES, MIN_OVERLAP
from cmkd_ros.kitti_files import read_frame_list, read_labels, read_results

PathLike = str | os.PathLike[str]

METRIC_TITLES = {'bbox': 'image box', 'aos': 'orientation', 'bev': 'BEV', '3d': '3D'}
_N_MISSING = 'labels_without_results'


def evaluate_folders(
    labels_dir: PathLike, results_dir: PathLike, frames_file: PathLike | None = None
) -> KittiReport:
    """Evaluate the result files of one folder against the label files of another.

    Args:
        labels_dir: folder of label files `<frame>.txt`.
        results_dir: folder of result files `<frame>.txt`; an empty file is a frame without
            detections.
        frames_file: frame ids, one a line; each needs a result file. None takes every result file;
            then labels without a result file are left out and counted in `report.extra`.

    Returns:
        All metrics, overlap levels and difficulties.

    Raises:
        FileNotFoundError: a folder, or a label or result file of a frame, is missing.
        ValueError: no frames, or a line that is wrong; the message names file, line and field.
    """
    labels_dir, results_dir = Path(labels_dir), Path(results_dir)
    for folder in (labels_dir, results_dir):
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder}: no such folder')
    extra: dict[str, object] = {}
    if frames_file is not None:
        frames = read_frame_list(frames_file)
        _check_present(frames, results_dir, f'result file of a frame listed in {frames_file}')
    else:
        frames = _frames_in(results_dir)
        if not frames:
            raise ValueError(f'{results_dir}: expected result files *.txt, found none')
        extra[_N_MISSING] = len(set(_frames_in(labels_dir)).difference(frames))
    _check_present(frames, labels_dir, f'label file of a frame in {frames_file or results_dir}')
    report = evaluate_kitti(
        [read_labels(labels_dir / f'{frame}.txt') for frame in frames],
        [read_results(results_dir / f'{frame}.txt') for frame in frames],
    )
    return report.with_extra(extra)


def print_table(
    report: KittiReport,
    recall: int = 40,
    console: Console | None = None,
    earlier: KittiReport | None = None,
) -> None:
    """Print APs, distance ranges and box errors as tables.

    Args:
        report: the numbers.
        recall: 40 (official since 2019) or 11 recall positions.
        console: where to print; standard output by default.
        earlier: of the same labels: a second table shows the change of each AP.

    Raises:
        ValueError: another recall, or the earlier report is of other labels.
    """
    if earlier is not None:
        _check_comparable(report, earlier)
    if recall not in (40, 11):
        raise ValueError(f'recall: expected 40 or 11, found {recall}')
    console = console or Console()
    console.print(_ap_table(report, recall))
    if earlier is not None:
        console.print(_ap_table(report, recall, earlier))
    if report.ap_by_distance:
        console.print(_distance_table(report, recall))
    if report.errors:
        console.print(_error_table(report))
    for note in _notes(report, recall):
        console.print(f'[yellow]Note:[/yellow] {note}', highlight=False)


def write_json(report: KittiReport, path: PathLike) -> None:
    """Write every number of a report as JSON, whole or not at all."""
    text = json.dumps(report.to_json(), indent=1, allow_nan=False)
    write_text_atomically(path, f'{text}\n')


def read_report(path: PathLike) -> KittiReport:
    """Read a JSON of `write_json`, or a reference file of the same layout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, a missing entry, or an AP that is not the mean of its own curve, as
            when R11 and R40 were mixed up; the message names file and entry.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such file')
    try:
        return KittiReport.from_json(json.loads(Path(path).read_text(encoding='utf-8')))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error


def write_plots(report: KittiReport, folder: PathLike) -> list[Path]:
    """Draw the precision-recall curves: one picture per class and overlap level.

    Args:
        report: the numbers.
        folder: made when it does not exist.

    Returns:
        The files `<class>_<level>.png`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for level, classes in report.curves_41.items():
        for name in classes:
            path = folder / f'{name.lower()}_{level}.png'
            write_bytes_atomically(path, _plot(report, level, name))
            paths.append(path)
    return paths


def _plot(report: KittiReport, level: str, class_name: str) -> bytes:
    from matplotlib.figure import Figure

    curves = {m: c for m, c in report.curves_41[level][class_name].items() if c is not None}
    figure = Figure(figsize=(4.0 * len(curves), 4.0))
    figure.suptitle(f'{class_name}, {level} overlaps, {report.frames} frames')
    recalls = [k / (N_SAMPLES - 1) for k in range(N_SAMPLES)]
    for axes, (metric, samples) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        averages = report.ap[level][class_name][metric] or {}
        for i, difficulty in enumerate(DIFFICULTIES):
            n_gt = report.n_gt[class_name][i]
            label = f'{difficulty}: R40 {averages["R40"][i]:.2f} (n_gt {n_gt})'
            axes.plot(recalls, samples[i], label=label)
        limit = MIN_OVERLAP[level][class_name]['bbox' if metric == 'aos' else metric]
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall')
        axes.set_ylabel('similarity' if metric == 'aos' else 'precision')
        axes.set_title(f'{METRIC_TITLES[metric]}, overlap > {limit}')
        axes.grid(alpha=0.3)
        axes.legend(loc='lower left', fontsize='small')
    figure.subplots_adjust(left=0.8 / figure.get_figwidth(), right=0.98, bottom=0.14, top=0.84)
    picture = BytesIO()
    figure.savefig(picture, format='png', dpi=100)
    return picture.getvalue()


def _table(title: str) -> Table:
    return Table(
        title=title, box=box.SIMPLE, pad_edge=False, title_justify='left', title_style='bold'
    )


def _check_comparable(report: KittiReport, earlier: KittiReport) -> None:
    for name, found, before in (
        ('frames', report.frames, earlier.frames),
        ('n_gt', report.n_gt, earlier.n_gt),
    ):
        if found != before:
            raise ValueError(
                f'{name}: expected {found} in the earlier report too, found {before}; APs of '
                'different labels cannot be compared'
            )


def _ap_table(report: KittiReport, recall: int, earlier: KittiReport | None = None) -> Table:
    title = f'KITTI AP R{recall} in percent, {report.frames} frames'
    table = _table(title if earlier is None else f'Change of AP R{recall}, in points')
    for column in ('class', 'metric', 'overlap'):
        table.add_column(column, no_wrap=True)
    for difficulty in DIFFICULTIES:
        table.add_column(difficulty, justify='right', no_wrap=True)
    for name, n_gt in report.n_gt.items():
        table.add_row(name, 'n_gt', '', *(f'{n}' for n in n_gt), style='dim')
        seen = set()
        for level in report.ap:
            for metric in METRIC_TITLES:
                averages = report.ap[level][name][metric]
                limit = MIN_OVERLAP[level][name]['bbox' if metric == 'aos' else metric]
                # The image box has the same limit in both levels.
                if averages is None or (metric, limit) in seen:
                    continue
                seen.add((metric, limit))
                numbers = [f'{value:.2f}' for value in averages[f'R{recall}']]
                if earlier is not None:
                    before = earlier.ap[level][name][metric]
                    if before is None:  # orientation was not evaluated then
                        continue
                    changes = zip(averages[f'R{recall}'], before[f'R{recall}'], strict=True)
                    numbers = [f'{now - old:+.2f}' for now, old in changes]
                table.add_row('', METRIC_TITLES[metric], f'{limit} {level}', *numbers)
        table.add_section()
    return table


def _distance_table(report: KittiReport, recall: int) -> Table:
    table = _table(f'AP R{recall} by distance from the camera, moderate (n_gt)')
    ranges = list(next(iter(report.n_gt_by_distance.values())))
    for column in ('class', 'metric', 'overlap'):
        table.add_column(column, no_wrap=True)
    for where in ranges:
        table.add_column(f'{where} m', justify='right', no_wrap=True)
    moderate = DIFFICULTIES.index('moderate')
    for name, n_gt in report.n_gt_by_distance.items():
        for level in report.ap_by_distance:
            for metric, averages in report.ap_by_distance[level][name].items():
                numbers = [
                    f'{averages[where][f"R{recall}"][moderate]:.2f} ({n_gt[where][moderate]})'
                    for where in ranges
                ]
                overlap = f'{MIN_OVERLAP[level][name][metric]} {level}'
                first = level == next(iter(report.ap_by_distance)) and metric == 'bev'
                table.add_row(name if first else '', METRIC_TITLES[metric], overlap, *numbers)
        table.add_section()
    return table


def _error_table(report: KittiReport) -> Table:
    table = _table('Errors of boxes that match in the image (metres, radians)')
    table.add_column('class', no_wrap=True)
    for column in ('range', 'boxes', 'depth', 'median', 'bias', 'yaw', 'flipped', 'size'):
        table.add_column(column, justify='right', no_wrap=True)
    for name, by_range in report.errors.items():
        for where, e in by_range.items():
            if e.depth_mean_abs is None or e.size_mean_abs is None:
                continue
            table.add_row(
                name if where == 'all' else '',
                where,
                str(e.n),
                f'{e.depth_mean_abs:.2f}',
                f'{e.depth_median_abs:.2f}',
                f'{e.depth_bias:+.2f}',
                f'{e.yaw_median_abs_rad:.3f}',
                f'{e.heading_reversed_percent:.1f} %',
                f'{sum(e.size_mean_abs) / 3:.2f}',
            )
        table.add_section()
    return table


def _notes(report: KittiReport, recall: int) -> Iterable[str]:
    for role, leak in report.extra.get('leak_check', {}).get('leaks', {}).items():
        yield (
            f'the {role} learned from {leak["frames"]} of these frames or from their drives: the '
            'numbers say nothing about new data.'
        )
    if n_missing := report.extra.get(_N_MISSING):
        yield f'{n_missing} labelled frames have no result file and were left out.'
    for name in report.classes_without_detection:
        yield f'no detection of class {name}: its APs are 0.'
    if not report.aos_evaluated:
        yield 'a detection has alpha -10 (unknown), so orientation was not evaluated.'
    for name, counts in report.n_gt.items():
        caps = [
            f'{difficulty} {highest_ap(n, recall):.1f}'
            for difficulty, n in zip(DIFFICULTIES, counts, strict=True)
            if n < N_SAMPLES
        ]
        if caps:
            yield f'{name} has fewer than 41 labels; the best possible AP is {", ".join(caps)}.'


def _frames_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob('*.txt'))


def _check_present(frames: list[str], folder: Path, what: str) -> None:
    missing = [frame for frame in frames if not (folder / f'{frame}.txt').is_file()]
    if missing:
        more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
        raise FileNotFoundError(f'{folder / missing[0]}.txt: missing {what}{more}')
