"""The detector: image, camera and its pose in; boxes in the reference frame out. No ROS here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from cmkd_ros.backend import for_backend
from cmkd_ros.checkpoint import Bundle, load_bundle
from cmkd_ros.errors import FailedError
from cmkd_ros.geometry import Boxes3D, CameraModel, Rectifier, resize_with_camera
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.post import RawBoxes, find_boxes
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.detector')
FX_TOLERANCE = 0.05  # a focal length this near to the training camera's is left as it is
FX_WORKING_RANGE = (0.4, 2.5)  # beyond, the rescaled image has lost or invented too much

_UNIT_OF_BYTE = (np.arange(256, dtype=np.float32) / np.float32(255.0))[None]


@dataclass(frozen=True)
class Detections:
    """Boxes seen in one image, by descending score.

    Attributes:
        boxes: gravity centres, sizes and yaw in the reference frame.
        scores_N: float64 in [0, 1].
        class_names: one name per box.
    """

    boxes: Boxes3D
    scores_N: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.class_names)


class Detector:
    """Runs a student on single images; keeps what depends on the camera between calls."""

    def __init__(
        self,
        network: Student,
        class_names: tuple[str, ...],
        post: PostSpec,
        train_fx_px: float,
        device: str = 'cpu',
        precision: str = 'fp32',
        backend: str = 'torch',
    ) -> None:
        """Take a network in eval mode.

        Args:
            network: a student with a head.
            class_names: names in the order of the head's classes.
            post: score threshold and NMS; `detector.post` may be replaced at any time.
            train_fx_px: focal length of the training camera; images of another one are rescaled
                to it. 0 switches the rescaling off.
            device: 'cpu', 'cuda', 'cuda:1', ... or 'auto'.
            precision: 'fp32', 'bf16', 'fp16' (CUDA only), 'int8' (openvino only) or 'auto'; what
                runs, after checks of this machine, is `detector.precision`. The network is a fast
                form of the student's present weights, which later changes of these do not reach.
            backend: 'torch', 'openvino', 'onnxruntime', or 'auto': an engine if it is ready here,
                see `for_backend`. What runs is `detector.backend`.

        Raises:
            ValueError: unknown precision, no CUDA device, a network without head, or a backend that
                cannot be used.
        """
        head = network.head
        if head is None:
            raise ValueError('a stage-1 student has no head and cannot detect; distil stage 2')
        self._head = head  # decodes; both forms of a network have the same anchors and thresholds
        self.device = _pick_device(device)
        self._plain = network.to(self.device).eval()
        chosen = for_backend(self._plain, self.device, precision, backend)
        self.network, self.precision, self.backend = (
            chosen.network, chosen.precision, chosen.backend,
        )  # fmt: skip
        self.class_names = class_names
        self.post = post
        # Score thresholds by class name, where one differs from `post.score_threshold`.
        self.class_thresholds: Mapping[str, float] = {}
        self.train_fx_px = train_fx_px
        self._rectifier: tuple[object, Rectifier] | None = None

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        device: str = 'cpu',
        precision: str = 'fp32',
        backend: str = 'torch',
    ) -> Detector:
        """Load a student bundle (`*.cmkd`).

        Raises:
            FileNotFoundError, ValueError: as `load_bundle`; or a stage-1 student or teacher.
        """
        return cls.from_bundle(load_bundle(path), device, precision, backend)

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        device: str = 'cpu',
        precision: str = 'fp32',
        backend: str = 'torch',
    ) -> Detector:
        """Build the detector of a student bundle in memory."""
        spec = bundle.network_spec
        if not bundle.with_head:
            raise ValueError(
                f'{bundle.source}: a stage-1 student (features only) cannot detect; '
                'distil stage 2 from it first'
            )
        return cls(
            bundle.build(), spec.classes, spec.post, bundle.train_fx_px, device, precision, backend
        )

    def set_thresholds(
        self, score_threshold: float | None = None, nms_iou: float | None = None
    ) -> None:
        """Change the score threshold or the NMS overlap from the next image on.

        Raises:
            ValueError: a value outside [0, 1].
        """
        changes = {'score_threshold': score_threshold, 'nms_iou': nms_iou}
        given = {name: value for name, value in changes.items() if value is not None}
        for name, value in given.items():
            if not 0.0 <= value <= 1.0:
                raise ValueError(f'{name} = {value}: must lie in [0, 1]')
        self.post = self.post.model_copy(update=given)

    @torch.inference_mode()
    def __call__(
        self, image_HW3: np.ndarray, camera: CameraModel, T_cam_ref: np.ndarray
    ) -> Detections:
        """Detect objects in one image.

        Args:
            image_HW3: uint8 RGB; distorted images are rectified first.
            camera: calibration of exactly these pixels.
            T_cam_ref: (4, 4) float64, maps the reference frame to the rectified camera frame.

        Returns:
            Detections in the reference frame, after NMS, by descending score.

        Raises:
            ValueError: image, camera and pose do not fit together.
            FailedError: the GPU has too little memory.
        """
        try:
            found = self._find(image_HW3, camera, T_cam_ref)
        except torch.OutOfMemoryError as error:
            raise FailedError(
                f'{self.device} has too little memory for an image of '
                f'{camera.width}x{camera.height} in {self.precision}: free some, or choose '
                f'{"bf16 or " if self.precision == "fp32" else ""}device cpu'
            ) from error
        return Detections(
            boxes=Boxes3D(found.boxes_K7.double().cpu().numpy()),
            scores_N=found.scores_K.double().cpu().numpy(),
            class_names=tuple(self.class_names[i] for i in found.labels_K.tolist()),
        )

    def _find(self, image_HW3: np.ndarray, camera: CameraModel, T_cam_ref: np.ndarray) -> RawBoxes:
        thresholds = self._score_thresholds()
        if isinstance(self.network, CudaStudent):
            _check_input(image_HW3, camera, T_cam_ref)
            seen_HW3, seen = self.prepare(image_HW3, camera)
            # On the host, where they are compared with those of the last image.
            cam_to_img_34 = torch.from_numpy(seen.projection_px_34.astype(np.float32))
            ref_to_cam_44 = torch.from_numpy(np.asarray(T_cam_ref).astype(np.float32))
            try:
                return self.network.find(
                    seen_HW3, cam_to_img_34, ref_to_cam_44, self.post, thresholds
                )
            except RuntimeError as error:
                reason = str(error).strip().partition('\n')[0]
                LOG.warning('plain modules run from now on: the form for GPUs failed: %s', reason)
            self.network = self._plain
        inputs = self.tensors(image_HW3, camera, T_cam_ref)
        with self.arithmetic():
            output = self.network(*inputs)
        return find_boxes(self._head, output.head, self.post, thresholds)[0]

    def tensors(
        self, image_HW3: np.ndarray, camera: CameraModel, T_cam_ref: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the network is given for an image; arguments and errors as of a call.

        Returns:
            image_13HW in [0, 1], cam_to_img_134 and ref_to_cam_144, float32 on `device`.
        """
        _check_input(image_HW3, camera, T_cam_ref)
        image_HW3, camera = self.prepare(image_HW3, camera)
        if self.device.type == 'cpu':
            # In one pass over memory, where torch takes two.
            image = torch.from_numpy(cv2.LUT(image_HW3, _UNIT_OF_BYTE))
        else:
            if not image_HW3.flags.writeable or not image_HW3.flags.c_contiguous:
                image_HW3 = image_HW3.copy()  # torch takes neither read-only nor mirrored arrays
            image = torch.from_numpy(image_HW3).to(self.device).float().div_(255.0)
        image_13HW = image.permute(2, 0, 1)[None]
        return image_13HW, self._matrix(camera.projection_px_34), self._matrix(T_cam_ref)

    def prepare(self, image_HW3: np.ndarray, camera: CameraModel) -> tuple[np.ndarray, CameraModel]:
        """Rectify the image and bring its focal length to the training camera's.

        Returns:
            The image the network sees, and its camera; both unchanged when nothing is to do, but
            that a view of BGR pixels (`bgr[..., ::-1]`) becomes an array of its own.
        """
        if image_HW3.strides[2] < 0:
            # As they lie in memory: channels are treated alike, and the result is often smaller.
            bgr_HW3, camera = self.prepare(image_HW3[..., ::-1], camera)
            return cv2.cvtColor(bgr_HW3, cv2.COLOR_BGR2RGB), camera
        size = self._input_size(camera)
        if not camera.is_rectified:
            key = (camera.key(), size)
            if self._rectifier is None or self._rectifier[0] != key:
                self._rectifier = (key, Rectifier(camera, size))
            return self._rectifier[1](image_HW3)
        if size == (camera.width, camera.height):
            return image_HW3, camera
        return resize_with_camera(image_HW3, camera, size)

    def focal_scale(self, camera: CameraModel) -> float:
        """Factor by which images of `camera` are resized before the network, 1.0 for none."""
        if self.train_fx_px <= 0:
            return 1.0
        scale = self.train_fx_px / float(camera.projection_px_34[0, 0])
        return 1.0 if abs(scale - 1.0) <= FX_TOLERANCE else scale

    def _score_thresholds(self) -> list[float] | None:
        if not self.class_thresholds:
            return None
        return [
            self.class_thresholds.get(name, self.post.score_threshold) for name in self.class_names
        ]

    def _input_size(self, camera: CameraModel) -> tuple[int, int]:
        scale = self.focal_scale(camera)
        return max(1, round(camera.width * scale)), max(1, round(camera.height * scale))

    def _matrix(self, matrix: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.asarray(matrix, np.float32), device=self.device)[None]

    def arithmetic(self) -> torch.autocast:
        """The context that a network of plain modules computes in."""
        reduced = self.precision != 'fp32' and self.device.type != 'cpu'
        dtype = torch.float16 if self.precision == 'fp16' else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=reduced)


def _check_input(image_HW3: np.ndarray, camera: CameraModel, T_cam_ref: np.ndarray) -> None:
    if image_HW3.dtype != np.uint8 or image_HW3.ndim != 3 or image_HW3.shape[2] != 3:
        raise ValueError(
            f'image must be uint8 (H, W, 3), found {image_HW3.dtype} {image_HW3.shape}'
        )
    if image_HW3.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f'image is {image_HW3.shape[1]}x{image_HW3.shape[0]} but the camera is calibrated '
            f'for {camera.width}x{camera.height}'
        )
    pose = np.asarray(T_cam_ref)
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f'T_cam_ref must be a finite (4, 4) matrix, found shape {pose.shape}')


def _pick_device(device: str) -> torch.device:
    if device == 'auto':
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        picked = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device '{device}': expected auto, cpu, cuda or cuda:N") from None
    if picked.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f"device '{device}': this torch ({torch.__version__}) sees no CUDA GPU")
    if picked.type == 'cuda' and (picked.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device '{device}': there are only {torch.cuda.device_count()} CUDA GPUs")
    return picked
