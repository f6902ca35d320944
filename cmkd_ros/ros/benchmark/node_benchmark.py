"""The node's latency over cameras of several sizes and rates: what `cmkd benchmark --node` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cmkd_ros.ceilings import describe_machine
from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.ros.benchmark.camera import SIZES
from cmkd_ros.ros.benchmark.stream import WARM_UP_S, Stream, measure_stream
from cmkd_ros.wide_console import wide_console

RATES_HZ = (10.0, 30.0, 60.0)
_COLUMNS = (
    'image', 'Hz', 'network', 'published p50', 'p95', 'p99', 'arrived p50', 'p95', 'p99',
    'answered', 'longest tick',
)  # fmt: skip
_WIDTH = 120  # of the table, also where the output is a file


@dataclass(frozen=True)
class NodeBenchmark:
    """Every run, and where they ran."""

    machine: dict[str, Any]
    streams: tuple[Stream, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def measure_node(
    size: tuple[int, int] | None = None,
    rates_hz: Sequence[float] = (),
    seconds: float = 10.0,
    network_s: float = 0.0,
    model: Path | None = None,
    precision: str = 'auto',
    warm_up_s: float = WARM_UP_S,
    progress: Callable[[int, int], None] | None = None,
) -> NodeBenchmark:
    """Measure each size at each rate.

    Args:
        size: width and height of the images, pixels; None takes those of `SIZES`.
        rates_hz: of the camera; none takes those of `RATES_HZ`.
        seconds, network_s, model, precision, warm_up_s: of each run, as of `measure_stream`.
        progress: called with (runs done, of how many).

    Raises:
        FileNotFoundError, ValueError: a model that cannot be used; times or rates of no sense.
        FailedError, TimeoutError: as `measure_stream`.
    """
    sizes = SIZES if size is None else (tuple(size),)
    runs = list(product(sizes, rates_hz or RATES_HZ))
    if seconds <= 0 or network_s < 0 or min(rate_hz for _, rate_hz in runs) <= 0:
        raise ValueError('seconds and rates must be positive, the time of the network not negative')
    if model:
        load_bundle(model)  # its faults are better told here than by another process
    streams = []
    for (width, height), rate_hz in runs:
        streams.append(
            measure_stream(
                seconds, rate_hz, network_s, (width, height), model, precision, warm_up_s
            )
        )
        if progress:
            progress(len(streams), len(runs))
    return NodeBenchmark(describe_machine(), tuple(streams))


def print_node_benchmark(result: NodeBenchmark, console: Console | None = None) -> None:
    """Print a line a run, milliseconds; on stdout unless another console is given."""
    console = wide_console(console, _WIDTH)
    machine = result.machine
    console.print(
        f'node in a process of its own, milliseconds since before publishing the image; '
        f'{machine["cpu"]}, {machine["threads"]} threads, load {machine["load_1_min"]:.1f}',
        highlight=False,
    )
    table = Table()
    for title in _COLUMNS:
        table.add_column(title, justify='right', no_wrap=True)
    for stream in result.streams:
        table.add_row(*_row(stream))
    console.print(table)


def _row(stream: Stream) -> list[str]:
    times = [
        f'{series[quantile]:.1f}' if series else ''
        for series in (stream.published_ms, stream.arrived_ms)
        for quantile in ('p50', 'p95', 'p99')
    ]
    return [
        f'{stream.width}x{stream.height}', f'{stream.rate_hz:g}', stream.network, *times,
        f'{stream.answered} of {stream.sent}', f'{stream.longest_tick_ms:.1f}',
    ]  # fmt: skip
