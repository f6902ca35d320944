"""Proof that a graph file computes what its student does, in every engine that is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.engines import ENGINES
from cmkd_ros.export import export_onnx, random_frame
from cmkd_ros.graph_cache import graph_of
from cmkd_ros.model.precision import FP32_LIMIT
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.export')
LIMITS = {'fp32': FP32_LIMIT, 'fp16': 3e-2}  # of every head map, by how the weights are stored


@dataclass(frozen=True)
class EngineParity:
    """Largest relative root mean square deviation of each head map over all frames."""

    engine: str
    deviations: dict[str, float]

    def passed(self, precision: str = 'fp32') -> bool:
        """Whether every map is within the limit of weights stored so."""
        return all(value <= LIMITS[precision] for value in self.deviations.values())


@dataclass(frozen=True)
class ComparedGraph:
    """A graph file, how its weights are stored, and how near it is to its student."""

    file: Path
    precision: str
    engines: list[EngineParity]

    def lines(self) -> list[str]:
        """Size of the file, then a line per engine and map."""
        lines = [f'{self.file}: {self.file.stat().st_size / 1e6:.1f} MB']
        for found in self.engines:
            for name, deviation in found.deviations.items():
                lines.append(f'{found.engine:<12} {name:<12} {deviation:.1e}')
        if not self.engines:
            lines.append('not compared: neither onnxruntime nor openvino is installed')
        return lines

    def check(self) -> None:
        """Refuse a graph that an engine computes something else from.

        Raises:
            ValueError: names the engines.
        """
        failed = [found.engine for found in self.engines if not found.passed(self.precision)]
        if failed:
            raise ValueError(
                f'{self.file}: {", ".join(failed)} computes other maps than the student, by more '
                f'than {LIMITS[self.precision]:.0e}; do not use it there'
            )


def export_compared(
    model: Path,
    out: Path | None,
    precision: Literal['fp32', 'fp16'],
    external_data: bool,
    size_wh: tuple[int, int],
    frames: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> ComparedGraph:
    """Export a bundle's student and compare the file as `check_engines` does.

    Args:
        model: bundle.
        out: file to write; None: the file that a detector of this model looks for, written if it
            is not there.
        precision, external_data: as `export_onnx`; of a file that is named.
        size_wh, frames, progress: as `check_engines`.

    Raises:
        ValueError, OSError, ImportError, FailedError: as `load_bundle`, `export_onnx`.
    """
    if out is None and (precision != 'fp32' or external_data):
        raise ValueError('--precision and --external-data are of a file: name it by --onnx')
    student = load_bundle(model).build().eval()
    file = export_onnx(student, out, precision, external_data) if out else graph_of(student)
    return ComparedGraph(file, precision, check_engines(student, file, size_wh, frames, progress))


def check_engines(
    student: Student,
    file: Path,
    size_wh: tuple[int, int],
    frames: int = 5,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[EngineParity]:
    """Run the file in every engine that is installed, on random frames of as many cameras.

    Args:
        student: that was exported.
        file: of `export_onnx`.
        size_wh: columns and rows of the frames.
        frames: how many.
        progress: called with (frames done, of how many).

    Returns:
        One entry per engine; none when neither onnxruntime nor openvino is installed.

    Raises:
        ValueError: no frame.
        FailedError: an engine does not open or run the file.
    """
    if frames < 1:
        raise ValueError(f'{frames} frames to compare: expected 1 or more')
    engines = {}
    for name, kind in ENGINES.items():
        if importlib.util.find_spec(name) is None:
            LOG.info('%s is not installed: not compared', name)
        else:
            engines[name] = kind(student, file)
    worst: dict[str, dict[str, float]] = {name: {} for name in engines}
    for seed in range(frames if engines else 0):
        image, cam_to_img, ref_to_cam = random_frame(student, size_wh, seed)
        inputs = (image, cam_to_img[None], ref_to_cam[None])
        with torch.inference_mode():
            expected = vars(student(*inputs).head)
        for name, engine in engines.items():
            for key, got in vars(engine(*inputs).head).items():
                gap = ((got - expected[key]).norm() / expected[key].norm()).item()
                worst[name][key] = max(worst[name].get(key, 0.0), gap)
        progress(seed + 1, frames)
    return [EngineParity(name, deviations) for name, deviations in worst.items()]
