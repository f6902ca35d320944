"""The PointPillars teacher against values recorded from the official code (cmkd-spec K3)."""

import math

import numpy as np
import pytest
import torch
from golden_values import golden_frames, relative_rms

from cmkd_ros.geometry.overlap import iou_bev
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import official_to_ours
from cmkd_ros.training.parity.rule import make_checkpoint, read_table
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.official_names import POINTPILLARS_RULES
from cmkd_ros.training.teacher.spec import load_teacher_spec

TOLERANCE = 1e-5  # relative rms; the official code repeats itself to 1e-6


def run_golden(shared_dir, name):
    """Teacher with the weights of the rule, and all its maps on frame 000002."""
    spec = load_teacher_spec(name)
    teacher = build_teacher(spec).eval()
    checkpoint = make_checkpoint(read_table(shared_dir / 'docs/statedict/teacher-pointpillar.tsv'))
    teacher.load_state_dict(official_to_ours(checkpoint, teacher.state_dict(), POINTPILLARS_RULES))
    sample = golden_frames(shared_dir, spec.grid.range_m, ['000002'], with_image=False)[0]
    scans = [torch.from_numpy(sample.points_N4)]
    maps = {}
    teacher.bev_backbone.register_forward_hook(lambda *a: maps.update({'bev.backbone': a[2]}))
    with torch.inference_mode():
        maps['vfe.pillar'] = teacher.pillars.pillar_features(teacher.voxelize(scans))
        output = teacher(scans)
    maps['bev'] = output.bev_BCYX
    return spec, teacher, output, maps


def test_maps_on_the_range_of_the_student(shared_dir):
    golden = np.load(shared_dir / 'goldens/teacher_in_pp_R50_V2_000002.npz')
    _, _, output, maps = run_golden(shared_dir, 'pointpillars_scd')
    maps |= {
        'head.cls': output.head.cls_logits,
        'head.box': output.head.box_deltas,
        'head.dir': output.head.dir_logits,
    }
    for name, tensor in maps.items():
        assert relative_rms(tensor, golden, name) < TOLERANCE, name
    sums_C = maps['bev'][0].double().sum((1, 2)).numpy()
    np.testing.assert_allclose(sums_C, golden['bev.sum_per_channel'], rtol=1e-5)


def test_maps_and_boxes_of_the_teacher_on_its_own(shared_dir):
    golden = np.load(shared_dir / 'goldens/teacher_standalone_pointpillar_teacher_000002.npz')
    spec, teacher, output, maps = run_golden(shared_dir, 'pointpillars')
    for name, tensor in maps.items():
        assert relative_rms(tensor, golden, name) < TOLERANCE, name

    # The recorded boxes before suppression, by anchor.
    index = torch.from_numpy(golden['top50.anchor_index'][0])
    scores_NK = output.head.cls_logits.reshape(-1, 3).sigmoid()
    assert int((scores_NK.amax(1) >= 0.1).sum()) == golden['n_score_ge_0.1'][0]
    scores, labels = scores_NK[index].max(1)
    np.testing.assert_allclose(scores, golden['top50.score'][0], atol=1e-6)
    candidates = teacher.head.decode(output.head, 0, spec.post.score_threshold, 4096)
    boxes, own_scores = candidates.boxes_K7.double(), candidates.scores_K
    nearest = torch.cdist(torch.from_numpy(golden['top50.box'][0][:, :3]).double(), boxes[:, :3])
    assert float(nearest.amin(1).max()) < 1e-3

    # A thousand candidates share the saturated score 1.0, so that the order in which suppression
    # visits them is not defined. The recorded result must be a valid one for our candidates.
    final = torch.from_numpy(golden['final.boxes']).double()
    final_scores = torch.from_numpy(golden['final.scores'])
    gap = (boxes[:, None, :6] - final[:, :6]).abs().amax(2)
    twin = gap.argmin(0)
    assert float(gap.amin(0).max()) < 1e-3
    assert torch.equal(candidates.labels_K[twin] + 1, torch.from_numpy(golden['final.labels']))
    turn = (boxes[twin, 6] - final[:, 6] + math.pi).remainder(2 * math.pi) - math.pi
    assert float(turn.abs().max()) < 1e-3
    assert float(iou_bev(final, final).fill_diagonal_(0).max()) < spec.post.nms_iou + 1e-4
    may_suppress = own_scores[:, None] <= final_scores + 1e-6
    covered = (iou_bev(boxes, final) * may_suppress).amax(1) > spec.post.nms_iou
    covered[twin] = True
    assert covered.all()
    assert abs(len(find_boxes(teacher.head, output.head, spec.post)[0]) - len(final)) < 10


def test_the_small_student_can_take_the_teachers_backbone_and_head():
    teacher = build_teacher(load_teacher_spec('pointpillars_r18')).state_dict()
    student = build_student(load_spec('r18')).state_dict()
    shared = [key for key in student if key.startswith(('bev_backbone.', 'head.'))]
    assert shared
    assert all(teacher[key].shape == student[key].shape for key in shared)
    assert set(shared) == {k for k in teacher if k.startswith(('bev_backbone.', 'head.'))}


@pytest.fixture
def scans():
    generator = torch.Generator().manual_seed(4)
    low, span = torch.tensor([2.0, -30, -2, 0]), torch.tensor([40.0, 60, 2, 1])
    return [torch.rand(n, 4, generator=generator) * span + low for n in (500, 0)]


def test_stage_1_needs_no_head_and_an_empty_scan_is_no_fault(scans):
    teacher = build_teacher(load_teacher_spec('pointpillars_r18'), with_head=False).eval()
    with torch.inference_mode():
        output = teacher(scans)
    assert output.head is None
    assert output.bev_BCYX.shape == (2, 64, 94, 70)
    assert float(output.bev_BCYX.min()) >= 0
    assert output.bev_BCYX.isfinite().all()


def test_every_parameter_learns(scans):
    teacher = build_teacher(load_teacher_spec('pointpillars_r18')).train()
    head = teacher(scans).head
    (head.cls_logits.sum() + head.box_deltas.square().sum() + head.dir_logits.sum()).backward()
    idle = [name for name, p in teacher.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a batch norm cancels out, but for rounding.
    assert [name for name in idle if not name.endswith('conv.bias')] == []


def test_the_cap_of_pillars_follows_the_mode():
    spec = load_teacher_spec('pointpillars_r18')
    spec = spec.model_copy(update={'max_voxels_train': 3, 'max_voxels_test': 7})
    teacher = build_teacher(spec, with_head=False)
    x = torch.linspace(3, 40, 30)
    scan = torch.stack([x, torch.zeros(30), torch.zeros(30), torch.ones(30)], dim=1)
    assert len(teacher.train().voxelize([scan]).counts_V) == 3
    assert len(teacher.eval().voxelize([scan]).counts_V) == 7
