"""A student's graph with products in int8, for OpenVINO.

Scales come from what the network computes on pictures of the user's own. What boxes are read from
stays in floating point: the last convolution of the depth head and those of the detection head.
What int8 costs in AP is written into the file, and read from it by whoever opens it.
"""

from __future__ import annotations

import logging
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.errors import FailedError, last_line, memory_shortage

if TYPE_CHECKING:
    import openvino

_GRAPH, _WEIGHTS = 'graph.xml', 'graph.bin'
_COST = ['cmkd', 'cost']  # where the graph holds what int8 costs


def require_quantiser() -> None:
    """Load what quantises; a frame is quantised minutes later.

    Raises:
        ImportError: no openvino or nncf, or one that cannot be loaded.
    """
    import nncf  # noqa: F401
    import openvino  # noqa: F401


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
        FailedError: nncf or openvino refuses the graph, or fails over it.
        OSError, ValueError: those of `inputs_of`.
    """
    import nncf
    import openvino

    logging.getLogger('nncf').setLevel(logging.WARNING)
    try:
        model = openvino.Core().read_model(str(graph))
        return nncf.quantize(
            model,
            nncf.Dataset(list(frames), lambda frame: dict(inputs_of(frame))),
            subset_size=len(frames),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=last_convolutions(model)),
        )
    except (ImportError, OSError, ValueError):
        raise
    except Exception as error:  # nncf and OpenVINO have errors of their own
        if memory_shortage(error):
            raise
        raise FailedError(f'nncf does not quantise {graph}: {last_line(error)}') from error


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
    """Write a quantised graph and its weights as one archive, so that neither is ever without the
    other; replaced only when the new one is complete.

    Args:
        model: of `quantise`.
        out: file to write.
        cost: one sentence on what int8 costs this student.

    Raises:
        OSError: the folder of `out` cannot be written.
        FailedError: OpenVINO cannot write there.
    """
    import openvino

    model.set_rt_info(cost, _COST)
    out.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        try:
            openvino.save_model(model, str(Path(folder) / _GRAPH), compress_to_fp16=False)
        except Exception as error:  # OpenVINO's own, as on a disk that is full
            raise FailedError(f'openvino does not write {out}: {last_line(error)}') from error
        with zipfile.ZipFile(content, 'w') as archive:
            for name in (_GRAPH, _WEIGHTS):
                archive.write(Path(folder) / name, name)
    write_bytes_atomically(out, content.getvalue())
    return out


def read_int8(core: openvino.Core, file: Path) -> openvino.Model:
    """Read what `save_int8` wrote.

    Raises:
        zipfile.BadZipFile, KeyError: cut short, or changed since.
    """
    import openvino

    with zipfile.ZipFile(file) as archive:  # which compares both parts with their checksums
        graph, weights = archive.read(_GRAPH), archive.read(_WEIGHTS)
    return core.read_model(graph, openvino.Tensor(np.frombuffer(weights, np.uint8)))


def cost_of(model: openvino.Model) -> str:
    """What int8 costs the student of this graph, as `save_int8` wrote it; empty: not known."""
    return str(model.get_rt_info(_COST).value) if model.has_rt_info(_COST) else ''
