"""The PointPillars teacher: pillars, convolutions, BEV backbone, head.

Letters: B scans, N points of a scan, C channels, Y X rows and columns of the BEV map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.outputs import HeadOutput
from cmkd_ros.model.spec import AnchorHeadSpec
from cmkd_ros.training.teacher.pillars import PillarEncoder
from cmkd_ros.training.teacher.spec import TeacherSpec
from cmkd_ros.training.teacher.voxelize import Voxels, voxelize_batch


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher gives for a batch of scans.

    Attributes:
        bev_BCYX: the map that feature distillation compares: after the pillar convolutions, before
            the BEV backbone; never negative.
        head: raw head maps, or None for a teacher without head (stage 1).
    """

    bev_BCYX: torch.Tensor
    head: HeadOutput | None


class PointPillars(nn.Module):
    """LiDAR teacher on pillars (Lang et al., CVPR 2019) in the form that CMKD distils from."""

    def __init__(
        self,
        range_m: Sequence[float],
        voxel_m: Sequence[float],
        cells_xyz: Sequence[int],
        max_points: int,
        max_voxels_train: int,
        max_voxels_test: int,
        channels: int,
        conv_strides: Sequence[int],
        bev_backbone: BevBackbone | None,
        head: AnchorHead | None,
        matched_iou: Sequence[float] = (),
        unmatched_iou: Sequence[float] = (),
    ) -> None:
        """Build the layers.

        Args:
            range_m: minima of x, y, z, then maxima, metres in ref.
            voxel_m: size of a pillar along x, y, z, metres.
            cells_xyz: pillars along x, y, z.
            max_points: points that a pillar keeps.
            max_voxels_train, max_voxels_test: pillars per scan in train mode and in eval mode.
            channels: of the pillar features and the convolutions.
            conv_strides: one 3x3 convolution per entry.
            bev_backbone, head: the parts after the distilled map; None without head.
            matched_iou, unmatched_iou: per class, how much an anchor must overlap a labelled box to
                answer for it, and below what it is background; only training uses them.
        """
        super().__init__()
        self.range_m = tuple(range_m)
        self.voxel_m = tuple(voxel_m)
        self.cells_xyz = tuple(cells_xyz)
        self.max_points = max_points
        self.matched_iou = tuple(matched_iou)
        self.unmatched_iou = tuple(unmatched_iou)
        self.max_voxels_train = max_voxels_train
        self.max_voxels_test = max_voxels_test
        self.pillars = PillarEncoder(channels, range_m, voxel_m, cells_xyz, max_points)
        self.convs = nn.Sequential(
            *(ConvBnRelu(channels, channels, 3, stride, bias=True) for stride in conv_strides)
        )
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
        bev_BCYX = self.convs(self.pillars(self.voxelize(points), len(points)))
        if self.bev_backbone is None or self.head is None:
            return TeacherOutput(bev_BCYX, None)
        return TeacherOutput(bev_BCYX, self.head(self.bev_backbone(bev_BCYX)))

    def voxelize(self, points: Sequence[torch.Tensor]) -> Voxels:
        """The pillars that `forward` sees."""
        cap = self.max_voxels_train if self.training else self.max_voxels_test
        return voxelize_batch(
            points, self.range_m, self.voxel_m, self.cells_xyz, self.max_points, cap
        )


def build_teacher(spec: TeacherSpec, with_head: bool = True) -> PointPillars:
    """Build the network a teacher spec describes, with the initial weights it is trained from.

    Args:
        spec: sizes of everything.
        with_head: False leaves out BEV backbone and head (enough for stage 1).

    Raises:
        ValueError: a head that does not fit the encoder.
    """
    if not isinstance(spec.head, AnchorHeadSpec):
        raise ValueError(f'{spec.name}: pillars take an anchor head, found {spec.head.kind}')
    bev_backbone = head = None
    if with_head:
        bev_backbone = BevBackbone(spec.encoder.channels, **spec.bev.model_dump())
        head = AnchorHead(
            bev_backbone.out_channels,
            len(spec.classes),
            anchor_sizes_lwh=[anchor.size_lwh for anchor in spec.head.anchors],
            anchor_bottoms_z=[anchor.bottom_z for anchor in spec.head.anchors],
            rotations_rad=spec.head.rotations_rad,
            range_m=spec.grid.range_m,
            direction_offset_rad=spec.head.direction_offset_rad,
        )
    return PointPillars(
        spec.grid.range_m,
        spec.grid.voxel_m,
        spec.grid.cells_xyz,
        spec.max_points_per_voxel,
        spec.max_voxels_train,
        spec.max_voxels_test,
        spec.encoder.channels,
        spec.encoder.conv_strides,
        bev_backbone,
        head,
        [anchor.matched_iou for anchor in spec.head.anchors],
        [anchor.unmatched_iou for anchor in spec.head.anchors],
    )
