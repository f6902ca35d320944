"""A student as an ONNX file for other engines: one graph for images of any size, of any camera."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.errors import FailedError, memory_shortage
from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.export_form import CameraInputs, ExportForm, camera_inputs
from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, HeadOutput
from cmkd_ros.model.student import Student

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
LARGEST_FILE = 2**31 - 2**20  # bytes: protobuf reads no file of 2 GiB
_SMALL = 256  # elements; smaller constants stay as they are
_FOCAL_OVER_WIDTH = 721.5377 / 1242


def export_onnx(
    student: Student,
    out: Path,
    precision: Literal['fp32', 'fp16'] = 'fp32',
    external_data: bool = False,
) -> Path:
    """Write a student as one ONNX file, replaced only when the new one is complete.

    Args:
        student: with a head, in eval mode.
        out: file to write.
        precision: how weights are stored; fp16 halves the file, and products stay in float32.
        external_data: weights in a file `<out>.data` beside it. Larger files than ONNX may be are
            split so in any case.

    Raises:
        ValueError: a student without head, or a weight beyond the range of fp16.
        ImportError: no onnx or onnxscript.
        OSError: the folder of `out` cannot be written.
        FailedError: torch cannot export it.
    """
    # First: refused in a moment, exported in a minute.
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_graph(onnx_model(student), out, precision, external_data)


def write_graph(
    model: ModelProto,
    out: Path,
    precision: Literal['fp32', 'fp16'] = 'fp32',
    external_data: bool = False,
) -> Path:
    """Write a graph of `onnx_model`, which fp16 changes in place; the rest as `export_onnx`."""
    import onnx

    if precision == 'fp16':
        _store_in_half(model, out)
    size = sum(len(entry.raw_data) for entry in model.graph.initializer)
    if not external_data and size <= LARGEST_FILE:
        write_bytes_atomically(out, model.SerializeToString())
        return out
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        written = Path(folder) / out.name
        data = f'{out.name}.data'
        onnx.save_model(
            model, str(written), save_as_external_data=True, location=data, size_threshold=1024
        )
        os.replace(written.with_name(data), out.with_name(data))
        os.replace(written, out)
    return out


def onnx_model(student: Student) -> ModelProto:
    """The graph of a student in memory, weights in float32.

    Raises:
        ValueError: a student without head.
        ImportError: no onnx or onnxscript.
        FailedError: torch cannot export it.
    """
    import onnx  # noqa: F401  (named by the error where it is missing)
    import onnxscript  # noqa: F401

    names = map_names(student)
    form = ExportForm(student).eval()
    image, *camera = random_frame(student, (416, 128), 0)
    inputs = (image, *camera_of(student, image, *camera))
    free = torch.export.Dim.DYNAMIC
    shapes = {  # in the order of the arguments
        'image_13HW': {2: free, 3: free},
        'pixels_Z4M': {2: free},
        'bins_Z42M': {3: free},
        'weights_Z42M': {3: free},
        'cells_YX': None,
    }
    talkers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [talker.level for talker in talkers]
    for talker in talkers:  # of every step, and of operators that nobody uses
        talker.setLevel(logging.ERROR)
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                form,
                inputs,
                dynamo=True,
                opset_version=OPSET,
                input_names=['image', *CameraInputs._fields],
                output_names=list(names),
                dynamic_shapes=shapes,
                verbose=False,
            )
    except RuntimeError as error:  # its errors are pages long, the reason is in the first line
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = memory_shortage(error) or lines[0]
        raise FailedError(f'torch cannot export this student: {reason}') from error
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
    if program is None:
        raise FailedError('torch cannot export this student: it returned no program')
    return program.model_proto


def camera_of(
    student: Student, image: torch.Tensor, cam_to_img_34: torch.Tensor, ref_to_cam_44: torch.Tensor
) -> CameraInputs:
    """The graph's camera inputs for images of that size."""
    height, width = image.shape[2:]
    stride = 8 * student.image_backbone.downscale
    like = torch.empty(0, -(-height // stride), -(-width // stride))
    indices = student.lift.indices(cam_to_img_34, ref_to_cam_44, (height, width), like)
    return camera_inputs(indices, student.lift.cells_xyz)


def head_output_type(student: Student) -> type[HeadOutput]:
    """What the student's head puts out.

    Raises:
        ValueError: a student without head.
    """
    match student.head:
        case AnchorHead():
            return AnchorHeadOutput
        case CenterHead():
            return CenterHeadOutput
        case _:
            raise ValueError('a stage-1 student has no head; export a stage-2 student')


def map_names(student: Student) -> tuple[str, ...]:
    """Outputs of the graph: the head's maps by their names, in order.

    Raises:
        ValueError: a student without head.
    """
    return tuple(entry.name for entry in fields(head_output_type(student)))


def random_frame(
    student: Student, size_wh: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random image, and a camera (cam_to_img_34, ref_to_cam_44) whose focal length and height
    vary with the seed."""
    width, height = size_wh
    generator = torch.Generator().manual_seed(seed)
    image_13HW = torch.rand(1, 3, height, width, generator=generator)
    vary = torch.rand(2, generator=generator).tolist() if seed else [0.5, 0.5]
    focal = _FOCAL_OVER_WIDTH * width * (0.9 + 0.2 * vary[0])
    cam_to_img_34 = torch.tensor(
        [[focal, 0, width / 2, 0], [0, focal, 0.46 * height, 0], [0, 0, 1, 0]]
    )
    ref_to_cam_44 = torch.tensor(
        [[0.0, -1, 0, 0], [0, 0, -1, -0.3 * vary[1]], [1, 0, 0, -0.27], [0, 0, 0, 1]]
    )
    return image_13HW, cam_to_img_34, ref_to_cam_44


def _store_in_half(model: ModelProto, out: Path) -> None:
    """Keep large float32 constants as float16, each with a cast behind it."""
    import onnx

    casts = []
    for entry in model.graph.initializer:
        values = onnx.numpy_helper.to_array(entry)
        if values.dtype != np.float32 or values.size < _SMALL:
            continue
        largest = float(np.abs(values).max())
        if largest > float(np.finfo(np.float16).max):
            raise ValueError(
                f'{out}: not written, weight {entry.name} holds {largest:g} and fp16 ends at 65504'
            )
        half = onnx.numpy_helper.from_array(values.astype(np.float16), f'{entry.name}_fp16')
        casts.append(
            onnx.helper.make_node('Cast', [half.name], [entry.name], to=onnx.TensorProto.FLOAT)
        )
        entry.CopyFrom(half)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
