"""Which engine runs a student on this machine, decided once and told in one line."""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from cmkd_ros.engines import ENGINES, Engine, OpenVinoEngine
from cmkd_ros.errors import memory_shortage
from cmkd_ros.graph_cache import cached_graph, graph_of, int8_graph
from cmkd_ros.model.cpu_features import cpu_multiplies_bf16
from cmkd_ros.model.cuda_choice import for_cuda
from cmkd_ros.model.precision import (
    BF16_LIMIT,
    FP32_LIMIT,
    Network,
    check_frame,
    check_precision,
    for_inference,
    head_deviation,
)
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.backend')
BACKENDS = ('auto', 'torch', 'openvino', 'onnxruntime')
INT8_LIMIT = 1.0  # `head_deviation` of int8: finds damage; quality is the AP in its file
_TIMED_RUNS = 2
_REFUSALS = (ImportError, MemoryError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Chosen:
    """What runs.

    Attributes:
        network: called like a student; its output has `head`.
        precision: that it computes in.
        backend: 'torch', 'openvino' or 'onnxruntime'.
    """

    network: Network
    precision: str
    backend: str


def for_backend(
    student: Student, device: torch.device, precision: str = 'fp32', backend: str = 'torch'
) -> Chosen:
    """The form of a student that an engine runs.

    An engine named outright exports the student's graph if need be and must compute what the
    student does on one frame. 'auto' is the first of openvino and onnxruntime that is installed,
    whose graph was exported before (`cmkd export`), and that passes, unless torch computes a test
    frame sooner; else torch. One log line says why.

    Args:
        student: with a head, in eval mode, on `device`.
        device: where it runs.
        precision: as `for_inference`; an engine without bf16 computes in fp32 then. 'int8' runs
            where openvino is named, and after `cmkd export --precision int8` only.
        backend: one of BACKENDS.

    Raises:
        ValueError: an unknown backend or precision; or the engine that was named is missing, too
            old, refuses the graph, computes something else, or is asked to run on a GPU.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend '{backend}': expected one of {', '.join(BACKENDS)}")
    if not (precision == 'int8' and backend == OpenVinoEngine.name):
        check_precision(precision, device)
    if backend in ENGINES:
        if device.type != 'cpu':
            raise ValueError(
                f'backend {backend} runs on the CPU, not on {device}: choose device cpu, or '
                'backend torch'
            )
        try:
            if precision == 'int8':
                return open_int8(student)
            return open_engine(student, precision, backend, lambda: graph_of(student))
        except _REFUSALS as error:
            raise ValueError(
                f'backend {backend} cannot be used: {_reason(error)}; torch works without it'
            ) from error
    reasons = []
    if backend == 'auto' and device.type == 'cpu':
        graph = cache(lambda: cached_graph(student))  # the weights are hashed once for all engines
        for name, kind in ENGINES.items():
            if _wants_bf16(precision) and 'bf16' not in kind.precisions:
                reasons.append(f'{name} has no bf16, which this CPU multiplies')
                continue
            try:
                engine = open_engine(student, precision, name, graph)
            except _REFUSALS as error:
                reasons.append(_reason(error))
                continue
            return _sooner(engine, Chosen(*for_inference(student, device, precision), 'torch'))
        LOG.info('backend auto: torch, because %s', ', and '.join(dict.fromkeys(reasons)))
    if device.type == 'cuda':
        return Chosen(*for_cuda(student, device, precision), 'torch')
    return Chosen(*for_inference(student, device, precision), 'torch')


def open_engine(
    student: Student, precision: str, name: str, graph_file: Callable[[], Path]
) -> Chosen:
    """One engine after its check against the student on one frame.

    Args:
        student: as in `for_backend`, on the CPU.
        precision: as in `for_backend`.
        name: of ENGINES.
        graph_file: called, if the engine is installed, for the file that holds the graph.

    Raises:
        ImportError, OSError, FailedError, ValueError: it cannot be used; says why.
    """
    _require(name)
    graph = graph_file()
    if not graph.is_file():
        raise FileNotFoundError(
            f'{name} has no graph of this model yet (once: `cmkd export --model FILE`)'
        )
    kind = ENGINES[name]
    if _wants_bf16(precision) and 'bf16' in kind.precisions:
        reduced = kind(student, graph, 'bf16')
        error = head_deviation(reduced, student)
        if error <= BF16_LIMIT:
            return Chosen(reduced, 'bf16', name)
        LOG.info('%s computes in fp32: bf16 changes a head map by %s', name, f'{error:.1%}')
    return Chosen(_checked(kind(student, graph), student), 'fp32', name)


def _sooner(engine: Chosen, torch_form: Chosen) -> Chosen:
    """What computes the test frame in less time; one log line tells both."""
    of_engine, of_torch = seconds_of((engine.network, torch_form.network))
    sooner = engine if of_engine <= of_torch else torch_form
    LOG.info(
        'backend auto: %s in %s, a test frame takes %.0f ms by %s and %.0f ms by torch',
        sooner.backend, sooner.precision, 1e3 * of_engine, engine.backend, 1e3 * of_torch,
    )  # fmt: skip
    return sooner


@torch.inference_mode()
def seconds_of(networks: Sequence[Network]) -> list[float]:
    """The least time that each network took for the test frame, in turns, after one to warm up."""
    frame = check_frame()
    taken: list[list[float]] = [[] for _ in networks]
    for _ in range(1 + _TIMED_RUNS):
        for network, times in zip(networks, taken, strict=True):
            begin = time.perf_counter()
            network(*frame)
            times.append(time.perf_counter() - begin)
    return [min(times[1:]) for times in taken]


def open_int8(student: Student) -> Chosen:
    """OpenVINO with the int8 graph of a student; one log line tells what that costs.

    Raises:
        ImportError, OSError, FailedError, ValueError: it cannot be used; says why.
    """
    _require(OpenVinoEngine.name)
    graph = int8_graph(student)
    if not graph.is_file():
        raise FileNotFoundError(
            'this model has no int8 graph yet (once: `cmkd export --model FILE --precision int8 '
            '--data KITTI_FOLDER`)'
        )
    engine = OpenVinoEngine(student, graph, 'int8')
    LOG.info('int8: %s', engine.cost)
    return Chosen(_checked(engine, student, INT8_LIMIT), 'int8', engine.name)


def _require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise ImportError(f'{name} is not installed', name=name)


def _wants_bf16(precision: str) -> bool:
    return precision in ('auto', 'bf16') and cpu_multiplies_bf16()


def _checked(engine: Engine, student: Student, limit: float = FP32_LIMIT) -> Engine:
    error = head_deviation(engine, student)
    if error > limit:
        raise ValueError(
            f'{engine.name} computes other head maps than the student, by {error:.1e} where '
            f'{limit:.0e} is allowed'
        )
    return engine


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"the module '{error.name}' is not installed"
    return memory_shortage(error) or ' '.join(str(error).split()) or type(error).__name__
