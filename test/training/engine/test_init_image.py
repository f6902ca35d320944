"""Students that start from torchvision's files; these are recreated here from their names."""

import logging
import re

import pytest
import torch
import yaml
from official_files import student_zeros, write_official

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import STUDENT_RULES, rename_table
from cmkd_ros.training.engine.init_image import start_image_part
from cmkd_ros.training.engine.train import distill

DDN = 'vfe.ffn.ddn.model.'


def deeplab_state() -> dict[str, torch.Tensor]:
    """Keys and shapes of torchvision's DeepLabV3-ResNet50, each tensor of a value of its own."""
    with torch.device('meta'):
        own = build_student(load_spec('scd_r50'), with_head=False).state_dict()
    shapes = {
        official.removeprefix(DDN): own[ours].shape
        for official, ours in rename_table(own, STUDENT_RULES).items()
        if official.startswith(DDN)
    }
    shapes |= {'classifier.4.weight': (21, 256, 1, 1), 'classifier.4.bias': (21,)}
    shapes |= {'aux_classifier.0.weight': (256, 1024, 3, 3), 'aux_classifier.4.bias': (21,)}
    return filled(shapes)


def resnet_state(n: int, count_batches: bool = True) -> dict[str, torch.Tensor]:
    """Keys and shapes of torchvision's ImageNet ResNet-18 or ResNet-50."""
    image = load_spec('scd_r50').image.model_copy(
        update={'backbone': f'resnet{n}', 'layer4_channels': {18: 512, 50: 2048}[n]}
    )
    with torch.device('meta'):
        own = build_student(load_spec('scd_r50').model_copy(update={'image': image}), False)
    prefix = 'image_backbone.'
    shapes = {
        re.sub(r'downsample\.conv', 'downsample.0', re.sub(r'downsample\.bn', 'downsample.1', key))
        .removeprefix(prefix): tensor.shape
        for key, tensor in own.state_dict().items()
        if key.startswith(prefix) and (count_batches or not key.endswith('_tracked'))
    }  # fmt: skip
    return filled(shapes | {'fc.weight': (1000, image.layer4_channels), 'fc.bias': (1000,)})


def filled(shapes) -> dict[str, torch.Tensor]:
    """Tensors of one value each, another one for every key, which take no space."""
    return {
        key: torch.tensor(n, dtype=torch.int64 if key.endswith('_tracked') else torch.float32)
        .expand(tuple(shape))
        for n, (key, shape) in enumerate(shapes.items(), start=1)
    }  # fmt: skip


def value(student, key) -> float:
    tensor = student.state_dict()[key]
    assert (tensor == tensor.flatten()[0]).all()
    return float(tensor.flatten()[0])


@pytest.fixture
def write(tmp_path):
    def write(state, name='image.pth'):
        torch.save(dict(state), tmp_path / name)
        return tmp_path / name

    return write


def test_deeplab_fills_all_of_the_official_image_part_but_the_last_layer(write, caplog):
    state = deeplab_state()
    student = build_student(load_spec('scd_r50'), with_head=False)
    before = student.depth_head.classifier.weight.detach().clone()
    with caplog.at_level(logging.INFO, 'cmkd.train'):
        start = start_image_part(student, write(state))

    assert set(start.taken) == {key for key in state if not key.startswith(('classifier.4', 'aux'))}
    assert set(start.fresh) == {'depth_head.classifier.weight', 'depth_head.classifier.bias'}
    assert start.left_out['classifier.4.weight'] == 'classes of COCO, not depth bins'
    assert start.left_out['aux_classifier.4.bias'] == 'auxiliary classes of COCO'
    assert torch.equal(student.depth_head.classifier.weight, before)
    for theirs, ours in {
        'backbone.layer4.2.conv3.weight': 'image_backbone.layer4.2.conv3.weight',
        'backbone.layer1.0.downsample.1.bias': 'image_backbone.layer1.0.downsample.bn.bias',
        'classifier.0.convs.4.1.weight': 'depth_head.aspp.pooled.conv.weight',
        'classifier.1.weight': 'depth_head.refine.conv.weight',
    }.items():
        assert start.taken[theirs] == ours
        assert value(student, ours) == float(state[theirs].flatten()[0])
    # Every key of either side is in the log.
    for key in [*state, *start.fresh]:
        assert key in caplog.text
    assert "torchvision's DeepLabV3 with a ResNet-50" in caplog.text


