"""Which losses a distillation step has, by head, stage, weights and labels."""

import pytest
import torch

from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, StudentOutput
from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.distill.center_label_loss import center_label_loss, center_targets
from cmkd_ros.training.engine.distill_module import distillation_terms
from cmkd_ros.training.engine.recipe import DistillWeights, load_recipe
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput

SPEC = load_spec('ctp_r50')
CAR = torch.tensor([[20.0, 3.0, -0.8, 3.9, 1.6, 1.5, 0.3]])
SIZE_YX = (30, 24)
CHANNELS = {'hm': 3, 'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}


def center_maps(generator, learns=False) -> CenterHeadOutput:
    return CenterHeadOutput(
        **{
            name: torch.randn(2, n, *SIZE_YX, generator=generator).requires_grad_(learns)
            for name, n in CHANNELS.items()
        }
    )


def anchor_maps(generator) -> AnchorHeadOutput:
    return AnchorHeadOutput(*(torch.randn(2, 4, 5, n, generator=generator) for n in (18, 42, 12)))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def outputs(generator):
    """What a student and its teacher gave for two frames."""

    def make(student_head, teacher_head):
        student = StudentOutput(
            torch.randn(2, 121, 4, 6, generator=generator),
            torch.randn(2, 8, 5, 5, generator=generator).requires_grad_(),
            student_head,
        )
        return student, TeacherOutput(torch.rand(2, 8, 5, 5, generator=generator), teacher_head)

    return make


def batch_of(labelled: list[bool], with_depth: bool = True) -> Batch:
    """Two frames, each with a car; unlabelled ones must not tell theirs."""
    return Batch(
        frame_ids=('a', 'b'),
        image_B3HW=torch.zeros(2, 3, 32, 48),
        image_sizes_B2=torch.tensor([[32, 48]] * 2),
        cam_to_img_B34=torch.zeros(2, 3, 4),
        ref_to_cam_B44=torch.eye(4).expand(2, 4, 4),
        points=None,
        boxes=(CAR, CAR + torch.tensor([5.0, 0, 0, 0, 0, 0, 0])),
        class_ids=(torch.tensor([1]), torch.tensor([1])),
        depth_Bhw=torch.full((2, 4, 6), 12.0) if with_depth else None,
        labelled_B=torch.tensor(labelled),
    )


def test_stage_1_compares_features_and_depth(outputs):
    student, teacher = outputs(None, None)
    weights = DistillWeights(bev=3.0, depth=0.5)
    terms = distillation_terms(student, teacher, batch_of([True, True]), SPEC, weights)
    assert set(terms) == {'bev', 'depth'}
    difference = (student.bev_BCYX - teacher.bev_BCYX).square().mean()
    assert terms['bev'].item() == pytest.approx(3 * difference.item())


def test_a_weight_of_zero_switches_a_term_off_and_needs_no_depth(outputs, generator):
    maps = center_maps(generator)
    student, teacher = outputs(maps, center_maps(generator))
    weights = DistillWeights(bev=0.0, depth=0.0)
    batch = batch_of([False, False], with_depth=False)
    assert set(distillation_terms(student, teacher, batch, SPEC, weights)) == {'hm', 'box'}
    with pytest.raises(ValueError, match='no depth targets'):
        distillation_terms(student, teacher, batch, SPEC, DistillWeights())


def test_a_centre_head_is_taught_by_responses_with_the_weights_of_its_recipe(outputs, generator):
    student, teacher = outputs(center_maps(generator), center_maps(generator))
    batch = batch_of([False, False])
    official = load_recipe('student_ctp_kitti_stage2').weights
    one = official.model_copy(update={'cls': 1.0, 'box': 1.0})
    terms = distillation_terms(student, teacher, batch, SPEC, official)
    plain = distillation_terms(student, teacher, batch, SPEC, one)
    assert set(terms) == {'bev', 'hm', 'box'}
    assert terms['hm'].item() == pytest.approx(plain['hm'].item())
    assert terms['box'].item() == pytest.approx(4 * plain['box'].item())


def test_labels_add_two_terms_to_a_centre_head_for_their_frames_only(outputs, generator):
    student, teacher = outputs(center_maps(generator, learns=True), center_maps(generator))
    weights = DistillWeights(label_cls=3.0, label_box=5.0)
    terms = distillation_terms(student, teacher, batch_of([False, True]), SPEC, weights)
    assert set(terms) == {'bev', 'depth', 'hm', 'box', 'label_hm', 'label_box'}

    batch = batch_of([False, True])
    target = center_targets(batch.boxes[1], batch.class_ids[1], 3, SPEC.grid.range_m, SIZE_YX)
    expected = center_label_loss(student.head, [None, target], 3.0, 5.0)
    assert terms['label_hm'].item() == pytest.approx(expected.label_hm.item())
    assert terms['label_box'].item() == pytest.approx(expected.label_box.item())
    for name in ('hm', 'box', 'label_hm', 'label_box'):
        reached = torch.autograd.grad(
            terms[name], list(vars(student.head).values()), retain_graph=True, allow_unused=True
        )
        assert sum(float(g.abs().sum()) for g in reached if g is not None) > 0, name
    (frame_grad,) = torch.autograd.grad(terms['label_hm'], student.head.hm)
    assert not frame_grad[0].any()
    assert frame_grad[1].any()


def test_an_anchor_head_does_not_look_at_labels(outputs, generator):
    student, teacher = outputs(anchor_maps(generator), anchor_maps(generator))
    spec = load_spec('scd_r50')
    found = [
        distillation_terms(student, teacher, batch_of(labelled), spec, DistillWeights())
        for labelled in ([True, True], [False, False])
    ]
    assert set(found[0]) == {'bev', 'depth', 'cls', 'box', 'dir'}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_heads_of_different_kinds_are_refused(outputs, generator):
    batch = batch_of([False, False])
    for heads in (
        (anchor_maps(generator), center_maps(generator)),
        (center_maps(generator), anchor_maps(generator)),
        (center_maps(generator), None),
    ):
        with pytest.raises(ValueError, match='heads of student and teacher differ'):
            distillation_terms(*outputs(*heads), batch, SPEC, DistillWeights())
