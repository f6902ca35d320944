"""The three LiDAR teachers on a KITTI frame, beside the recorded values (cmkd-spec K3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmkd_ros.geometry.overlap import nms_bev
from cmkd_ros.model.outputs import HeadOutput
from cmkd_ros.model.post import Head
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.training.data.augment import flip_sample
from cmkd_ros.training.parity.frames import golden_frames
from cmkd_ros.training.parity.records import (
    Record,
    Row,
    boxes_row,
    exact_row,
    map_row,
)
from cmkd_ros.training.parity.rule import fill_by_rule
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher
from cmkd_ros.training.teacher.official_names import official_rules
from cmkd_ros.training.teacher.pointpillars import PointPillars
from cmkd_ros.training.teacher.spec import TeacherSpec, load_teacher_spec

HEAD_MAPS = {
    'head.cls': 'cls_logits', 'head.box': 'box_deltas', 'head.dir': 'dir_logits',
    'head.center': 'center', 'head.center_z': 'center_z', 'head.dim': 'dim', 'head.rot': 'rot',
    'head.hm': 'hm',
}  # fmt: skip
# Less than any real difference of scores, more than rounding makes of equal ones.
TIE_BREAK = 3e-7


@dataclass(frozen=True)
class TeacherGolden:
    """A recorded run of a teacher."""

    title: str
    spec: str  # name in config/teachers
    file: str
    flip: bool = False


TEACHER_GOLDENS = (
    TeacherGolden('SECOND in the range of scd', 'second_scd', 'teacher_in_scd_R50_V2_000002.npz'),
    TeacherGolden(
        'SECOND in the range of scd, mirrored', 'second_scd',
        'teacher_in_scd_R50_V2_000002_flip.npz', flip=True,
    ),
    TeacherGolden('SECOND alone', 'second', 'teacher_standalone_second_teacher_000002.npz'),
    TeacherGolden(
        'PointPillars in the range of pp', 'pointpillars_scd', 'teacher_in_pp_R50_V2_000002.npz'
    ),
    TeacherGolden(
        'PointPillars alone', 'pointpillars',
        'teacher_standalone_pointpillar_teacher_000002.npz',
    ),
    TeacherGolden(
        'CenterPoint in the range of ctp', 'centerpoint_ctp', 'teacher_in_ctp_R50_V2_000002.npz'
    ),
    TeacherGolden(
        'CenterPoint alone', 'centerpoint', 'teacher_standalone_centerpoint_teacher_000002.npz'
    ),
)  # fmt: skip


def teacher_rows(goldens: Path, golden: TeacherGolden) -> list[Row]:
    """Run a teacher once and compare all that was recorded.

    Raises:
        ImportError: a sparse teacher without spconv.
    """
    record = dict(np.load(goldens / golden.file))
    spec = load_teacher_spec(golden.spec)
    teacher = build_teacher(spec).eval()
    fill_by_rule(teacher, official_rules(spec))
    frames = golden_frames(goldens, spec.grid.range_m, ['000002'], with_image=golden.flip)
    sample = frames.sample(0, flip_sample if golden.flip else None)
    scans = [torch.from_numpy(sample.points_N4)]
    stages: dict[str, Any] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, name=name: stages.update({name: out}))
        for name, module in _stages_of(teacher).items()
    ]
    with torch.inference_mode():
        rows = _voxel_rows(teacher, scans, spec, record)
        output = teacher(scans)
    for hook in hooks:
        hook.remove()
    bev_backbone = stages.pop('bev.backbone')
    for name, voxels in stages.items():
        rows += _sparse_rows(name, voxels, record)
    rows += [map_row('bev', output.bev_BCYX, record)]
    rows += [map_row('bev.backbone', bev_backbone, record)]
    rows += [
        map_row(name, getattr(output.head, field), record)
        for name, field in HEAD_MAPS.items()
        if f'{name}.shape' in record
    ]
    return rows + _box_rows(teacher, output.head, spec.post, record)


def _stages_of(teacher: LidarTeacher) -> dict[str, torch.nn.Module]:
    """Modules whose output was recorded, by official name."""
    if teacher.bev_backbone is None:
        raise ValueError('expected a teacher with its head')
    stages: dict[str, torch.nn.Module] = {}
    if hasattr(teacher, 'sparse'):
        stages = {f'x_conv{n}': teacher.get_submodule(f'sparse.stage{n}') for n in (1, 2, 3, 4)}
        stages['encoded'] = teacher.get_submodule('sparse.squash')
    return stages | {'bev.backbone': teacher.bev_backbone}


def _voxel_rows(
    teacher: LidarTeacher, scans: list[torch.Tensor], spec: TeacherSpec, record: Record
) -> list[Row]:
    voxels = teacher.voxelize(scans)
    rows = [
        exact_row('voxel.coords', voxels.coords_bzyx_V4.numpy(), record['voxel.coords']),
        exact_row('voxel.num_points', voxels.counts_V.numpy(), record['voxel.num_points']),
        map_row('voxel.points', voxels.padded_VP4(spec.max_points_per_voxel), record),
    ]
    if 'vfe.pillar.shape' in record:
        if not isinstance(teacher, PointPillars):
            raise ValueError(f'{spec.name}: pillars were recorded, but it has none')
        return [*rows, map_row('vfe.pillar', teacher.pillars.pillar_features(voxels), record)]
    return [*rows, map_row('vfe.mean', voxels.means_V4(), record)]


def _sparse_rows(name: str, voxels: Any, record: Record) -> list[Row]:
    """Active voxels, sorted by scan, z, y, x as recorded, and their features."""
    coords_V4 = voxels.indices.long().numpy()
    order_V = np.lexsort(coords_V4.T[::-1])
    coords_V4 = coords_V4[order_V]
    head = record[f'{name}.coords_sorted_head']
    found = [len(coords_V4), *coords_V4.sum(0), *coords_V4[: len(head)].ravel()]
    expected = [record[f'{name}.count'], *record[f'{name}.coords_sum'], *head.ravel()]
    count = exact_row(f'{name} active voxels', len(coords_V4), record[f'{name}.count'])
    same = exact_row(f'{name} coordinates', found, expected)
    features_VC = voxels.features[torch.from_numpy(order_V)]
    return [count, same, map_row(name, features_VC, record, f'{name}.feat_sorted')]


def _box_rows(
    teacher: LidarTeacher, output: HeadOutput | None, post: PostSpec, record: Record
) -> list[Row]:
    """Boxes before and after suppression.

    Hundreds of scores differ by rounding only or saturate at 1, so that the order in which
    suppression visits them depends on the last bit of the maps and on how torch sorts on this
    machine. It is given the recorded order of those; then exactly the recorded boxes must remain.
    """
    head: Head | None = teacher.head
    if 'final.boxes' not in record or head is None:
        return []
    found = head.decode(output, 0, post.score_threshold, post.nms_max_in)
    boxes_K7 = found.boxes_K7
    final_N7 = torch.from_numpy(record['final.boxes'])
    twins_N = _nearest(boxes_K7, final_N7)
    scores_K = found.scores_K.double()
    scores_K[twins_N] += TIE_BREAK
    kept = nms_bev(boxes_K7, scores_K, post.nms_iou, post.nms_max_in, post.nms_max_out)
    rows = []
    if 'n_score_ge_0.1' in record:
        passing = head.decode(output, 0, post.score_threshold, 10**6)
        rows.append(
            exact_row('anchors with score >= 0.1', [len(passing)], record['n_score_ge_0.1'])
        )
    labels_N = found.labels_K[kept][_nearest(boxes_K7[kept], final_N7)]
    return [
        *rows,
        boxes_row('final.boxes', boxes_K7[kept].numpy(), final_N7.numpy()),
        exact_row('final.labels', labels_N.numpy() + 1, record['final.labels']),
    ]


def _nearest(boxes_K7: torch.Tensor, wanted_N7: torch.Tensor) -> torch.Tensor:
    """Index of the nearest of `boxes_K7` for each of `wanted_N7`."""
    return (boxes_K7[:, None, :6] - wanted_N7[:, :6]).abs().amax(2).argmin(0)