def test_resnet_50_fills_the_backbone_only(write):
    state = resnet_state(50, count_batches=False)  # as the files of 2016 are
    student = build_student(load_spec('ctp_r50'), with_head=False)
    start = start_image_part(student, write(state))

    assert start.title == "torchvision's ResNet-50"
    assert set(start.left_out) == {'fc.weight', 'fc.bias'}
    backbone = {key for key in student.state_dict() if key.startswith('image_backbone.')}
    counters = {key for key in backbone if key.endswith('num_batches_tracked')}
    assert set(start.taken.values()) == backbone - counters
    assert counters <= set(start.fresh)
    assert start.fresh['depth_head.aspp.project.conv.weight'] == (
        'an ImageNet file has no depth head'
    )


def test_resnet_18_leaves_out_a_layer4_of_another_width(write):
    state = resnet_state(18)
    student = build_student(load_spec('r18'), with_head=False)
    before = student.image_backbone.layer4[0].conv1.weight.detach().clone()
    start = start_image_part(student, write(state))

    width = 'layer4 is 256 wide in this student and 512 in the file'
    assert {key for key in state if key.startswith('layer4.')} | {'fc.weight', 'fc.bias'} == set(
        start.left_out
    )
    assert start.left_out['layer4.1.conv2.weight'] == width
    assert start.fresh['image_backbone.layer4.1.conv2.weight'] == width
    assert torch.equal(student.image_backbone.layer4[0].conv1.weight, before)
    assert value(student, 'image_backbone.layer3.1.conv2.weight') == float(
        state['layer3.1.conv2.weight'].flatten()[0]
    )


def test_files_that_do_not_fit_are_refused_whole(write):
    r18, r50 = (build_student(load_spec(name), with_head=False) for name in ('r18', 'scd_r50'))
    before = r18.image_backbone.conv1.weight.detach().clone()

    with pytest.raises(ValueError, match=r'does not fit.*take the file of the same ResNet'):
        start_image_part(r18, write(resnet_state(50)))
    with pytest.raises(ValueError, match='for students with its depth head'):
        start_image_part(r18, write(deeplab_state()))
    with pytest.raises(ValueError, match='does not fit'):
        start_image_part(r50, write(resnet_state(18)))
    gap = deeplab_state()
    del gap['classifier.0.convs.2.0.weight']
    with pytest.raises(ValueError, match=r'classifier.0.convs.2.0.weight expected .*found nothing'):
        start_image_part(r50, write(gap))
    with pytest.raises(ValueError, match='layer5.weight has no place'):
        start_image_part(r18, write(resnet_state(18) | {'layer5.weight': torch.zeros(1)}))
    assert torch.equal(r18.image_backbone.conv1.weight, before)


def test_other_checkpoints_are_no_image_networks(tmp_path, write):
    student = build_student(load_spec('r18'), with_head=False)
    official = write_official(tmp_path / 'student.pth', student_zeros('scd_r50', 1))
    with pytest.raises(ValueError, match='found the camera student scd_r50 or pp_r50, stage 1'):
        start_image_part(student, official)
    with pytest.raises(ValueError, match='found 1 tensors of something else'):
        start_image_part(student, write({'weight': torch.zeros(2)}))
    with pytest.raises(FileNotFoundError, match='none.pth'):
        start_image_part(student, tmp_path / 'none.pth')


def test_stage_1_starts_from_the_file(trained, specs, recipe_overrides, write, tmp_path):
    """With a rate that moves nothing, the trained student still has the file's weights."""
    state = {key: tensor * 1e-3 for key, tensor in resnet_state(18).items()}
    overrides = recipe_overrides(
        f'student={specs["student"]}', f'teacher={trained["teacher"]}',
        f'init_image={write(state)}', 'optimiser.lr_max=1.0e-12', 'optimiser.epochs=1',
    )  # fmt: skip
    bundle = load_bundle(distill('student_r18_stage1', overrides, tmp_path / 'run'))

    found = bundle.tensors['image_backbone.layer2.0.conv1.weight']
    expected = state['layer2.0.conv1.weight'].float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert yaml.safe_load((tmp_path / 'run' / 'recipe.yaml').read_text())['init_image']
    assert bundle.provenance['recipe']['init_image'].endswith('image.pth')
