"""What a student costs on this machine: stage by stage, beside its reference form and the floor.

All forms take turns, so that they meet the same load; ratios of one run are what counts on a
machine that does other work. The floor of a stage is what its multiplications need at the
measured rate of a large matrix product, or its weights, input and output at the measured rate of
a copy, whichever is longer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmkd_ros.ceilings import (
    Rates,
    copy_ceiling,
    describe_machine,
    gemm_ceiling,
    peak_growth_mb,
)
from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.detector import Detector
from cmkd_ros.engines import ENGINES
from cmkd_ros.geometry import CameraModel
from cmkd_ros.model.cuda_conv import cuda_arithmetic
from cmkd_ros.model.cuda_form import DTYPES
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.post import Head
from cmkd_ros.model.precision import for_inference
from cmkd_ros.model.reference_form import reference_form
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student
from cmkd_ros.stage_times import Form, Times, time_forms
from cmkd_ros.stage_work import STAGES, StageWork, count_work

_FX_OVER_WIDTH = 721.5377 / 1242  # KITTI's field of view


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
class WholeCost:
    """One way to run all of the network, from image tensor to boxes; milliseconds.

    Attributes:
        name: 'reference', 'fast', of the engine; or 'detector': what it runs, from uint8 picture to
            boxes.
        precision: that it computes in.
        ms, p95_ms: median and 95th percentile.
        floor_ms: what this machine needs at least in that precision; None: not known, as for int8.
    """

    name: str
    precision: str
    ms: float
    p95_ms: float
    floor_ms: float | None


@dataclass(frozen=True)
class Benchmark:
    """Everything one run measured; `stages` ends with the whole, image tensor to boxes.

    Times, operations and memory are those of `batch` images at once.
    """

    student: str
    precision: str
    size_wh: tuple[int, int]
    repeats: int
    gemm_gflops: float
    copy_gb_s: float
    activation_mb: float | None
    reference_activation_mb: float | None
    stages: list[StageCost]
    whole: list[WholeCost]
    device: str = 'cpu'
    batch: int = 1
    machine: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; every stage, and every way to run the whole, also with its ratios."""
        data = asdict(self)
        for stage, cost in zip(data['stages'], self.stages, strict=True):
            stage['speed_up'] = cost.speed_up
            stage['over_floor'] = cost.fast_ms / cost.floor_ms if cost.floor_ms else None
        for way, whole in zip(data['whole'], self.whole, strict=True):
            way['speed_up'] = self.whole[0].ms / whole.ms
            way['over_floor'] = whole.ms / whole.floor_ms if whole.floor_ms else None
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
    backend: str = 'torch',
    device: str = 'cpu',
    batch: int = 1,
) -> Benchmark:
    """Measure a student on random images of a KITTI-like camera.

    Args:
        student: in eval mode, with a head; moved to the device.
        spec: of it.
        precision: of the fast form and of the backend, as `Detector`.
        size_wh: columns and rows of the images.
        repeats: measured runs of each form.
        progress: called with (runs done, of how many).
        backend: 'torch' or an engine, whose whole is measured beside the two forms. Its graph is
            exported if need be.
        device: as `Detector`.
        batch: images at once; engines take one.

    Raises:
        ValueError: a student without head, a precision or device that is not there, or an engine
            that cannot be used.
    """
    head = _head_to_measure(student, repeats, backend, batch)
    detector = Detector(student, spec.classes, spec.post, 0.0, device, precision, backend)
    place = detector.device
    forms = _forms(student, detector)
    plain = student if place.type == 'cpu' else copy.deepcopy(student).cpu()
    work = {
        name: of_one.of_batch(batch)
        for name, of_one in count_work(plain, _inputs(size_wh, 1)).items()
    }
    inputs = tuple(tensor.to(place) for tensor in _inputs(size_wh, batch))
    with forms[1].arithmetic():
        rates = _rates({form.precision for form in forms}, place)
    memory = [_memory_mb(form, inputs) for form in reversed(forms)][::-1]
    # An engine, or the graph of a GPU: also timed as its users run it, from picture to boxes.
    in_stages = isinstance(detector.network, Student) and place.type == 'cpu'
    whole = partial(detector, *random_picture(size_wh)) if batch == 1 and not in_stages else None
    if whole:
        whole()
    times = time_forms(forms, head, spec.post, inputs, repeats, progress, whole)
    named = [(form.name, form.precision) for form in forms]
    named += [('detector', detector.precision)] if whole else []
    return Benchmark(
        student=spec.name,
        precision=forms[1].precision,
        size_wh=size_wh,
        repeats=repeats,
        gemm_gflops=rates[forms[1].precision].gemm_gflops,
        copy_gb_s=rates[forms[1].precision].copy_gb_s,
        activation_mb=memory[1],
        reference_activation_mb=memory[0],
        stages=_stage_costs(work, times[0], times[1], rates[forms[1].precision]),
        whole=[
            _whole_cost(name, precision, found['whole'], work, rates.get(precision))
            for (name, precision), found in zip(named, times, strict=True)
        ],
        device=str(place),
        batch=batch,
        machine=describe_machine(place),
    )


