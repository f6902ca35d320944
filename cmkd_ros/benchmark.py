"""What a student costs on this machine: stage by stage, beside its reference form and the floor.

Reference and fast form take turns, so that both meet the same load; ratios of one run are what
counts on a machine that does other work. The floor of a stage is what its multiplications need at
the measured rate of a large matrix product, or its weights, input and output at the measured rate
of a copy, whichever is longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cmkd_ros.ceilings import copy_ceiling, describe_machine, gemm_ceiling, peak_growth_mb
from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.model.deploy import DTYPES, fast_form
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.precision import for_inference
from cmkd_ros.model.reference_form import reference_form
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student

STAGES = {
    'image_backbone': 'image backbone', 'depth_head': 'depth head', 'reduce': 'channel reduction',
    'lift': 'lift', 'collapse': 'collapse', 'adaptation': 'adaptation',
    'bev_backbone': 'BEV backbone', 'head': 'head',
}  # fmt: skip
_FX_OVER_WIDTH = 721.5377 / 1242  # KITTI's field of view
_CPU = torch.device('cpu')


@dataclass(frozen=True)
class StageCost:
    """One stage, milliseconds and 1e9 operations (a multiplication and an addition are two).

    Attributes:
        name: of the stage.
        gflop, needed_gflop: of the reference form; without taps that see padding only.
        megabytes: weights, input and output, once each, in the fast form's type.
        reference_ms: median of the reference form.
        fast_ms, fast_p95_ms: median and 95th percentile of the fast form.
        floor_ms: what this machine needs at least.
    """

    name: str
    gflop: float
    needed_gflop: float
    megabytes: float
    reference_ms: float
    fast_ms: float
    fast_p95_ms: float
    floor_ms: float

    @property
    def speed_up(self) -> float:
        """Reference over fast."""
        return self.reference_ms / max(self.fast_ms, 1e-9)


@dataclass(frozen=True)
class Benchmark:
    """Everything one run measured; `stages` ends with the whole, image tensor to boxes."""

    student: str
    precision: str
    size_wh: tuple[int, int]
    repeats: int
    gemm_gflops: float
    copy_gb_s: float
    activation_mb: float | None
    reference_activation_mb: float | None
    stages: list[StageCost]
    machine: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; every stage also with its ratios."""
        data = asdict(self)
        for stage, cost in zip(data['stages'], self.stages, strict=True):
            stage['speed_up'] = cost.speed_up
            stage['over_floor'] = cost.fast_ms / cost.floor_ms if cost.floor_ms else None
        return data


def student_to_measure(model: Path | None, name: str | None) -> tuple[Student, NetworkSpec]:
    """The student of a bundle, or a named one with random weights, in eval mode.

    Raises:
        FileNotFoundError, ValueError: as `load_bundle`, `load_spec`.
    """
    if model is not None:
        bundle = load_bundle(model)
        return bundle.build().eval(), bundle.network_spec
    spec = load_spec(name or '')
    torch.manual_seed(0)
    return build_student(spec).eval(), spec


