"""The student: image and calibration in, BEV features and raw head maps in the reference frame out.

Letters: B batch, H W rows and columns of the canvas. Frames: ref is FLU at the training LiDAR, cam
is the rectified camera.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.bev import BevBackbone, Collapse, SelfCalibratedBlock
from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.depth_net import AsppDepthHead, PlainDepthHead
from cmkd_ros.model.image_backbone import ImageBackbone
from cmkd_ros.model.lift import Lift
from cmkd_ros.model.outputs import StudentOutput
from cmkd_ros.model.spec import AnchorHeadSpec, HeadSpec, NetworkSpec

MIN_CANVAS_PX = 32


class Student(nn.Module):
    """Camera network of CMKD (Hong, Dai, Ding, ECCV 2022).

    Without BEV backbone and head it is the network of stage 1, which ends at the distilled layer.
    """

    def __init__(
        self,
        image_backbone: ImageBackbone,
        depth_head: AsppDepthHead | PlainDepthHead,
        reduce: ConvBnRelu,
        lift: Lift,
        collapse: Collapse,
        adaptation: nn.Sequential,
        bev_backbone: BevBackbone | None,
        head: AnchorHead | CenterHead | None,
    ) -> None:
        super().__init__()
        self.image_backbone = image_backbone
        self.depth_head = depth_head
        self.reduce = reduce
        self.lift = lift
        self.collapse = collapse
        self.adaptation = adaptation
        self.bev_backbone = bev_backbone
        self.head = head

    def forward(
        self,
        image_B3HW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
    ) -> StudentOutput:
        """Run the network on images that share a canvas.

        The grid is normalised by the canvas, and the pooled branch of the depth head sees all of
        it: the same image on a larger canvas gives slightly different maps.

        Args:
            image_B3HW: RGB in [0, 1]; NaN right of and below a smaller image: mean colour.
            cam_to_img_B34: projections of the rectified cameras, pixels.
            ref_to_cam_B44: rigid transforms from ref to cam.

        Returns:
            Depth logits, BEV features and raw head maps.

        Raises:
            ValueError: shapes that do not fit together.
        """
        _check_input(image_B3HW, cam_to_img_B34, ref_to_cam_B44)
        canvas_hw = (image_B3HW.shape[2], image_B3HW.shape[3])
        features_BCHW, deep_BCHW = self.image_backbone(image_B3HW)
        # Without gradients these maps are most of a forward's memory: each goes after its last use.
        reduced_BCHW = self.reduce(features_BCHW)
        del features_BCHW
        depth_logits_BDHW = self.depth_head(deep_BCHW)
        del deep_BCHW
        columns = self.lift(
            reduced_BCHW, depth_logits_BDHW, cam_to_img_B34, ref_to_cam_B44, canvas_hw
        )
        collapsed_BCYX = self.collapse(columns)
        del columns
        bev_BCYX = self.adaptation(collapsed_BCYX)
        del collapsed_BCYX
        head = None
        if self.bev_backbone is not None and self.head is not None:
            head = self.head(self.bev_backbone(bev_BCYX))
        return StudentOutput(depth_logits_BDHW, bev_BCYX, head)


def build_student(spec: NetworkSpec, with_head: bool = True) -> Student:
    """Build the network a spec describes, with the initial weights it is trained from.

    Args:
        spec: sizes of everything.
        with_head: False leaves out BEV backbone and head (stage 1).

    Raises:
        ValueError: sizes that do not fit together.
    """
    image, depth = spec.image, spec.depth
    image_backbone = ImageBackbone(
        image.backbone,
        image.layer4_channels,
        image.mean_rgb,
        image.std_rgb,
        image.downscale,
        image.stem_channels,
    )
    depth_head_type = AsppDepthHead if image.depth_head == 'aspp' else PlainDepthHead
    bev_backbone = head = None
    if with_head:
        bev_backbone = BevBackbone(spec.bev_channels, **spec.bev.model_dump())
        head = build_head(
            spec.head, bev_backbone.out_channels, len(spec.classes), spec.grid.range_m
        )
    return Student(
        image_backbone=image_backbone,
        depth_head=depth_head_type(
            image_backbone.deep_channels, image.depth_channels, depth.bins + 1
        ),
        reduce=ConvBnRelu(image_backbone.feature_channels, image.reduce_channels, 1),
        lift=Lift(
            spec.grid.range_m,
            spec.grid.cells_xyz,
            (depth.mode, depth.bins, depth.min_m, depth.max_m),
        ),
        collapse=Collapse(image.reduce_channels, spec.grid.cells_xyz, spec.bev_channels),
        adaptation=nn.Sequential(
            *(SelfCalibratedBlock(spec.bev_channels) for _ in range(spec.adaptation_blocks))
        ),
        bev_backbone=bev_backbone,
        head=head,
    )


def build_head(
    spec: HeadSpec, in_channels: int, n_classes: int, range_m: Sequence[float]
) -> AnchorHead | CenterHead:
    """Build the head a spec describes; students and teachers have the same.

    Args:
        spec: of the head.
        in_channels: channels of the BEV backbone's output.
        n_classes: number of classes.
        range_m: x, y, z minima, then maxima: the area the maps cover.
    """
    if isinstance(spec, AnchorHeadSpec):
        return AnchorHead(
            in_channels,
            n_classes,
            anchor_sizes_lwh=[anchor.size_lwh for anchor in spec.anchors],
            anchor_bottoms_z=[anchor.bottom_z for anchor in spec.anchors],
            rotations_rad=spec.rotations_rad,
            range_m=range_m,
            direction_offset_rad=spec.direction_offset_rad,
        )
    return CenterHead(
        in_channels,
        n_classes,
        shared_channels=spec.shared_channels,
        range_m=range_m,
        limit_range_m=spec.limit_range_m,
        max_objects=spec.max_objects,
    )


def _check_input(
    image_B3HW: torch.Tensor, cam_to_img_B34: torch.Tensor, ref_to_cam_B44: torch.Tensor
) -> None:
    if image_B3HW.ndim != 4 or image_B3HW.shape[1] != 3 or not image_B3HW.is_floating_point():
        raise ValueError(
            'images must be float (B, 3, H, W) in [0, 1], found '
            f'{image_B3HW.dtype} {tuple(image_B3HW.shape)}'
        )
    batch = image_B3HW.shape[0]
    if min(image_B3HW.shape[2:]) < MIN_CANVAS_PX or batch == 0:
        raise ValueError(
            f'need at least one image of {MIN_CANVAS_PX}x{MIN_CANVAS_PX} pixels, found '
            f'{tuple(image_B3HW.shape)}'
        )
    for name, tensor, shape in (
        ('cam_to_img', cam_to_img_B34, (batch, 3, 4)),
        ('ref_to_cam', ref_to_cam_B44, (batch, 4, 4)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f'{name} must be {shape}, found {tuple(tensor.shape)}')
