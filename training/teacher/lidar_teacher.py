"""What all LiDAR teachers have in common: voxels to a BEV map, to head maps, to a loss.

Letters: B scans, N points of a scan, M boxes of a scan, C channels, Y X rows and columns of the
BEV map. Frame: ref.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.outputs import HeadOutput
from cmkd_ros.training.distill.loss_terms import LossTerms
from cmkd_ros.training.teacher.voxelize import Voxels, voxelize_batch


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher gives for a batch of scans.

    Attributes:
        bev_BCYX: the map that feature distillation compares: after the encoder, before the BEV
            backbone; never negative.
        head: raw head maps, or None for a teacher without head (stage 1).
    """

    bev_BCYX: torch.Tensor
    head: HeadOutput | None


@dataclass(frozen=True)
class Voxelizer:
    """The voxels that a teacher sees.

    Attributes:
        range_m: minima of x, y, z, then maxima, metres in ref.
        voxel_m: size of a voxel along x, y, z, metres.
        cells_xyz: voxels along x, y, z.
        max_points: points that a voxel keeps.
        max_voxels_train, max_voxels_test: voxels per scan in train mode and in eval mode.
    """

    range_m: tuple[float, ...]
    voxel_m: tuple[float, ...]
    cells_xyz: tuple[int, ...]
    max_points: int
    max_voxels_train: int
    max_voxels_test: int

    def __call__(self, points: Sequence[torch.Tensor], training: bool) -> Voxels:
        """Voxelise scans, see `voxelize_batch`."""
        cap = self.max_voxels_train if training else self.max_voxels_test
        return voxelize_batch(
            points, self.range_m, self.voxel_m, self.cells_xyz, self.max_points, cap
        )


class LidarTeacher(nn.Module, ABC):
    """A LiDAR detector; subclasses say how voxels become a BEV map, and how labels teach."""

    def __init__(
        self,
        voxelizer: Voxelizer,
        bev_backbone: BevBackbone | None,
        head: AnchorHead | CenterHead | None,
    ) -> None:
        """Take the parts that all teachers have; None: a teacher without head."""
        super().__init__()
        self.voxelizer = voxelizer
        self.bev_backbone = bev_backbone
        self.head = head

    def forward(self, points: Sequence[torch.Tensor]) -> TeacherOutput:
        """Encode a batch of scans.

        Args:
            points: per scan a float32 (N, 4) tensor (x, y, z in ref, intensity), in scan order
                (the voxeliser depends on it), all on the device of the network.

        Raises:
            ValueError: no scan, or one of another type or shape.
        """
        bev_BCYX = self.encode(self.voxelize(points), len(points))
        if self.bev_backbone is None or self.head is None:
            return TeacherOutput(bev_BCYX, None)
        return TeacherOutput(bev_BCYX, self.head(self.bev_backbone(bev_BCYX)))

    def voxelize(self, points: Sequence[torch.Tensor]) -> Voxels:
        """The voxels that `forward` sees."""
        return self.voxelizer(points, self.training)

    @abstractmethod
    def encode(self, voxels: Voxels, n_scans: int) -> torch.Tensor:
        """The BEV map (B, C, Y, X) of the voxels of `n_scans` scans."""

    @abstractmethod
    def loss(
        self,
        output: Any,
        boxes: Sequence[torch.Tensor],
        class_ids: Sequence[torch.Tensor],
        cls_weight: float,
        box_weight: float,
        dir_weight: float,
    ) -> LossTerms:
        """Loss of the head's maps against labelled boxes (cmkd-spec F5).

        Args:
            output: maps of this teacher's head.
            boxes: B tensors (M, 7) in ref, gravity centres.
            class_ids: B tensors (M,), 1-based.
            cls_weight: factor of the classes, or of a centre head's heat maps.
            box_weight: factor of the boxes.
            dir_weight: factor of the direction bins; centre heads have none.

        Raises:
            ValueError: a class id outside the classes, or not as many scans as boxes.
        """
