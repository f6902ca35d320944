"""The form of a student for GPUs: one image of bytes in, a table of boxes out, in fixed sizes.

Made from the plain modules as the fast form for CPUs is: batch norm folded, channels last, in the
type asked for. Nothing in `CudaForm.forward` depends on a number that the device computes, and
nothing waits for the device, so that all of it can be captured as one CUDA graph
(`cuda_runner.py`). It runs on CPUs as well, where tests compare it with the plain modules.

Letters: H W rows and columns of the canvas, C classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from cmkd_ros.model.cuda_conv import cuda_kernel
from cmkd_ros.model.deploy import fast_form_of
from cmkd_ros.model.fast_aspp import RowClippedConv
from cmkd_ros.model.fast_conv import FoldedConv
from cmkd_ros.model.fast_lift import FastCollapse
from cmkd_ros.model.fixed_lift import GridTaps, lift_whole_grid
from cmkd_ros.model.fixed_post import FixedPost, limits_of
from cmkd_ros.model.lift_indices import LiftIndices
from cmkd_ros.model.outputs import HeadOutput
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.model.student import MIN_CANVAS_PX, Student

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass(frozen=True)
class FormInputs:
    """What one image is computed from; buffers that are written anew for each.

    Attributes:
        image_HW3: uint8 RGB.
        taps: of its camera.
        limits: (3 + C,) float64, from `limits_of`.
    """

    image_HW3: torch.Tensor
    taps: GridTaps
    limits: torch.Tensor


class CudaForm(nn.Module):
    """A student for one image at a time."""

    scale_311: torch.Tensor
    shift_311: torch.Tensor

    def __init__(
        self,
        student: Student,
        precision: str,
        kernel: type[FoldedConv] | None = None,
        row_products: bool = False,
    ) -> None:
        """Make the form of a student's present weights, on its device.

        Args:
            student: with a head, in eval mode; not changed.
            precision: 'fp32', 'bf16' or 'fp16'.
            kernel: of convolutions; None: the fused one where it works.
            row_products: as `fast_form`.

        Raises:
            ValueError: a student without head or in train mode, or another precision.
            RuntimeError: the device has too little memory.
        """
        super().__init__()
        if student.head is None or student.bev_backbone is None:
            raise ValueError('a stage-1 student has no head and cannot detect; distil stage 2')
        if precision not in DTYPES:
            raise ValueError(f"precision '{precision}': expected one of {', '.join(DTYPES)}")
        self.precision = precision
        # Decodes. Its own, since it keeps the anchors of the last map, where a graph reads them.
        self.plain_head = copy.copy(student.head)
        self.device = next(student.parameters()).device
        dtype = DTYPES[precision]
        chosen = kernel or cuda_kernel(dtype, self.device)
        self.fast = fast_form_of(student, dtype, chosen, row_products)
        # (byte / 255 - mean) / std as one product and sum.
        backbone = student.image_backbone
        self.register_buffer('scale_311', 1 / (255 * backbone.std_rgb), persistent=False)
        self.register_buffer('shift_311', -backbone.mean_rgb / backbone.std_rgb, persistent=False)

    @property
    def cells_xyz(self) -> tuple[int, ...]:
        """The grid."""
        return self.fast.lift.cells_xyz

    def forward(self, inputs: FormInputs, post: FixedPost) -> tuple[HeadOutput, torch.Tensor]:
        """Raw head maps of the image, and the table that `post` makes of them."""
        head = self.maps(inputs)
        return head, post(head, inputs.limits)

    def maps(self, inputs: FormInputs) -> HeadOutput:
        """Raw head maps of the image."""
        fast = self.fast
        if fast.head is None or fast.bev_backbone is None:
            raise TypeError('a form without head')
        if not isinstance(fast.collapse, FastCollapse):
            raise TypeError(f'expected a FastCollapse, found {type(fast.collapse).__name__}')
        image_13HW = inputs.image_HW3.permute(2, 0, 1)[None].float()
        image_13HW = torch.addcmul(self.shift_311, image_13HW, self.scale_311)
        backbone = fast.image_backbone
        features_BCHW, deep_BCHW = backbone.features(backbone.shrink(image_13HW))
        depth_logits_BDHW = fast.depth_head(deep_BCHW)
        reduced_BCHW = fast.reduce(features_BCHW)
        bev_BCYX = lift_whole_grid(
            reduced_BCHW[0], depth_logits_BDHW[0], inputs.taps, fast.collapse
        )
        return fast.head(fast.bev_backbone(fast.adaptation(bev_BCYX)))

    def kept_tensors(self) -> list[object]:
        """What modules keep for the last size of maps only: a graph of that size reads them where
        they are for as long as it is replayed."""
        modules = self.fast.modules()
        bags: list[object] = [m._bags for m in modules if isinstance(m, RowClippedConv)]
        return [*bags, *vars(self.plain_head).get('_anchors', {}).values()]

    def camera(
        self,
        cam_to_img_34: torch.Tensor,
        ref_to_cam_44: torch.Tensor,
        canvas_hw: tuple[int, int],
    ) -> LiftIndices:
        """What a camera sees, from the cache if known.

        Args:
            cam_to_img_34, ref_to_cam_44: float32, on the CPU.
            canvas_hw: rows and columns of its images.
        """
        stride = 8 * self.fast.image_backbone.downscale
        rows, columns = (-(-size // stride) for size in canvas_hw)
        like = torch.empty(0, rows, columns, device=self.device)
        return self.fast.lift.indices(cam_to_img_34, ref_to_cam_44, canvas_hw, like)

    def inputs(self, canvas_hw: tuple[int, int], post: PostSpec) -> FormInputs:
        """Buffers of a black image that no camera has seen, with no thresholds by class.

        Raises:
            ValueError: a canvas that is too small.
        """
        if min(canvas_hw) < MIN_CANVAS_PX:
            raise ValueError(
                f'need an image of {MIN_CANVAS_PX}x{MIN_CANVAS_PX} pixels at least, found '
                f'{canvas_hw[1]}x{canvas_hw[0]}'
            )
        limits = limits_of(post, None, self.plain_head.n_classes)
        return FormInputs(
            torch.zeros(*canvas_hw, 3, dtype=torch.uint8, device=self.device),
            GridTaps.empty(self.cells_xyz, self.device),
            limits.to(self.device),
        )
