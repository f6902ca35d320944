"""`python -m cmkd_ros.ros.benchmark overhead|stream|faults|states`: one measurement as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmkd_ros.ros.run_node import SWITCH_INTERVAL_S


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the arguments name, print it, and return the exit code."""
    options = _parse(arguments)
    # As the node's own process has it.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        found = options.measure(options)
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f'benchmark: {error}\n')
        return 2
    sys.stdout.write(json.dumps(found, indent=1) + '\n')
    return 0


def _overhead(options: argparse.Namespace) -> Any:
    from cmkd_ros.ros.benchmark.overhead import measure_overhead

    return measure_overhead(options.images)


def _stream(options: argparse.Namespace) -> Any:
    from cmkd_ros.ros.benchmark.stream import measure_stream

    size = (options.width, options.height)
    return asdict(measure_stream(options.seconds, options.rate, options.network_ms / 1e3, size))


def _faults(options: argparse.Namespace) -> Any:
    from cmkd_ros.ros.benchmark.faults import measure_faults

    return measure_faults(options.messages, options.model, options.seed)


def _states(options: argparse.Namespace) -> Any:
    from cmkd_ros.ros.benchmark.states import measure_states

    return measure_states(options.model, options.activations, options.configurations)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m cmkd_ros.ros.benchmark', description='Measure the node; JSON on stdout.'
    )
    commands = parser.add_subparsers(required=True, metavar='MEASUREMENT')
    overhead = commands.add_parser('overhead', help='time inside the node outside the network')
    overhead.add_argument('--images', type=int, default=200, help='of each size')
    overhead.set_defaults(measure=_overhead)
    stream = commands.add_parser('stream', help='age of the results under a fast camera')
    stream.add_argument('--seconds', type=float, default=600.0)
    stream.add_argument('--rate', type=float, default=30.0, help='images per second')
    stream.add_argument('--network-ms', type=float, default=150.0)
    stream.add_argument('--width', type=int, default=1242)
    stream.add_argument('--height', type=int, default=375)
    stream.set_defaults(measure=_stream)
    faults = commands.add_parser('faults', help='broken messages, parameters, transitions')
    faults.add_argument('--messages', type=int, default=10_000)
    faults.add_argument('--model', type=Path, help='a bundle; default: always the same boxes')
    faults.add_argument('--seed', type=int, default=0)
    faults.set_defaults(measure=_faults)
    states = commands.add_parser('states', help='memory in each state of the lifecycle')
    states.add_argument('--model', type=Path, required=True)
    states.add_argument('--activations', type=int, default=100)
    states.add_argument('--configurations', type=int, default=20)
    states.set_defaults(measure=_states)
    return parser.parse_args(arguments)


if __name__ == '__main__':
    sys.exit(main())
