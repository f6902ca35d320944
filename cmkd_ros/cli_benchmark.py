"""`cmkd benchmark`: a student's stages, or the latency of the node."""

from __future__ import annotations

import argparse
import json

from cmkd_ros.progress import show_progress


def run_benchmark(options: argparse.Namespace) -> None:
    """Measure what the options name, print a table, and write the files that were asked for.

    Raises:
        FileNotFoundError, ValueError: a student that cannot be used, or options without sense.
    """
    if options.node:
        _benchmark_node(options)
        return
    if not (options.model or options.student):
        raise ValueError('benchmark needs --model FILE or --student NAME, or --node')
    from cmkd_ros.benchmark import benchmark, student_to_measure
    from cmkd_ros.benchmark_chart import draw_benchmark
    from cmkd_ros.benchmark_table import print_benchmark

    student, spec = student_to_measure(options.model, options.student)
    size = tuple(options.size or (1242, 375))
    with show_progress('measuring', options.repeats) as step:
        result = benchmark(
            student, spec, options.precision, size, options.repeats, step,
            options.backend, options.device, options.batch,
        )  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(result.as_dict(), indent=1) + '\n')
    if options.chart:
        draw_benchmark(result, options.chart)
    print_benchmark(result)


def _benchmark_node(options: argparse.Namespace) -> None:
    from cmkd_ros.ros.benchmark.node_benchmark import measure_node, print_node_benchmark

    here_alone = {
        '--student': options.student, '--chart': options.chart, '--batch': options.batch > 1,
        '--backend': options.backend != 'torch', '--device': options.device != 'auto',
    }  # fmt: skip
    if given := [name for name, value in here_alone.items() if value]:
        raise ValueError(
            f'--node takes --model FILE or --network-ms, and has no {" or ".join(given)}'
        )
    network = (options.network_ms / 1e3, options.model, options.precision)
    with show_progress('measuring') as step:
        result = measure_node(options.size, options.rate, options.seconds, *network, progress=step)
    if options.json:
        options.json.write_text(json.dumps(result.as_dict(), indent=1) + '\n')
    print_node_benchmark(result)
