"""The PointPillars teacher: pillars, convolutions, BEV backbone, head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher, Voxelizer
from cmkd_ros.training.teacher.pillars import PillarEncoder
from cmkd_ros.training.teacher.supervised_loss import AnchorHeadLoss, anchor_head_loss
from cmkd_ros.training.teacher.voxelize import Voxels


class PointPillars(LidarTeacher):
    """LiDAR teacher on pillars (Lang et al., CVPR 2019) in the form that CMKD distils from."""

    head: AnchorHead | None

    def __init__(
        self,
        voxelizer: Voxelizer,
        channels: int,
        conv_strides: Sequence[int],
        bev_backbone: BevBackbone | None,
        head: AnchorHead | None,
        matched_iou: Sequence[float],
        unmatched_iou: Sequence[float],
    ) -> None:
        """Build the layers.

        Args:
            voxelizer: makes the pillars: voxels as high as the range.
            channels: of the pillar features and the convolutions.
            conv_strides: one 3x3 convolution per entry.
            bev_backbone, head: the parts after the distilled map; None without head.
            matched_iou, unmatched_iou: per class, how much an anchor must overlap a labelled box to
                answer for it, and below what it is background; only training uses them.
        """
        super().__init__(voxelizer, bev_backbone, head)
        self.matched_iou = tuple(matched_iou)
        self.unmatched_iou = tuple(unmatched_iou)
        self.pillars = PillarEncoder(
            channels,
            voxelizer.range_m,
            voxelizer.voxel_m,
            voxelizer.cells_xyz,
            voxelizer.max_points,
        )
        self.convs = nn.Sequential(
            *(ConvBnRelu(channels, channels, 3, stride, bias=True) for stride in conv_strides)
        )

    def encode(self, voxels: Voxels, n_scans: int) -> torch.Tensor:
        """The pillars on the grid after the convolutions."""
        return self.convs(self.pillars(voxels, n_scans))

    def loss(
        self,
        output: AnchorHeadOutput,
        boxes: Sequence[torch.Tensor],
        class_ids: Sequence[torch.Tensor],
        cls_weight: float = 1.0,
        box_weight: float = 2.0,
        dir_weight: float = 0.2,
    ) -> AnchorHeadLoss:
        """See `anchor_head_loss`."""
        if self.head is None:
            raise ValueError('a teacher without head cannot learn from labels')
        return anchor_head_loss(
            self.head,
            output,
            boxes,
            class_ids,
            self.matched_iou,
            self.unmatched_iou,
            cls_weight,
            box_weight,
            dir_weight,
        )
