"""What a student costs on a GPU: from the bytes of an image to boxes, form by form.

    python -m cmkd_ros.cuda_benchmark --student scd_r50 --precision bf16

Prints one line of JSON for each way to run it: the form as `Detector` chooses it, the same with
each of its parts replaced by another, and the plain modules under autocast. Times of the host are
taken around whole calls, which end with boxes on the CPU; those of the device are the mean of many
graphs that follow each other with nobody waiting in between.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmkd_ros.benchmark import random_picture, student_to_measure
from cmkd_ros.ceilings import synchronise
from cmkd_ros.detector import Detector
from cmkd_ros.model.cuda_choice import form_deviation, post_fault
from cmkd_ros.model.cuda_form import CudaForm
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.fast_conv import FoldedConv
from cmkd_ros.model.spec import NetworkSpec
from cmkd_ros.model.student import Student

_WARM_UP_RUNS = 10
_VARIANTS: dict[str, dict[str, Any]] = {
    'form': {},
    'form, convolutions not fused': {'kernel': FoldedConv},
    'form, row products': {'row_products': True},
}


@dataclass(frozen=True)
class CudaCost:
    """One way to run a student, milliseconds.

    Attributes:
        name: of the way.
        precision: it computes in.
        deviation: `map_deviation` from the plain modules in fp32; None for these.
        fault: what is wrong with its boxes, '' if nothing is.
        host_ms, host_p95_ms: bytes of an image to boxes, median and 95th percentile.
        device_ms: the network and its candidates alone, mean; None where it cannot be told apart.
        first_ms: the first image, which captures the graph.
        boxes: found in the image.
    """

    name: str
    precision: str
    deviation: float | None
    fault: str
    host_ms: float
    host_p95_ms: float
    device_ms: float | None
    first_ms: float
    boxes: int


def measure(
    student: Student,
    spec: NetworkSpec,
    device: torch.device,
    precision: str = 'bf16',
    size_wh: tuple[int, int] = (1242, 375),
    repeats: int = 200,
) -> Iterator[CudaCost]:
    """Measure each way in turn.

    Args:
        student: in eval mode, with a head.
        spec: of it.
        device: a GPU; on a CPU everything runs too, without a graph.
        precision: 'fp32', 'bf16' or 'fp16' (CUDA only).
        size_wh: columns and rows of the image.
        repeats: images of each way.
    """
    image, camera, T_cam_ref = random_picture(size_wh)
    detector = Detector(student, spec.classes, spec.post, 0.0, str(device), precision)

    def see() -> int:
        return len(detector(image, camera, T_cam_ref))

    for name, parts in _VARIANTS.items():
        runner = CudaStudent(CudaForm(student, precision, **parts))
        deviation, fault = form_deviation(runner, student), post_fault(runner)
        detector.network, detector.precision = runner, precision
        times = _host_ms(see, device, repeats)
        canvas, _ = runner.run(
            image,
            torch.tensor(camera.projection_px_34, dtype=torch.float32),
            torch.tensor(T_cam_ref, dtype=torch.float32),
            spec.post,
        )
        device_ms = _mean_ms(canvas.compute, device, repeats)
        yield _cost(name, precision, deviation, fault, times, device_ms, see())
        del runner, canvas
    detector.network = student
    yield _cost('plain modules', precision, None, '', _host_ms(see, device, repeats), None, see())


def _cost(
    name: str,
    precision: str,
    deviation: float | None,
    fault: str,
    times: list[float],
    device_ms: float | None,
    boxes: int,
) -> CudaCost:
    later = times[1:]
    return CudaCost(
        name, precision, deviation, fault, float(np.median(later)),
        float(np.percentile(later, 95)), device_ms, times[0], boxes,
    )  # fmt: skip


def _host_ms(run: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """The first run, then those after the warm-up."""
    found = []
    for _ in range(1 + _WARM_UP_RUNS + repeats):
        synchronise(device)
        begin = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - begin))
    return [found[0], *found[1 + _WARM_UP_RUNS :]]


@torch.inference_mode()
def _mean_ms(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    run()
    synchronise(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronise(device)
    return 1e3 * (time.perf_counter() - begin) / repeats


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description='time a student on a GPU')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--model', type=Path, help='bundle (*.cmkd)')
    source.add_argument('--student', help='named student with random weights')
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--precision', default='bf16', choices=['fp32', 'bf16', 'fp16'])
    parser.add_argument('--size', type=int, nargs=2, default=(1242, 375), metavar=('W', 'H'))
    parser.add_argument('--repeats', type=int, default=200)
    options = parser.parse_args()
    student, spec = student_to_measure(options.model, options.student)
    device = torch.device(options.device)
    where = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'
    for cost in measure(
        student.to(device), spec, device, options.precision, tuple(options.size),
        options.repeats,
    ):  # fmt: skip
        head = {'student': spec.name, 'device': where, 'size': list(options.size)}
        sys.stdout.write(json.dumps(head | asdict(cost)) + '\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
