"""The student scd_r50 on a KITTI frame, beside the recorded maps and boxes (cmkd-spec K3).

The official pp student is the same network.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from cmkd_ros.geometry import Boxes3D
from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.lift import VoxelColumns
from cmkd_ros.model.outputs import AnchorHeadOutput, StudentOutput
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student
from cmkd_ros.official import STUDENT_RULES
from cmkd_ros.training.data.collate import make_batch
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.parity.frames import golden_frames
from cmkd_ros.training.parity.records import (
    BOX_LIMIT,
    Record,
    Row,
    array_row,
    boxes_row,
    exact_row,
    map_row,
    sampled,
)
from cmkd_ros.training.parity.rule import fill_by_rule

# official name -> our module whose output it is
MODULES = {
    'bb.conv1': 'image_backbone.conv1',
    'bb.layer1': 'image_backbone.layer1',
    'bb.layer2': 'image_backbone.layer2',
    'bb.layer3': 'image_backbone.layer3',
    'bb.layer4': 'image_backbone.layer4',
    'ddn.aspp': 'depth_head.aspp',
    'ddn.logits': 'depth_head',
    'feat.reduced': 'reduce',
    'bev.collapse': 'collapse',
    'bev.da': 'adaptation',
    'bev.backbone': 'bev_backbone',
}
HEAD = {'head.cls': 'cls_logits', 'head.box': 'box_deltas', 'head.dir': 'dir_logits'}
POST_MAX_IN = 200_000  # more than there are anchors: to count those above the threshold


def student_rows(goldens: Path) -> list[Row]:
    """Run the student once and compare all that was recorded."""
    record = dict(np.load(goldens / 'student_scd_R50_V2_000002.npz'))
    spec = load_spec('scd_r50')
    student = build_student(spec).eval()
    fill_by_rule(student, STUDENT_RULES)
    frames = golden_frames(goldens, spec.grid.range_m, ['000002'], with_points=False)
    batch = make_batch([frames[0]])
    maps, columns, output = _run(student, batch)

    normalised = student.image_backbone.normalise(batch.image_B3HW)
    in_image = [name for name in MODULES if not name.startswith('bev.')]
    in_bev = [name for name in MODULES if name.startswith('bev.')]
    bins = output.depth_logits_BDHW.argmax(1).numpy()
    return [
        map_row('input.normalized', normalised, record),
        *(map_row(name, maps[name], record) for name in in_image),
        exact_row('ddn.argmax', bins, record['ddn.argmax']),
        _frustum_row(maps, record),
        map_row('voxel', _voxels(columns, spec), record),
        *(map_row(name, maps[name], record) for name in in_bev),
        *(map_row(name, getattr(output.head, field), record) for name, field in HEAD.items()),
        *_box_rows(student, spec, output, batch, record),
    ]


def _run(
    student: Student, batch: Batch
) -> tuple[dict[str, torch.Tensor], VoxelColumns, StudentOutput]:
    maps: dict[str, torch.Tensor] = {}
    columns: list[VoxelColumns] = []

    def keep(name: str) -> torch.utils.hooks.RemovableHandle:
        module = student.get_submodule(MODULES[name])
        # Copied: the next layer may work in place.
        return module.register_forward_hook(lambda _m, _i, out: maps.update({name: out.clone()}))

    hooks = [keep(name) for name in MODULES]
    hooks.append(student.lift.register_forward_hook(lambda _m, _i, out: columns.extend(out)))
    with torch.inference_mode():
        output = student(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
    for hook in hooks:
        hook.remove()
    return maps, columns[0], output


def _frustum_row(maps: dict[str, torch.Tensor], record: Record) -> Row:
    """Recorded elements of a volume that our network never builds."""
    shape = tuple(int(n) for n in record['frustum.shape'])
    positions = sampled(np.arange(math.prod(shape)))
    _, channel, depth, row, column = np.unravel_index(positions, shape)
    features = maps['feat.reduced'][0]
    probability = maps['ddn.logits'][0].softmax(0)
    found = features[channel, row, column] * probability[depth, row, column]
    return array_row('frustum', found.numpy(), record['frustum.samp'])


def _voxels(columns: VoxelColumns, spec: NetworkSpec) -> torch.Tensor:
    """The voxel volume (1, C, Z, Y, X) as the official code has it."""
    n_x, n_y, n_z = spec.grid.cells_xyz
    voxels = torch.zeros(n_y * n_x, n_z, columns.values_MZC.shape[2])
    voxels[columns.cells_M] = columns.values_MZC
    return voxels.view(n_y, n_x, n_z, -1).permute(3, 2, 0, 1)[None]


def _box_rows(
    student: Student, spec: NetworkSpec, output: StudentOutput, batch: Batch, record: Record
) -> list[Row]:
    head = student.head
    if not isinstance(head, AnchorHead) or not isinstance(output.head, AnchorHeadOutput):
        raise ValueError(f'{spec.name}: expected a student with an anchor head')
    passing = head.decode(output.head, 0, spec.post.score_threshold, POST_MAX_IN)
    (found,) = find_boxes(head, output.head, spec.post)
    final = Boxes3D(found.boxes_K7.double().numpy())
    locations_N3, _, rotations_N, alphas_N = final[:50].to_kitti(batch.ref_to_cam_B44[0].numpy())
    scores = np.sort(record['final.0.scores'])[::-1]
    locations = np.concatenate([locations_N3, rotations_N[:, None], alphas_N[:, None]], axis=1)
    golden = [record['kitti.0.location'], record['kitti.0.rotation_y'], record['kitti.0.alpha']]
    return [
        exact_row('anchors with score >= 0.1', [len(passing)], record['n_score_ge_0.1']),
        boxes_row('top50.box', passing.boxes_K7[:50].numpy(), record['top50.box'][0]),
        boxes_row('final.boxes', final.array_N7, record['final.0.boxes']),
        array_row('final.scores', found.scores_K.numpy(), scores),
        _kitti_row(locations, np.column_stack(golden)),
    ]


def _kitti_row(ours_K5: np.ndarray, golden_N5: np.ndarray) -> Row:
    """KITTI locations and angles, each recorded object with the nearest of ours."""
    gap = ours_K5[None] - golden_N5[:, None]
    gap[..., 3:] = (gap[..., 3:] + np.pi) % (2 * np.pi) - np.pi
    deviation = float(np.abs(gap).max(axis=-1).min(axis=1).max())
    counts = f'{len(golden_N5)} objects', f'{len(ours_K5)} objects'
    return Row('kitti location, rotation_y, alpha', *counts, deviation, BOX_LIMIT)
