"""Running a sparse teacher on the frame behind the golden values, and comparing all its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_values import golden_frames, relative_rms

from cmkd_ros.official import official_to_ours
from cmkd_ros.training.data.augment import flip_sample
from cmkd_ros.training.parity.rule import make_checkpoint, read_table
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher, TeacherOutput
from cmkd_ros.training.teacher.official_names import official_rules
from cmkd_ros.training.teacher.spec import TeacherSpec, load_teacher_spec
from cmkd_ros.training.teacher.voxelize import Voxels

TOLERANCE = 1e-5  # relative rms; the official code repeats itself to 1e-6


@dataclass(frozen=True)
class TeacherRun:
    """A teacher with the weights of the rule, and everything it computes from one frame.

    Attributes:
        stages: sparse tensors by their official names.
        bev_backbone: its output.
    """

    spec: TeacherSpec
    teacher: LidarTeacher
    voxels: Voxels
    output: TeacherOutput
    stages: dict[str, Any]
    bev_backbone: torch.Tensor


def golden_teacher(shared_dir: Path, name: str, with_head: bool = True) -> LidarTeacher:
    """A teacher of `config/teachers` in eval mode with the weights of the rule."""
    spec = load_teacher_spec(name)
    teacher = build_teacher(spec, with_head).eval()
    # The tables have the names that the official code gives the teachers.
    table = name.split('_')[0].replace('pointpillars', 'pointpillar')
    part = '' if with_head else '-stage1-subset'
    checkpoint = make_checkpoint(
        read_table(shared_dir / f'docs/statedict/teacher-{table}{part}.tsv')
    )
    teacher.load_state_dict(
        official_to_ours(checkpoint, teacher.state_dict(), official_rules(spec))
    )
    return teacher


def run_sparse_teacher(shared_dir: Path, name: str, flip: bool = False) -> TeacherRun:
    """Run SECOND or CenterPoint on frame 000002, or on its mirror image."""
    spec, teacher = load_teacher_spec(name), golden_teacher(shared_dir, name)
    frames = golden_frames(shared_dir, spec.grid.range_m, ['000002'])
    sample = frames.sample(0, flip_sample if flip else None)
    scans = [torch.from_numpy(sample.points_N4)]
    maps: dict[str, Any] = {}

    def keep(key):
        return lambda module, arguments, result: maps.update({key: result})

    parts = {f'x_conv{n}': getattr(teacher.sparse, f'stage{n}') for n in (1, 2, 3, 4)}
    parts |= {'encoded': teacher.sparse.squash, 'bev.backbone': teacher.bev_backbone}
    hooks = [part.register_forward_hook(keep(key)) for key, part in parts.items()]
    with torch.inference_mode():
        output = teacher(scans)
    for hook in hooks:
        hook.remove()
    bev_backbone = maps.pop('bev.backbone')
    return TeacherRun(spec, teacher, teacher.voxelize(scans), output, maps, bev_backbone)


def stage_errors(run: TeacherRun, record) -> dict[str, float]:
    """Relative rms deviation of every recorded stage up to the BEV backbone, by official name.

    Raises:
        ValueError: voxels that are not exactly the recorded ones; names the stage.
    """
    if not (
        np.array_equal(run.voxels.coords_bzyx_V4.numpy(), record['voxel.coords'])
        and np.array_equal(run.voxels.counts_V.numpy(), record['voxel.num_points'])
    ):
        raise ValueError('other voxels than recorded')
    slots = run.spec.max_points_per_voxel
    if relative_rms(run.voxels.padded_VP4(slots), record, 'voxel.points') != 0:
        raise ValueError('other points in the voxels than recorded')
    errors = {'vfe.mean': relative_rms(run.voxels.means_V4(), record, 'vfe.mean')}
    for name, voxels in run.stages.items():
        coords = voxels.indices.long().numpy()
        order = np.lexsort(coords.T[::-1])  # by scan, z, y, x
        coords = coords[order]
        head = record[f'{name}.coords_sorted_head']
        if not (
            len(coords) == record[f'{name}.count']
            and list(voxels.spatial_shape) == record[f'{name}.spatial_shape'].tolist()
            and np.array_equal(coords[: len(head)], head)
            and np.array_equal(coords.sum(0), record[f'{name}.coords_sum'])
        ):
            raise ValueError(f'{name}: other active voxels than recorded')
        features = voxels.features[torch.from_numpy(order)]
        errors[name] = relative_rms(features, record, f'{name}.feat_sorted')
    errors['bev'] = relative_rms(run.output.bev_BCYX, record, 'bev')
    errors['bev.backbone'] = relative_rms(run.bev_backbone, record, 'bev.backbone')
    return errors


def box_deviation(found_K7: torch.Tensor, expected_K7: torch.Tensor) -> float:
    """Largest deviation of boxes, in metres, or radians for yaws modulo a full turn."""
    turn_K = (found_K7[:, 6] - expected_K7[:, 6] + torch.pi).remainder(2 * torch.pi) - torch.pi
    gap_K6 = found_K7[:, :6] - expected_K7[:, :6]
    return float(torch.cat([gap_K6, turn_K[:, None]], dim=1).abs().max())
