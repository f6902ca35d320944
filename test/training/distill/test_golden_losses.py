"""Stage-1 losses of the PointPillars pair on real frames, against the official numbers."""

import json

import pytest
import torch
from deterministic_checkpoint import make_checkpoint, read_table
from golden_values import golden_frames

from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import official_to_ours
from cmkd_ros.training.data.collate import make_batch
from cmkd_ros.training.distill.depth_loss import depth_loss
from cmkd_ros.training.distill.feature_loss import feature_loss
from cmkd_ros.training.teacher.official_names import POINTPILLARS_RULES
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.spec import load_teacher_spec

BINS = ('LID', 2.0, 46.8)

pytestmark = pytest.mark.slow  # a ResNet-50 on three images, twice


@pytest.fixture(scope='module')
def official(shared_dir) -> dict[str, dict[str, float]]:
    """Recorded loss terms by configuration and batch-norm mode."""
    recorded = json.loads((shared_dir / 'goldens/losses.json').read_text())
    return {key.removesuffix('|as-config'): value for key, value in recorded.items()}


@pytest.fixture(scope='module')
def batch(shared_dir):
    """The three frames, unflipped, on the canvas of the largest."""
    range_m = load_spec('pp_r50').grid.range_m
    frames = golden_frames(shared_dir, range_m, with_depth=True)
    return make_batch([frames[i] for i in range(3)])


@pytest.fixture
def student(shared_dir):
    """The stage-1 student with the weights of the rule; the pp and the scd student are one."""
    student = build_student(load_spec('pp_r50'), with_head=False).eval()
    table = read_table(shared_dir / 'docs/statedict/student-scd_pp-stage1.tsv')
    student.load_state_dict(official_to_ours(make_checkpoint(table), student.state_dict()))
    return student


@pytest.fixture
def teacher(shared_dir):
    """The PointPillars teacher without head."""
    teacher = build_teacher(load_teacher_spec('pointpillars_scd'), with_head=False).eval()
    table = read_table(shared_dir / 'docs/statedict/teacher-pointpillar-stage1-subset.tsv')
    weights = official_to_ours(make_checkpoint(table), teacher.state_dict(), POINTPILLARS_RULES)
    teacher.load_state_dict(weights)
    return teacher


def test_stage_1_with_batch_norm_in_eval_mode(student, teacher, batch, official):
    with torch.inference_mode():
        output = student(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
        bev = feature_loss(output.bev_BCYX, teacher(batch.points).bev_BCYX, weight=4.0).bev
        depth = depth_loss(output.depth_logits_BDHW, batch.depth_Bhw, *BINS, weight=1.0).depth
    recorded = official['pp_R50_bev|bn_eval']
    assert bev.item() == pytest.approx(recorded['bev_loss'], rel=1e-6)
    assert depth.item() == pytest.approx(recorded['loss_depth'], rel=1e-6)
    assert (bev + depth).item() == pytest.approx(recorded['total'], rel=1e-6)
    assert depth.item() / 2 == pytest.approx(
        official['scd_R50_bev|bn_eval']['loss_depth'], rel=1e-6
    )


def test_depth_with_batch_norm_in_train_mode(student, batch, official):
    student.train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()  # the recorded run had none
    with torch.inference_mode():
        logits = student.depth_head(student.image_backbone(batch.image_B3HW)[1])
        depth = depth_loss(logits, batch.depth_Bhw, *BINS, weight=0.5).depth
    recorded = official['scd_R50_bev|bn_train']['loss_depth']
    assert depth.item() == pytest.approx(recorded, rel=1e-6)
