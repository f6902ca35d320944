"""The CenterPoint teacher: sparse backbone, BEV backbone, centre head."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.training.distill.center_label_loss import (
    CenterLabelLoss,
    center_label_loss,
    center_targets,
)
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher, Voxelizer
from cmkd_ros.training.teacher.second import POINT_CHANNELS
from cmkd_ros.training.teacher.sparse_backbone import SparseBackbone
from cmkd_ros.training.teacher.voxelize import Voxels


class CenterPoint(LidarTeacher):
    """LiDAR teacher on sparse voxels with a centre head (Yin et al., arXiv 2006.11275)."""

    head: CenterHead | None

    def __init__(
        self,
        voxelizer: Voxelizer,
        widths: Sequence[int],
        bev_backbone: BevBackbone | None,
        head: CenterHead | None,
        gaussian_overlap: float = 0.1,
        min_radius: int = 2,
    ) -> None:
        """Build the layers.

        Args:
            voxelizer: makes the voxels.
            widths: channels of the four sparse stages.
            bev_backbone, head: the parts after the distilled map; None without head.
            gaussian_overlap, min_radius: shape of the heat around labelled centres; only training
                uses them.
        """
        super().__init__(voxelizer, bev_backbone, head)
        self.gaussian_overlap = gaussian_overlap
        self.min_radius = min_radius
        self.sparse = SparseBackbone(POINT_CHANNELS, widths, voxelizer.cells_xyz)

    def encode(self, voxels: Voxels, n_scans: int) -> torch.Tensor:
        """The folded output of the sparse backbone."""
        return self.sparse(voxels.means_V4(), voxels.coords_bzyx_V4, n_scans)

    def loss(
        self,
        output: CenterHeadOutput,
        boxes: Sequence[torch.Tensor],
        class_ids: Sequence[torch.Tensor],
        cls_weight: float = 1.0,
        box_weight: float = 2.0,
        dir_weight: float = 0.0,
    ) -> CenterLabelLoss:
        """Focal loss of the heat maps, L1 of the boxes at the labelled centres."""
        if self.head is None:
            raise ValueError('a teacher without head cannot learn from labels')
        if len(boxes) != len(output.hm):
            raise ValueError(f'{len(output.hm)} scans but boxes of {len(boxes)}')
        size_yx = (output.hm.shape[2], output.hm.shape[3])
        targets = [
            center_targets(
                boxes_M7.to(output.hm.device),
                ids_M.to(output.hm.device),
                self.head.n_classes,
                self.head.range_m,
                size_yx,
                self.gaussian_overlap,
                self.min_radius,
            )
            for boxes_M7, ids_M in zip(boxes, class_ids, strict=True)
        ]
        return center_label_loss(output, targets, cls_weight, box_weight)
