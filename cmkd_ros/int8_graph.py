"""A student's graph with products in int8, for OpenVINO.

Scales come from what the network computes on pictures of the user's own. What boxes are read from
stays in floating point: the last convolution of the depth head and those of the detection head.
What int8 costs in AP is written into the file, and read from it by whoever opens it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_COST = ['cmkd', 'cost']  # where the file holds what int8 costs


def quantise(
    graph: Path, frames: Sequence[int], inputs_of: Callable[[int], Mapping[str, np.ndarray]]
) -> openvino.Model:
    """The graph with int8 products, weights by channel.

    Args:
        graph: of `export_onnx`, in fp32.
        frames: numbers of the calibration frames.
        inputs_of: the graph's inputs of one of them, by name.

    Raises:
        ImportError: no openvino or nncf.
    """
    import nncf
    import openvino

    logging.getLogger('nncf').setLevel(logging.WARNING)
    model = openvino.Core().read_model(str(graph))
    return nncf.quantize(
        model,
        nncf.Dataset(list(frames), lambda frame: dict(inputs_of(frame))),
        subset_size=len(frames),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=last_convolutions(model)),
    )


def last_convolutions(model: openvino.Model) -> list[str]:
    """Names of the convolutions that put out the head maps and the depth distribution."""
    ends = [op for op in model.get_ordered_ops() if op.get_type_name() in ('Result', 'Softmax')]
    names = []
    for node in ends:
        while node.get_input_size() and node.get_type_name() != 'Convolution':
            node = node.input_value(0).get_node()
        if node.get_type_name() == 'Convolution':
            names.append(node.get_friendly_name())
    return names


def save_int8(model: openvino.Model, out: Path, cost: str) -> Path:
    """Write a quantised graph as OpenVINO's pair of files, `out` and its weights beside it.

    Args:
        model: of `quantise`.
        out: ends in .xml.
        cost: one sentence on what int8 costs this student.

    Raises:
        OSError: the folder of `out` cannot be written.
    """
    import openvino

    model.set_rt_info(cost, _COST)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        written = Path(folder) / out.name
        openvino.save_model(model, str(written), compress_to_fp16=False)
        os.replace(written.with_suffix('.bin'), out.with_suffix('.bin'))
        os.replace(written, out)
    return out


def cost_of(model: openvino.Model) -> str:
    """What int8 costs the student of this graph, as `save_int8` wrote it; empty: not known."""
    return str(model.get_rt_info(_COST).value) if model.has_rt_info(_COST) else ''