def _head_to_measure(student: Student, repeats: int, backend: str, batch: int) -> Head:
    """What decodes; or ValueError for what cannot be measured."""
    if student.head is None or student.bev_backbone is None:
        raise ValueError('a stage-1 student has no head; benchmark a stage-2 student')
    for name, count in (('repeats', repeats), ('batch', batch)):
        if count < 1:
            raise ValueError(f'{name} = {count}: must be at least 1')
    if backend in ENGINES and batch > 1:
        raise ValueError(f'{backend} takes one image at a time, not {batch}')
    return student.head


def _forms(student: Student, detector: Detector) -> list[Form]:
    """The reference form, the fast form, and what the detector runs if that is another."""
    device, network, precision = detector.device, detector.network, detector.precision
    reference = Form('reference', reference_form(student), 'fp32', device)
    if isinstance(network, CudaStudent):  # stages are those of its form, before the graph
        return [reference, Form('fast', network.form.fast, precision, device, cuda_arithmetic)]
    if device.type == 'cuda':
        return [reference, Form('fast', student, precision, device, detector.arithmetic)]
    if isinstance(network, Student):
        return [reference, Form('fast', network, precision, device)]
    asked = 'fp32' if precision == 'int8' else precision
    fast = Form('fast', *for_inference(student, device, asked), device)
    return [reference, fast, Form(detector.backend, network, precision, device)]


def _rates(precisions: Iterable[str], device: torch.device) -> dict[str, Rates]:
    """Of those precisions that are types of torch's products."""
    copied = copy_ceiling(device)
    return {
        precision: Rates(gemm_ceiling(dtype, device), copied, dtype.itemsize)
        for precision, dtype in DTYPES.items()
        if precision in precisions
    }


@torch.inference_mode()
def _memory_mb(form: Form, inputs: tuple[torch.Tensor, ...]) -> float | None:
    form.run(inputs)  # packs weights, fills caches
    return peak_growth_mb(partial(form.run, inputs), form.device)


def _stage_costs(
    work: Mapping[str, StageWork], reference: Times, fast: Times, rates: Rates
) -> list[StageCost]:
    costs = []
    for name in (*STAGES.values(), 'boxes', 'whole'):
        has = work.get(name, StageWork())
        costs.append(
            StageCost(
                name,
                has.gflop,
                has.needed_gflop,
                has.numbers * rates.bytes_each / 1e6,
                float(np.median(reference[name])),
                float(np.median(fast[name])),
                float(np.percentile(fast[name], 95)),
                rates.floor_ms(has.needed_gflop, has.numbers),
            )  # fmt: skip
        )
    return [*costs[:-1], replace(costs[-1], floor_ms=_floor_ms(work, rates))]


def _whole_cost(
    name: str,
    precision: str,
    times_ms: Sequence[float],
    work: Mapping[str, StageWork],
    rates: Rates | None,
) -> WholeCost:
    middle, late = float(np.median(times_ms)), float(np.percentile(times_ms, 95))
    floor = _floor_ms(work, rates) if rates else None
    return WholeCost(name, precision, middle, late, floor)


def _floor_ms(work: Mapping[str, StageWork], rates: Rates) -> float:
    return sum(
        rates.floor_ms(work[name].needed_gflop, work[name].numbers) for name in STAGES.values()
    )


def _inputs(size_wh: tuple[int, int], batch: int) -> tuple[torch.Tensor, ...]:
    width, height = size_wh
    focal = _FX_OVER_WIDTH * width
    image_B3HW = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    cam_to_img_34 = torch.tensor(
        [[focal, 0, width / 2, 0], [0, focal, 0.46 * height, 0], [0, 0, 1, 0]]
    )
    ref_to_cam_44 = torch.tensor(
        [[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]
    )
    return image_B3HW, cam_to_img_34.repeat(batch, 1, 1), ref_to_cam_44.repeat(batch, 1, 1)


def random_picture(size_wh: tuple[int, int]) -> tuple[np.ndarray, CameraModel, np.ndarray]:
    """A random picture of a KITTI-like camera, that camera and its pose, as a detector takes it."""
    image_13HW, cam_to_img_134, ref_to_cam_144 = _inputs(size_wh, 1)
    image_HW3 = (255 * image_13HW[0].permute(1, 2, 0)).to(torch.uint8).contiguous().numpy()
    camera = CameraModel.from_projection(cam_to_img_134[0].numpy(), *size_wh)
    return image_HW3, camera, ref_to_cam_144[0].double().numpy()
