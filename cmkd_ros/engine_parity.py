"""Proof that a graph file computes what its student does, in every engine that is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cmkd_ros.engines import ENGINES
from cmkd_ros.export import random_frame
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.export')
LIMITS = {'fp32': 1e-4, 'fp16': 3e-2}  # of every head map, by how the weights are stored


@dataclass(frozen=True)
class EngineParity:
    """Largest relative root mean square deviation of each head map over all frames."""

    engine: str
    deviations: dict[str, float]

    def passed(self, precision: str = 'fp32') -> bool:
        """Whether every map is within the limit of weights stored so."""
        return all(value <= LIMITS[precision] for value in self.deviations.values())


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
        RuntimeError: an engine does not open the file.
    """
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
