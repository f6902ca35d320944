"""Other engines than torch: each runs a student's exported graph, called like the student.

An engine is wanted only where somebody asks for it, so each is imported when it is opened. Graphs
take images of any size; where a camera's voxels look is computed here and given to the graph.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cmkd_ros.errors import FailedError, last_line
from cmkd_ros.export import head_output_type
from cmkd_ros.int8_graph import cost_of, read_int8
from cmkd_ros.model.export_form import CameraInputs, camera_inputs
from cmkd_ros.model.lift_indices import LiftIndices
from cmkd_ros.model.outputs import HeadOutput
from cmkd_ros.model.student import Student


@dataclass(frozen=True)
class EngineOutput:
    """What an engine computes: the raw head maps, float32 on the CPU."""

    head: HeadOutput


class Engine(ABC):
    """A student's graph in one engine on the CPU. Outputs are valid until the next call."""

    name: str
    precisions: tuple[str, ...] = ('fp32',)

    def __init__(self, student: Student, graph: Path, precision: str = 'fp32') -> None:
        """Open a graph.

        Args:
            student: that was exported; only what says where voxels look is kept of it.
            graph: file of `export_onnx`; for int8 of `save_int8`.
            precision: one of `precisions`.

        Raises:
            ModuleNotFoundError: the engine is not installed.
            ValueError: a precision that the engine does not have.
            FailedError: the engine cannot be loaded, is too old for the graph, or refuses an
                operator of it.
        """
        if precision not in self.precisions:
            raise ValueError(
                f'{self.name} computes in {" or ".join(self.precisions)}, not in {precision}'
            )
        self._lift = student.lift
        self._stride = 8 * student.image_backbone.downscale
        self._output = head_output_type(student)
        self._camera: tuple[LiftIndices, list[np.ndarray]] | None = None
        try:
            self._open(graph, precision)
        except ImportError as error:
            if isinstance(error, ModuleNotFoundError) and error.name == self.name:
                raise
            raise FailedError(
                f'{self.name} is installed but cannot be loaded: {last_line(error)}'
            ) from error
        except AttributeError as error:
            raise FailedError(f'{self.name} is too old: {last_line(error)}') from error
        except Exception as error:  # every engine has errors of its own
            raise FailedError(f'{self.name} does not open {graph}: {last_line(error)}') from error

    def __call__(
        self,
        image_13HW: torch.Tensor,
        cam_to_img_134: torch.Tensor,
        ref_to_cam_144: torch.Tensor,
    ) -> EngineOutput:
        """Head maps of one image; arguments as of `Student.forward`, batch 1.

        Raises:
            ValueError: more than one image.
            FailedError: the engine does not run, as where memory is short.
        """
        if len(image_13HW) != 1:
            raise ValueError(f'{self.name} takes one image at a time, found {len(image_13HW)}')
        height, width = image_13HW.shape[2:]
        like = torch.empty(0, -(-height // self._stride), -(-width // self._stride))
        indices = self._lift.indices(cam_to_img_134[0], ref_to_cam_144[0], (height, width), like)
        try:
            if self._camera is None or self._camera[0] is not indices:
                inputs = camera_inputs(indices, self._lift.cells_xyz)
                self._camera = (indices, [tensor.numpy() for tensor in inputs])
                self._take_camera(self._camera[1])
            maps = self._run(np.ascontiguousarray(image_13HW.numpy()))
        except Exception as error:  # those of onnxruntime are no RuntimeError
            self._camera = None
            raise FailedError(f'{self.name} does not run: {last_line(error)}') from error
        return EngineOutput(self._output(*(torch.from_numpy(values) for values in maps)))

    @abstractmethod
    def _open(self, graph: Path, precision: str) -> None: ...

    @abstractmethod
    def _take_camera(self, arrays: Sequence[np.ndarray]) -> None:
        """Use these camera inputs from now on."""

    @abstractmethod
    def _run(self, image_13HW: np.ndarray) -> list[np.ndarray]: ...


class OpenVinoEngine(Engine):
    """OpenVINO, in as many threads as torch has.

    Attributes:
        cost: what int8 costs this student, as the file says; empty in other precisions.
    """

    name = 'openvino'
    precisions = ('fp32', 'bf16', 'int8')

    def _open(self, graph: Path, precision: str) -> None:
        import openvino

        settings = {
            # Where the CPU has bf16, OpenVINO takes it unless told otherwise.
            'INFERENCE_PRECISION_HINT': {'bf16': 'bf16'}.get(precision, 'f32'),
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        }
        core = openvino.Core()
        model = read_int8(core, graph) if precision == 'int8' else core.read_model(str(graph))
        self.cost = cost_of(model) if precision == 'int8' else ''
        self._request = core.compile_model(model, 'CPU', settings).create_infer_request()
        self._tensor = openvino.Tensor

    def _take_camera(self, arrays: Sequence[np.ndarray]) -> None:
        for name, array in zip(CameraInputs._fields, arrays, strict=True):
            self._request.set_tensor(name, self._tensor(array, shared_memory=True))

    def _run(self, image_13HW: np.ndarray) -> list[np.ndarray]:
        self._request.set_tensor('image', self._tensor(image_13HW, shared_memory=True))
        self._request.infer()
        return [tensor.data for tensor in self._request.output_tensors]


class OnnxRuntimeEngine(Engine):
    """onnxruntime, in as many threads as torch has."""

    name = 'onnxruntime'

    def _open(self, graph: Path, precision: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            str(graph), options, providers=['CPUExecutionProvider']
        )

    def _take_camera(self, arrays: Sequence[np.ndarray]) -> None:
        self._given = dict(zip(CameraInputs._fields, arrays, strict=True))

    def _run(self, image_13HW: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {'image': image_13HW, **self._given})


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (OpenVinoEngine, OnnxRuntimeEngine)
}
