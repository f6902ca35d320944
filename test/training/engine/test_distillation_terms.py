"""Which losses a batch is taught with: by stage, kind of head, labels and weights."""

import dataclasses

import pytest
import torch

from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, StudentOutput
from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.distill.center_label_loss import center_label_loss, center_targets
from cmkd_ros.training.distill.center_response_loss import center_response_loss
from cmkd_ros.training.distill.response_loss import anchor_response_loss
from cmkd_ros.training.engine.distill_module import distillation_terms
from cmkd_ros.training.engine.recipe import DistillWeights
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput

CENTER = {'hm': 3, 'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}
WEIGHTS = DistillWeights(bev=32, depth=0, cls=1, box=4, label_cls=3, label_box=2)
BOX = torch.tensor([[20.0, 3.0, -0.8, 3.9, 1.6, 1.5, 0.3]])


def center_maps(seed: int) -> CenterHeadOutput:
    generator = torch.Generator().manual_seed(seed)
    maps = {name: torch.randn(2, n, 30, 28, generator=generator) for name, n in CENTER.items()}
    return CenterHeadOutput(**maps)


def anchor_maps(seed: int) -> AnchorHeadOutput:
    generator = torch.Generator().manual_seed(seed)
    return AnchorHeadOutput(*(torch.randn(2, 5, 4, n, generator=generator) for n in (18, 42, 12)))


def outputs(head_of) -> tuple[StudentOutput, TeacherOutput]:
    bev = torch.rand(2, 2, 8, 5, 4, generator=torch.Generator().manual_seed(0))
    student = StudentOutput(torch.zeros(2, 121, 3, 4), bev[0], head_of(1))
    return student, TeacherOutput(bev[1], head_of(2))


def batch(labelled: tuple[bool, bool]) -> Batch:
    """Two frames that both have a box, whether or not it may be used."""
    return Batch(
        frame_ids=('a', 'b'),
        image_B3HW=torch.zeros(2, 3, 24, 32),
        image_sizes_B2=torch.tensor([[24, 32]] * 2),
        cam_to_img_B34=torch.zeros(2, 3, 4),
        ref_to_cam_B44=torch.zeros(2, 4, 4),
        points=None,
        boxes=(BOX, BOX),
        class_ids=(torch.tensor([1]), torch.tensor([1])),
        depth_Bhw=None,
        labelled_B=torch.tensor(labelled),
    )


def terms_of(student, teacher, labelled=(False, False), spec='ctp_r50', weights=WEIGHTS):
    return distillation_terms(student, teacher, batch(labelled), load_spec(spec), weights)


def test_unlabelled_frames_teach_a_centre_head_the_teachers_maps():
    student, teacher = outputs(center_maps)
    terms = terms_of(student, teacher)
    assert list(terms) == ['bev', 'hm', 'box']
    expected = center_response_loss(student.head, teacher.head, 1.0, 4.0)
    assert (terms['hm'], terms['box']) == (expected.hm, expected.box)


def test_labelled_frames_teach_it_their_labels_too():
    student, teacher = outputs(center_maps)
    terms = terms_of(student, teacher, labelled=(False, True))
    spec = load_spec('ctp_r50')
    targets = center_targets(BOX, torch.tensor([1]), 3, spec.grid.range_m, (30, 28), 0.1, 2)
    expected = center_label_loss(student.head, [None, targets], hm_weight=3.0, box_weight=2.0)
    assert list(terms) == ['bev', 'hm', 'box', 'label_hm', 'label_box']
    assert (terms['label_hm'], terms['label_box']) == (expected.label_hm, expected.label_box)
    assert expected.label_box > 0


def test_labels_never_teach_an_anchor_head():
    student, teacher = outputs(anchor_maps)
    weights = DistillWeights(bev=0, depth=0, cls=2, box=2, dir=0.4)
    terms = terms_of(student, teacher, (True, True), 'scd_r50', weights)
    expected = anchor_response_loss(student.head, teacher.head, 3, 2.0, 2.0, 0.4)
    assert terms == expected.as_dict()


def test_stage_1_compares_features_only():
    student, teacher = outputs(center_maps)
    student = dataclasses.replace(student, head=None)
    assert list(terms_of(student, teacher, labelled=(True, True))) == ['bev']


def test_what_cannot_be_compared_is_named():
    student, teacher = outputs(center_maps)
    with pytest.raises(ValueError, match='CenterHeadOutput and AnchorHeadOutput'):
        terms_of(student, dataclasses.replace(teacher, head=anchor_maps(3)))
    with pytest.raises(ValueError, match='CenterHeadOutput and NoneType'):
        terms_of(student, dataclasses.replace(teacher, head=None))
    with pytest.raises(ValueError, match='no depth targets'):
        terms_of(student, teacher, weights=WEIGHTS.model_copy(update={'depth': 0.5}))
