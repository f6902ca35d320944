"""A student as an ONNX file, and proof that other engines compute the same from it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.export_form import CameraInputs, ExportForm, camera_inputs
from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.export')
OPSET = 20
FP32_LIMIT = 1e-4  # relative root mean square of every head map against the plain student
_FOCAL_OVER_WIDTH = 721.5377 / 1242
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class EngineParity:
    """Largest relative root mean square deviation of each head map over all frames."""

    engine: str
    deviations: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether every map is within FP32_LIMIT."""
        return all(value <= FP32_LIMIT for value in self.deviations.values())


def export_onnx(student: Student, out: Path, size_wh: tuple[int, int]) -> Path:
    """Write a student as one ONNX file with its weights inside.

    Args:
        student: with a head, in eval mode.
        out: file to write, replaced only when the new one is complete.
        size_wh: columns and rows of the images; part of the graph. The camera is not.

    Raises:
        ValueError: a student without head.
        ImportError: no onnx or onnxscript.
    """
    import onnx  # noqa: F401  (named by the error where it is missing)
    import onnxscript  # noqa: F401

    names = map_names(student)
    form = ExportForm(student).eval()
    image, *camera = _frame(student, size_wh, 0)
    inputs = (image, *camera_of(student, image, *camera))
    seen = torch.export.Dim('cells_seen', min=2)
    shapes = {  # in the order of the arguments
        'image_13HW': None,
        'pixels_Z4M': {2: seen},
        'bins_Z42M': {3: seen},
        'weights_Z42M': {3: seen},
        'cells_YX': None,
    }
    with torch.no_grad():
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
    if program is None:
        raise RuntimeError('torch.onnx.export returned no program')
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        written = Path(folder) / out.name
        program.save(str(written), external_data=False)
        os.replace(written, out)
    return out


def camera_of(
    student: Student, image: torch.Tensor, cam_to_img_34: torch.Tensor, ref_to_cam_44: torch.Tensor
) -> CameraInputs:
    """The graph's camera inputs for images of that size."""
    height, width = image.shape[2:]
    stride = 8 * student.image_backbone.downscale
    like = torch.empty(0, -(-height // stride), -(-width // stride))
    indices = student.lift.indices(cam_to_img_34, ref_to_cam_44, (height, width), like)
    n_x, n_y, n_z = student.lift.cells_xyz
    return camera_inputs(indices, (n_x, n_y, n_z))


def check_engines(
    student: Student, file: Path, size_wh: tuple[int, int], frames: int = 5
) -> list[EngineParity]:
    """Run the file in every engine that is installed, on random frames of as many cameras.

    Returns:
        One entry per engine; none when neither onnxruntime nor openvino is installed.
    """
    found = []
    for engine, open_engine in (('onnxruntime', _onnxruntime), ('openvino', _openvino)):
        try:
            run = open_engine(file)
        except ImportError:
            LOG.info('%s is not installed: not compared', engine)
            continue
        worst: dict[str, float] = {}
        for seed in range(frames):
            image, cam_to_img, ref_to_cam = _frame(student, size_wh, seed)
            with torch.inference_mode():
                head = student(image, cam_to_img[None], ref_to_cam[None]).head
            camera = camera_of(student, image, cam_to_img, ref_to_cam)
            maps = run([tensor.numpy() for tensor in (image, *camera)])
            for (name, wanted), got in zip(vars(head).items(), maps, strict=True):
                gap = np.linalg.norm(got - wanted.numpy()) / np.linalg.norm(wanted.numpy())
                worst[name] = max(worst.get(name, 0.0), float(gap))
        found.append(EngineParity(engine, worst))
    return found


def _onnxruntime(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    names = [given.name for given in session.get_inputs()]
    return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


def _openvino(file: Path) -> Run:
    import openvino

    # Where the CPU has bf16, openvino takes it unless told otherwise.
    compiled = openvino.Core().compile_model(str(file), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda arrays: [np.array(value) for value in compiled(list(arrays)).values()]


def map_names(student: Student) -> tuple[str, ...]:
    """Outputs of the graph: the head's maps by their names, in order.

    Raises:
        ValueError: a student without head.
    """
    match student.head:
        case AnchorHead():
            kind: type = AnchorHeadOutput
        case CenterHead():
            kind = CenterHeadOutput
        case _:
            raise ValueError('a stage-1 student has no head; export a stage-2 student')
    return tuple(entry.name for entry in fields(kind))


def _frame(
    student: Student, size_wh: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A random image, and a camera whose focal length and height vary with the seed."""
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
