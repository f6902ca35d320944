"""The CenterPoint teacher against values recorded from the official code (cmkd-spec K3)."""

import numpy as np
import pytest
import torch
from golden_teachers import TOLERANCE, box_deviation, run_sparse_teacher, stage_errors
from golden_values import relative_rms

from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.training.distill.center_label_loss import center_label_loss, center_targets
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.spec import load_teacher_spec

pytest.importorskip('spconv', reason='needs spconv')


def test_maps_on_the_range_of_the_student(shared_dir):
    golden = np.load(shared_dir / 'goldens/teacher_in_ctp_R50_V2_000002.npz')
    run = run_sparse_teacher(shared_dir, 'centerpoint_ctp')
    errors = stage_errors(run, golden)
    for name, map_ in vars(run.output.head).items():
        errors[f'head.{name}'] = relative_rms(map_, golden, f'head.{name}')
    assert max(errors.values()) < TOLERANCE, errors
    sums_C = run.output.bev_BCYX[0].double().sum((1, 2)).numpy()
    np.testing.assert_allclose(sums_C, golden['bev.sum_per_channel'], rtol=1e-5)


def test_maps_and_boxes_of_the_teacher_on_its_own(shared_dir):
    golden = np.load(shared_dir / 'goldens/teacher_standalone_centerpoint_teacher_000002.npz')
    run = run_sparse_teacher(shared_dir, 'centerpoint')
    errors = stage_errors(run, golden)
    assert max(errors.values()) < TOLERANCE, errors

    (found,) = find_boxes(run.teacher.head, run.output.head, run.spec.post)
    assert box_deviation(found.boxes_K7, torch.from_numpy(golden['final.boxes'])) < 1e-3
    assert np.array_equal(found.labels_K + 1, golden['final.labels'])
    np.testing.assert_allclose(found.scores_K, golden['final.scores'], atol=1e-5)


@pytest.fixture(scope='module')
def teacher():
    return build_teacher(load_teacher_spec('centerpoint_ctp'))


def test_the_student_can_take_the_teachers_backbone_and_head(teacher):
    teacher = teacher.state_dict()
    with torch.device('meta'):
        student = build_student(load_spec('ctp_r50')).state_dict()
    parts = ('bev_backbone.', 'head.')
    shared = [key for key in student if key.startswith(parts)]
    assert len([key for key in shared if key.startswith('head.')]) == 52
    assert set(shared) == {key for key in teacher if key.startswith(parts)}
    assert all(teacher[key].shape == student[key].shape for key in shared)


def test_labels_teach_heat_and_boxes_on_the_teachers_own_grid(teacher):
    generator = torch.Generator().manual_seed(1)
    channels = {'hm': 3, 'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}
    output = CenterHeadOutput(
        **{name: torch.randn(2, n, 300, 224, generator=generator) for name, n in channels.items()}
    )
    car = torch.tensor([[20.0, 3.0, -0.8, 3.9, 1.6, 1.5, 0.3]])
    boxes, ids = [car, car[:0]], [torch.tensor([1]), torch.tensor([], dtype=torch.int64)]
    terms = teacher.loss(output, boxes, ids, cls_weight=3.0, box_weight=5.0)

    range_m, size_yx = load_teacher_spec('centerpoint_ctp').grid.range_m, (300, 224)
    targets = [center_targets(b, i, 3, range_m, size_yx) for b, i in zip(boxes, ids, strict=True)]
    assert targets[0].heat_KYX[0, 165, 90] == 1  # cells of 0.2 m from (2, -30)
    expected = center_label_loss(output, targets, hm_weight=3.0, box_weight=5.0)
    assert terms.as_dict() == expected.as_dict()
    assert terms.label_hm > 0
    assert terms.label_box > 0


def test_scans_and_labels_must_be_as_many(teacher):
    maps = [torch.zeros(2, n, 4, 4) for n in (3, 2, 1, 3, 2)]
    with pytest.raises(ValueError, match='2 scans but boxes of 1'):
        teacher.loss(CenterHeadOutput(*maps), [torch.zeros(0, 7)], [torch.zeros(0)])
