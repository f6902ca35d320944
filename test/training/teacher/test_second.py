"""The SECOND teacher against values recorded from the official code (cmkd-spec K3)."""

import numpy as np
import pytest
import torch
from golden_teachers import TOLERANCE, box_deviation, run_sparse_teacher, stage_errors
from golden_values import relative_rms

from cmkd_ros.geometry.overlap import nms_bev
from cmkd_ros.model.anchor_head import decode_boxes
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student

pytest.importorskip('spconv', reason='needs spconv')


@pytest.mark.parametrize('flip', [False, True])
def test_maps_on_the_range_of_the_student(shared_dir, flip):
    record = f'teacher_in_scd_R50_V2_000002{"_flip" if flip else ""}.npz'
    golden = np.load(shared_dir / 'goldens' / record)
    run = run_sparse_teacher(shared_dir, 'second_scd', flip)
    errors = stage_errors(run, golden)
    head = run.output.head
    for name, map_ in (
        ('head.cls', head.cls_logits),
        ('head.box', head.box_deltas),
        ('head.dir', head.dir_logits),
    ):
        errors[name] = relative_rms(map_, golden, name)
    assert max(errors.values()) < TOLERANCE, errors
    sums_C = run.output.bev_BCYX[0].double().sum((1, 2)).numpy()
    np.testing.assert_allclose(sums_C, golden['bev.sum_per_channel'], rtol=1e-5)


@pytest.fixture(scope='module')
def alone(shared_dir):
    """The stand-alone teacher's run, and its record."""
    golden = np.load(shared_dir / 'goldens/teacher_standalone_second_teacher_000002.npz')
    return run_sparse_teacher(shared_dir, 'second'), golden


def test_maps_of_the_teacher_on_its_own(alone):
    errors = stage_errors(*alone)
    assert max(errors.values()) < TOLERANCE, errors


def test_decoded_boxes_are_the_official_ones(alone):
    run, golden = alone
    head, output = run.teacher.head, run.output.head
    logits_NK = output.cls_logits.reshape(-1, 3)
    assert int((logits_NK.sigmoid().amax(1) >= 0.1).sum()) == golden['n_score_ge_0.1'][0]

    index = torch.from_numpy(golden['top50.anchor_index'][0])
    scores, labels = logits_NK[index].sigmoid().max(1)
    np.testing.assert_allclose(scores, golden['top50.score'][0], atol=1e-6)
    assert np.array_equal(labels + 1, golden['top50.label'][0])
    anchors = head.anchors(tuple(output.cls_logits.shape[1:3]), 'cpu')[index]
    boxes = decode_boxes(output.box_deltas.reshape(-1, 7)[index], anchors)
    boxes[:, 6] = head.resolve_yaw(boxes[:, 6], output.dir_logits.reshape(-1, 2)[index])
    assert box_deviation(boxes, torch.from_numpy(golden['top50.box'][0])) < 1e-3


def test_suppression_keeps_the_official_boxes(alone):
    run, golden = alone
    post = run.spec.post
    candidates = run.teacher.head.decode(run.output.head, 0, post.score_threshold, post.nms_max_in)
    boxes = candidates.boxes_K7
    final = torch.from_numpy(golden['final.boxes'])
    twin = (boxes[:, None, :6] - final[:, :6]).abs().amax(2).argmin(0)
    assert box_deviation(boxes[twin], final) < 1e-3
    assert torch.equal(candidates.labels_K[twin] + 1, torch.from_numpy(golden['final.labels']))
    np.testing.assert_allclose(candidates.scores_K[twin], golden['final.scores'], atol=1e-5)

    # The best scores are one or two steps of float32 from 1: rounding decides which of them comes
    # first. Given the official order among these, exactly the official boxes must remain.
    scores = candidates.scores_K.double()
    scores[twin] += 3e-7
    kept = nms_bev(boxes, scores, post.nms_iou, post.nms_max_in, post.nms_max_out)
    assert sorted(kept.tolist()) == sorted(twin.tolist())

    found = find_boxes(run.teacher.head, run.output.head, post)[0]
    assert abs(len(found) - len(final)) < 5
    if torch.backends.cpu.get_cpu_capability() == 'AVX512':  # torch sorts ties otherwise elsewhere
        assert box_deviation(found.boxes_K7, final) < 1e-3


def test_the_student_can_take_the_teachers_backbone_and_head(alone):
    teacher = alone[0].teacher.state_dict()
    with torch.device('meta'):
        student = build_student(load_spec('scd_r50')).state_dict()
    parts = ('bev_backbone.', 'head.')
    shared = [key for key in student if key.startswith(parts)]
    assert len([key for key in shared if key.startswith('head.')]) == 6
    assert set(shared) == {key for key in teacher if key.startswith(parts)}
    assert all(teacher[key].shape == student[key].shape for key in shared)
