"""Runs the CUDA form of a student: upload, graph, one copy back.

For each size of canvas the form is captured once as a CUDA graph over fixed buffers: no launches
from Python, no memory asked for. The image goes through pinned memory, as bytes. A camera that
differs from the last one is written into the buffers, thresholds too. On a CPU the form runs as it
is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch

from cmkd_ros.model.cuda_conv import cuda_arithmetic
from cmkd_ros.model.cuda_form import CudaForm
from cmkd_ros.model.fixed_post import FixedPost, limits_of
from cmkd_ros.model.lift_indices import LiftIndices
from cmkd_ros.model.outputs import StudentOutput
from cmkd_ros.model.post import RawBoxes, find_boxes
from cmkd_ros.model.spec import PostSpec

KEPT_GRAPHS = 4  # sizes of canvas; each holds the maps of one image
_WARM_UP_RUNS = 3  # cuDNN tries its kernels, caches fill


class CudaStudent:
    """A student on a GPU, called with bytes; or like a student, then without a graph."""

    def __init__(self, form: CudaForm, kept_graphs: int = KEPT_GRAPHS) -> None:
        """Take a form.

        Args:
            form: on its device.
            kept_graphs: the least recently used size of canvas beyond these is forgotten.
        """
        self.form = form
        self._kept = max(1, kept_graphs)
        self._canvases: OrderedDict[tuple[int, ...], Canvas] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        image_B3HW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
    ) -> StudentOutput:
        """As `Student.forward`, for images of any number."""
        return self.form.fast(image_B3HW, cam_to_img_B34, ref_to_cam_B44)

    def find(
        self,
        image_HW3: np.ndarray,
        cam_to_img_34: torch.Tensor,
        ref_to_cam_44: torch.Tensor,
        post: PostSpec,
        class_thresholds: Sequence[float] | None = None,
    ) -> RawBoxes:
        """The boxes of one image, as `find_boxes` finds them.

        Args:
            image_HW3: uint8 RGB.
            cam_to_img_34, ref_to_cam_44: of its camera, float32, on the CPU.
            post, class_thresholds: as in `find_boxes`.

        Returns:
            Boxes on the CPU.

        Raises:
            ValueError: an image that is too small.
            RuntimeError: a graph of this size cannot be made, for want of memory most often.
        """
        with self._lock, torch.inference_mode():
            canvas, table_W = self.run(
                image_HW3, cam_to_img_34, ref_to_cam_44, post, class_thresholds
            )
            found = canvas.post.boxes(table_W, post.nms_max_out)
            if found is not None:
                return found
            found = find_boxes(self.form.plain_head, canvas.head, post, class_thresholds)[0]
            return RawBoxes(found.boxes_K7.cpu(), found.scores_K.cpu(), found.labels_K.cpu())

    @torch.inference_mode()
    def run(
        self,
        image_HW3: np.ndarray,
        cam_to_img_34: torch.Tensor,
        ref_to_cam_44: torch.Tensor,
        post: PostSpec,
        class_thresholds: Sequence[float] | None = None,
    ) -> tuple[Canvas, torch.Tensor]:
        """What `find` reads its boxes from; arguments and errors as there. For one thread.

        Returns:
            The canvas, whose `head` holds the maps until the next run, and the table on the CPU.
        """
        rows, columns = image_HW3.shape[:2]
        limits = limits_of(post, class_thresholds, self.form.plain_head.n_classes)
        with _on(self.form.device):
            indices = self.form.camera(cam_to_img_34, ref_to_cam_44, (rows, columns))
            key = (rows, columns, post.nms_max_in)
            canvas = self._canvases.pop(key, None)
            if canvas is None:
                while len(self._canvases) >= self._kept:
                    self._canvases.popitem(last=False)
                canvas = Canvas(self.form, (rows, columns), post)
            self._canvases[key] = canvas
            return canvas, canvas.run(image_HW3, indices, limits)

    def forget(self) -> None:
        """Give the buffers and graphs of all sizes back."""
        with self._lock:
            self._canvases.clear()


class Canvas:
    """The buffers of one size of image, and on a GPU the graph that computes from them.

    Attributes:
        post: reads the table.
        head: raw maps of the last image.
    """

    def __init__(self, form: CudaForm, canvas_hw: tuple[int, int], post: PostSpec) -> None:
        """Make the buffers, and capture the graph.

        Raises:
            ValueError, RuntimeError: as `CudaStudent.find`.
        """
        self._form = form
        self._inputs = form.inputs(canvas_hw, post)
        self._indices: LiftIndices | None = None
        self._limits: torch.Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self.post = FixedPost(form.plain_head, post.nms_max_in)
        pinned = form.device.type == 'cuda'
        self._staging_HW3 = torch.empty(*canvas_hw, 3, dtype=torch.uint8, pin_memory=pinned)
        if pinned:
            self._graph = self._capture()
        else:
            self._compute()
        self._read_by_graph = form.kept_tensors()
        self._table_W = torch.empty(len(self._found_W), dtype=torch.uint8, pin_memory=pinned)

    def run(
        self, image_HW3: np.ndarray, indices: LiftIndices, limits: torch.Tensor
    ) -> torch.Tensor:
        """The table of one image, on the CPU, good until the next run."""
        if indices is not self._indices:
            self._inputs.taps.fill(indices, self._form.cells_xyz)
            self._indices = indices
        if self._limits is None or not torch.equal(limits, self._limits):
            self._inputs.limits.copy_(limits)
            self._limits = limits
        np.copyto(self._staging_HW3.numpy(), image_HW3)
        self._inputs.image_HW3.copy_(self._staging_HW3, non_blocking=True)
        self.compute()
        self._table_W.copy_(self._found_W, non_blocking=True)
        if self._graph is not None:
            torch.cuda.current_stream(self._form.device).synchronize()
        return self._table_W

    def compute(self) -> None:
        """Compute the table from the buffers as they are; on a GPU nobody waits for it."""
        if self._graph is None:
            self._compute()
        else:
            self._graph.replay()

    def _compute(self) -> None:
        # The caller may compute under autocast, which would keep casts of weights out of the graph.
        with torch.autocast(self._form.device.type, enabled=False):
            self.head, self._found_W = self._form(self._inputs, self.post)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Compute aside until every kernel is chosen, then once more to record it."""
        device = self._form.device
        current, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        graph = torch.cuda.CUDAGraph()
        with cuda_arithmetic():
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP_RUNS):
                    self._compute()
            # Other threads may use the GPU meanwhile: only what this one does must be recordable.
            with torch.cuda.graph(graph, stream=side, capture_error_mode='thread_local'):
                self._compute()
            current.wait_stream(side)
        return graph


def _on(device: torch.device) -> torch.cuda.device | nullcontext[None]:
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()
