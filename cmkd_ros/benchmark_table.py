"""A benchmark as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cmkd_ros.benchmark import Benchmark, StageCost, WholeCost
from cmkd_ros.wide_console import wide_console

_COLUMNS = (
    'stage', 'GFLOP', 'needed', 'reference ms', 'fast ms', 'p95', 'speed-up', 'floor ms', 'x floor',
)  # fmt: skip
_WHOLE_COLUMNS = ('whole', 'precision', 'ms', 'p95', 'speed-up', 'floor ms', 'x floor')
_WIDTH = 110  # of the table, also where the output is a file


def print_benchmark(result: Benchmark, console: Console | None = None) -> None:
    """Print what was measured, on stdout unless another console is given."""
    console = wide_console(console, _WIDTH)
    machine = result.machine
    width, height = result.size_wh
    batch = f'{result.batch} images of ' if result.batch > 1 else ''
    gpu = f'{machine["gpu"]}, ' if machine['gpu'] else ''
    console.print(
        f'{result.student}, {batch}{width}x{height}, {result.precision}, median of '
        f'{result.repeats}; {gpu}{machine["cpu"]}, {machine["threads"]} threads, '
        f'load {machine["load_1_min"]:.1f}, torch {machine["torch"]}',
        highlight=False,
    )
    table = _table(_COLUMNS)
    for cost in result.stages:
        table.add_row(*_row(cost), end_section=cost.name == 'boxes')
    console.print(table)
    if len(result.whole) > 2:
        table = _table(_WHOLE_COLUMNS)
        for way in result.whole:
            table.add_row(*_whole_row(way, result.whole[0]))
        console.print(table)
    fast, slow = (_megabytes(mb) for mb in (result.activation_mb, result.reference_activation_mb))
    console.print(
        f'ceilings: {result.gemm_gflops:.0f} GFLOP/s ({result.precision} products), '
        f'{result.copy_gb_s:.1f} GB/s (copy); memory of a forward: '
        f'{fast}, reference {slow}',
        highlight=False,
    )


def _table(titles: tuple[str, ...]) -> Table:
    table = Table()
    for position, title in enumerate(titles):
        table.add_column(title, justify='left' if position == 0 else 'right', no_wrap=True)
    return table


def _whole_row(way: WholeCost, reference: WholeCost) -> list[str]:
    return [
        way.name, way.precision, _ms(way.ms), _ms(way.p95_ms), f'{reference.ms / way.ms:.2f}',
        *_floor(way.floor_ms, way.ms),
    ]  # fmt: skip


def _row(cost: StageCost) -> list[str]:
    return [
        cost.name, f'{cost.gflop:.1f}', f'{cost.needed_gflop:.1f}', _ms(cost.reference_ms),
        _ms(cost.fast_ms), _ms(cost.fast_p95_ms), f'{cost.speed_up:.2f}',
        *_floor(cost.floor_ms, cost.fast_ms),
    ]  # fmt: skip


def _floor(floor_ms: float | None, ms: float) -> tuple[str, str]:
    if floor_ms is None:
        return '', ''
    return _ms(floor_ms), f'{ms / floor_ms:.1f}' if floor_ms else ''


def _ms(value: float) -> str:
    return f'{value:.{1 if value >= 10 else 2}f}'


def _megabytes(value: float | None) -> str:
    return 'not told here' if value is None else f'{value:.0f} MB'