def benchmark(
    student: Student,
    spec: NetworkSpec,
    precision: str = 'auto',
    size_wh: tuple[int, int] = (1242, 375),
    repeats: int = 10,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Benchmark:
    """Measure a student on the CPU on one random image of a KITTI-like camera.

    Args:
        student: in eval mode, with a head.
        spec: of it.
        precision: of the fast form, as `Detector`.
        size_wh: columns and rows of the image.
        repeats: measured runs of each form.
        progress: called with (runs done, of how many).

    Raises:
        ValueError: a student without head, or a precision that no CPU has.
    """
    if student.head is None or student.bev_backbone is None:
        raise ValueError('a stage-1 student has no head; benchmark a stage-2 student')
    if repeats < 1:
        raise ValueError(f'repeats = {repeats}: must be at least 1')
    inputs = _inputs(size_wh)
    fast, chosen = for_inference(student, _CPU, precision)
    dtype = DTYPES[chosen]
    gemm, copy = gemm_ceiling(dtype), copy_ceiling()
    reference = reference_form(student)
    runs: dict[str, list[dict[str, float]]] = {'reference': [], 'fast': []}
    memory = {}
    with torch.inference_mode():
        # The counter knows public operators only.
        countable = fast_form(student, packed=False, row_products=True)
        operations = _operations(student, inputs), _operations(countable, inputs)
        del countable
        traffic = _traffic(student, inputs, dtype.itemsize)
        for name, network in (('fast', fast), ('reference', reference)):
            network(*inputs)  # warm-up: packs weights, fills caches
            memory[name] = peak_growth_mb(partial(network, *inputs))
        for done in range(repeats):
            runs['reference'].append(_timed(reference, spec, inputs))
            runs['fast'].append(_timed(fast, spec, inputs))
            progress(done + 1, repeats)
    costs = []
    for key in (*STAGES.values(), 'boxes', 'whole'):
        flops, needed = (counted.get(key, 0.0) for counted in operations)
        megabytes = traffic.get(key, 0.0)
        floor = max(needed / gemm, megabytes / 1e3 / copy) * 1e3
        slow, quick = ([run[key] for run in runs[form]] for form in ('reference', 'fast'))
        costs.append(
            StageCost(
                key,
                flops,
                needed,
                megabytes,
                float(np.median(slow)),
                float(np.median(quick)),
                float(np.percentile(quick, 95)),
                floor,
            )  # fmt: skip
        )
    costs[-1] = replace(costs[-1], floor_ms=sum(cost.floor_ms for cost in costs[:-1]))
    return Benchmark(
        spec.name, chosen, size_wh, repeats, gemm, copy, memory['fast'], memory['reference'],
        costs, describe_machine(),
    )  # fmt: skip


def _inputs(size_wh: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    width, height = size_wh
    focal = _FX_OVER_WIDTH * width
    image_13HW = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    cam_to_img_134 = torch.tensor(
        [[[focal, 0, width / 2, 0], [0, focal, 0.46 * height, 0], [0, 0, 1, 0]]]
    )
    ref_to_cam_144 = torch.tensor(
        [[[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]]
    )
    return image_13HW, cam_to_img_134, ref_to_cam_144


def _timed(
    network: Student, spec: NetworkSpec, inputs: tuple[torch.Tensor, ...]
) -> dict[str, float]:
    """Milliseconds of every stage of one run."""
    found: dict[str, float] = {}
    begun: dict[str, float] = {}
    with _hooks(
        network,
        lambda name, _: begun.__setitem__(name, time.perf_counter()),
        lambda name, *_: found.__setitem__(name, 1e3 * (time.perf_counter() - begun[name])),
    ):
        begin = time.perf_counter()
        output = network(*inputs)
        middle = time.perf_counter()
        if network.head is not None:
            find_boxes(network.head, output.head, spec.post)
        end = time.perf_counter()
    return found | {'boxes': 1e3 * (end - middle), 'whole': 1e3 * (end - begin)}


@contextmanager
def _hooks(
    network: Student,
    before: Callable[[str, Any], None],
    after: Callable[[str, Any, Any, nn.Module], None],
) -> Iterator[None]:
    """Calls around every stage: before(stage, inputs), after(stage, inputs, output, module)."""
    handles = []
    for name, stage in STAGES.items():
        module = network.get_submodule(name)
        handles += [
            module.register_forward_pre_hook(lambda _, given, s=stage: before(s, given)),
            module.register_forward_hook(lambda m, given, out, s=stage: after(s, given, out, m)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operations(network: Student, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """1e9 operations of every stage, by counting."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    counts = counter.get_flop_counts()
    root = type(network).__name__
    found = {
        stage: sum(counts.get(f'{root}.{name}', {}).values()) / 1e9
        for name, stage in STAGES.items()
    }
    return found | {'whole': counter.get_total_flops() / 1e9}


def _traffic(
    network: Student, inputs: tuple[torch.Tensor, ...], bytes_each: int
) -> dict[str, float]:
    """Megabytes of weights, inputs and outputs of every stage."""
    found: dict[str, float] = {}

    def count(stage: str, given: Any, output: Any, module: nn.Module) -> None:
        elements = sum(p.numel() for p in module.parameters())
        elements += sum(t.numel() for t in _tensors((given, output)))
        found[stage] = elements * bytes_each / 1e6

    with _hooks(network, lambda *_: None, count):
        network(*inputs)
    return found


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, '__dict__'):
        yield from _tensors(list(vars(value).values()))
