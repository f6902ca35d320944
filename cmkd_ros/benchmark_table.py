"""A benchmark as a table for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from cmkd_ros.benchmark import Benchmark, StageCost
from cmkd_ros.wide_console import wide_console

_COLUMNS = (
    'stage', 'GFLOP', 'needed', 'reference ms', 'fast ms', 'p95', 'speed-up', 'floor ms', 'x floor',
)  # fmt: skip
_WIDTH = 110  # of the table, also where the output is a file


def print_benchmark(result: Benchmark, console: Console | None = None) -> None:
    """Print what was measured, on stdout unless another console is given."""
    console = wide_console(console, _WIDTH)
    machine = result.machine
    width, height = result.size_wh
    console.print(
        f'{result.student}, {width}x{height}, {result.precision}, median of {result.repeats}; '
        f'{machine["cpu"]}, {machine["threads"]} threads, load {machine["load_1_min"]:.1f}, '
        f'torch {machine["torch"]}',
        highlight=False,
    )
    table = Table()
    for position, title in enumerate(_COLUMNS):
        table.add_column(title, justify='left' if position == 0 else 'right', no_wrap=True)
    for cost in result.stages:
        table.add_row(*_row(cost), end_section=cost.name == 'boxes')
    console.print(table)
    fast, slow = (_megabytes(mb) for mb in (result.activation_mb, result.reference_activation_mb))
    console.print(
        f'ceilings: {result.gemm_gflops:.0f} GFLOP/s ({result.precision} products), '
        f'{result.copy_gb_s:.1f} GB/s (copy); memory of a forward: '
        f'{fast}, reference {slow}',
        highlight=False,
    )


def _row(cost: StageCost) -> list[str]:
    over_floor = f'{cost.fast_ms / cost.floor_ms:.1f}' if cost.floor_ms else ''
    return [
        cost.name, f'{cost.gflop:.1f}', f'{cost.needed_gflop:.1f}', f'{cost.reference_ms:.1f}',
        f'{cost.fast_ms:.1f}', f'{cost.fast_p95_ms:.1f}', f'{cost.speed_up:.2f}',
        f'{cost.floor_ms:.1f}', over_floor,
    ]  # fmt: skip


def _megabytes(value: float | None) -> str:
    return 'not told here' if value is None else f'{value:.0f} MB'
