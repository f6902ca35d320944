"""The SECOND teacher: sparse backbone, BEV backbone, anchor head taught its own quality."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher, Voxelizer
from cmkd_ros.training.teacher.quality_loss import quality_head_loss
from cmkd_ros.training.teacher.sparse_backbone import SparseBackbone
from cmkd_ros.training.teacher.supervised_loss import AnchorHeadLoss
from cmkd_ros.training.teacher.voxelize import Voxels

POINT_CHANNELS = 4  # x y z intensity; a voxel's features are their means


class Second(LidarTeacher):
    """LiDAR teacher on sparse voxels (Yan et al., Sensors 2018) in the form CMKD distils from."""

    head: AnchorHead | None

    def __init__(
        self,
        voxelizer: Voxelizer,
        widths: Sequence[int],
        bev_backbone: BevBackbone | None,
        head: AnchorHead | None,
        matched_iou: Sequence[float],
        unmatched_iou: Sequence[float],
    ) -> None:
        """Build the layers.

        Args:
            voxelizer: makes the voxels.
            widths: channels of the four sparse stages.
            bev_backbone, head: the parts after the distilled map; None without head.
            matched_iou, unmatched_iou: per class, how much an anchor must overlap a labelled box to
                answer for its shape, and below what it is background; only training uses them.
        """
        super().__init__(voxelizer, bev_backbone, head)
        self.matched_iou = tuple(matched_iou)
        self.unmatched_iou = tuple(unmatched_iou)
        self.sparse = SparseBackbone(POINT_CHANNELS, widths, voxelizer.cells_xyz)

    def encode(self, voxels: Voxels, n_scans: int) -> torch.Tensor:
        """The folded output of the sparse backbone."""
        return self.sparse(voxels.means_V4(), voxels.coords_bzyx_V4, n_scans)

    def loss(
        self,
        output: AnchorHeadOutput,
        boxes: Sequence[torch.Tensor],
        class_ids: Sequence[torch.Tensor],
        cls_weight: float = 8.0,
        box_weight: float = 2.0,
        dir_weight: float = 0.2,
    ) -> AnchorHeadLoss:
        """See `quality_head_loss`."""
        if self.head is None:
            raise ValueError('a teacher without head cannot learn from labels')
        return quality_head_loss(
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
