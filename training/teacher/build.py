"""From a teacher spec to the network."""

from __future__ import annotations

from typing import Any

from cmkd_ros.model.bev import BevBackbone
from cmkd_ros.model.spec import AnchorHeadSpec, CenterHeadSpec
from cmkd_ros.model.student import build_head
from cmkd_ros.training.teacher.centerpoint import CenterPoint
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher, Voxelizer
from cmkd_ros.training.teacher.pointpillars import PointPillars
from cmkd_ros.training.teacher.second import Second
from cmkd_ros.training.teacher.spec import PillarsSpec, SparseSpec, TeacherSpec


def build_teacher(spec: TeacherSpec, with_head: bool = True) -> LidarTeacher:
    """Build the network a teacher spec describes, with the initial weights it is trained from.

    Args:
        spec: sizes of everything.
        with_head: False leaves out BEV backbone and head (enough for stage 1).

    Raises:
        ImportError: a sparse teacher without spconv.
        ValueError: a head that does not fit the encoder.
    """
    bev_backbone = None
    head: Any = None
    if with_head:
        bev_backbone = BevBackbone(spec.bev_shape[0], **spec.bev.model_dump())
        head = build_head(
            spec.head, bev_backbone.out_channels, len(spec.classes), spec.grid.range_m
        )
    voxelizer = Voxelizer(
        spec.grid.range_m,
        spec.grid.voxel_m,
        spec.grid.cells_xyz,
        spec.max_points_per_voxel,
        spec.max_voxels_train,
        spec.max_voxels_test,
    )
    match spec.encoder, spec.head:
        case PillarsSpec() as encoder, AnchorHeadSpec() as anchor:
            return PointPillars(
                voxelizer,
                encoder.channels,
                encoder.conv_strides,
                bev_backbone,
                head,
                *_ious(anchor),
            )
        case SparseSpec() as encoder, AnchorHeadSpec() as anchor:
            return Second(voxelizer, encoder.widths, bev_backbone, head, *_ious(anchor))
        case SparseSpec() as encoder, CenterHeadSpec() as center:
            return CenterPoint(
                voxelizer,
                encoder.widths,
                bev_backbone,
                head,
                center.gaussian_overlap,
                center.min_radius,
            )
    raise ValueError(f'{spec.name}: {spec.encoder.kind} take an anchor head, found a centre head')


def _ious(head: AnchorHeadSpec) -> tuple[list[float], list[float]]:
    anchors = head.anchors
    return [a.matched_iou for a in anchors], [a.unmatched_iou for a in anchors]
