"""A picture of one benchmark: time of every stage in both forms, beside the machine's floor."""

from __future__ import annotations

from pathlib import Path

from cmkd_ros.atomic_write import write_figure_atomically
from cmkd_ros.benchmark import Benchmark

_FORMS = {'reference_ms': 'reference form, fp32', 'fast_ms': 'fast form, {precision}'}
_COLOURS = ('#c9c9c9', '#3b6ea5')
_BAR = 0.38  # height, of 1 a stage


def draw_benchmark(result: Benchmark, out: Path) -> Path:
    """Draw milliseconds by stage, the whole last; a black line marks each stage's floor.

    Args:
        result: of `benchmark`.
        out: PNG file to write.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    longest_ms = max(cost.reference_ms for cost in result.stages)
    stages = [cost for cost in result.stages if cost.reference_ms >= 0.005 * longest_ms]
    figure = Figure(figsize=(9, 0.6 + 0.55 * len(stages)))
    axes = figure.subplots()
    for number, (form, label) in enumerate(_FORMS.items()):
        places = [row + (number - 0.5) * _BAR for row in range(len(stages))]
        times = [getattr(cost, form) for cost in stages]
        bars = axes.barh(
            places, times, _BAR, color=_COLOURS[number],
            label=label.format(precision=result.precision),
        )  # fmt: skip
        axes.bar_label(bars, [f'{time:.0f}' for time in times], padding=3, fontsize=8)
    axes.vlines(
        [cost.floor_ms for cost in stages],
        [row - _BAR for row in range(len(stages))],
        [row + _BAR for row in range(len(stages))],
        color='black', linewidth=1.5, label='floor of this machine',
    )  # fmt: skip
    axes.set_yticks(range(len(stages)), [cost.name for cost in stages])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    width, height = result.size_wh
    told = result.machine
    machine = told['gpu'] or f'{told["cpu"]}, threads: {told["threads"]}'
    axes.set(xlabel='ms', title=f'{result.student}, {width}x{height} ({machine})')
    axes.legend(loc='center right')
    write_figure_atomically(out, figure)
    return out
