"""Which engine runs a student on this machine, decided once and told in one line."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass

import torch

from cmkd_ros.engines import ENGINES, Engine, OpenVinoEngine
from cmkd_ros.graph_cache import cached_graph, graph_of, int8_graph
from cmkd_ros.model.cpu_features import cpu_multiplies_bf16
from cmkd_ros.model.precision import (
    BF16_LIMIT,
    Network,
    check_precision,
    for_inference,
    head_deviation,
)
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.backend')
BACKENDS = ('auto', 'torch', 'openvino', 'onnxruntime')
FP32_LIMIT = 1e-4  # `head_deviation` of an engine that computes in fp32
INT8_LIMIT = 1.0  # of one that computes in int8: finds damage; quality is the AP in its file


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
    whose graph was exported before (`cmkd export`), and that passes; else torch, and one log line
    says why.

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
            return open_engine(student, precision, backend, exports=True)
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise ValueError(
                f'backend {backend} cannot be used: {_reason(error)}; torch works without it'
            ) from error
    reasons = []
    if backend == 'auto' and device.type == 'cpu':
        for name, kind in ENGINES.items():
            if _wants_bf16(precision) and 'bf16' not in kind.precisions:
                reasons.append(f'{name} has no bf16, which this CPU multiplies')
                continue
            try:
                return open_engine(student, precision, name, exports=False)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                reasons.append(_reason(error))
        LOG.info('backend auto: torch, because %s', ', and '.join(dict.fromkeys(reasons)))
    return Chosen(*for_inference(student, device, precision), 'torch')


def open_engine(student: Student, precision: str, name: str, exports: bool) -> Chosen:
    """One engine after its check against the student on one frame.

    Args:
        student: as in `for_backend`, on the CPU.
        precision: as in `for_backend`.
        name: of ENGINES.
        exports: whether to export the graph if it is not in the cache.

    Raises:
        ImportError, OSError, FailedError, ValueError: it cannot be used; says why.
    """
    _require(name)
    graph = graph_of(student) if exports else cached_graph(student)
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
    return ' '.join(str(error).split())
