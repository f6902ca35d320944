"""The fast form of students against their plain modules, which are the oracle."""

import pytest
import torch
from torch import nn

from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.fast_conv import FoldedConv, PackedConv
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import build_student

HW = (96, 320)
FP32_LIMIT, BF16_LIMIT = 1e-5, 3e-2
# The official image network and centre head at a quarter of their width; the small student.
VARIANTS = {
    'aspp': ('scd_r50', {'layer4_channels': 256, 'depth_channels': 32}),
    'center head': ('ctp_r50', {'layer4_channels': 128, 'depth_channels': 32}),
    'r18': ('r18', {}),
    # Its first block of layer4 has no convolution around it: what layer3 gives must survive.
    'r18, plain shortcut': ('r18', {'layer4_channels': 256, 'downscale': 1}),
}


def small_student(variant):
    name, image = VARIANTS[variant]
    data = load_spec(name).model_dump()
    data['grid'] |= {
        'voxel_m': (1.28, 1.28, 0.8), 'range_m': (2.0, -20.48, -3.0, 42.96, 20.48, 1.0),
    }  # fmt: skip
    data['image'].update(image)
    data['bev'] |= {key: [32] * len(data['bev'][key]) for key in ('filters', 'up_filters')}
    data |= {'bev_channels': 32, 'adaptation_blocks': 2}
    torch.manual_seed(0)
    student = build_student(NetworkSpec.model_validate(data)).eval()
    generator = torch.Generator().manual_seed(3)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as after training, not 0 and 1
            for tensor, low, high in (
                (module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.6, 1.2), (module.bias.data, -0.1, 0.1),
            ):  # fmt: skip
                tensor.uniform_(low, high, generator=generator)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            module.bias.data.uniform_(-0.1, 0.1, generator=generator)
    return student


def inputs_for(camera, batch=1, hw=HW, seed=1):
    cam_to_img, ref_to_cam = (matrix.expand(batch, -1, -1).clone() for matrix in camera)
    cam_to_img[:, :2] *= hw[1] / 1242
    ref_to_cam[:, 1, 3] -= 0.2 * torch.arange(batch)  # every camera of a batch another pose
    image = torch.rand(batch, 3, *hw, generator=torch.Generator().manual_seed(seed))
    return image, cam_to_img, ref_to_cam


def all_maps(output):
    return {'depth': output.depth_logits_BDHW, 'bev': output.bev_BCYX} | vars(output.head)


def run(network, inputs):
    with torch.inference_mode():
        return {name: m.float().clone() for name, m in all_maps(network(*inputs)).items()}


def deviations(found, expected):
    """Relative root mean square of every map."""
    return {
        name: ((found[name] - m).square().mean().sqrt() / m.square().mean().sqrt()).item()
        for name, m in expected.items()
    }


@pytest.fixture(scope='module', params=VARIANTS)
def plain(request):
    return small_student(request.param)


@pytest.mark.parametrize('rows', [False, True], ids=['convolutions', 'row products'])
def test_fp32_maps_are_those_of_the_plain_modules(plain, rows, kitti_camera):
    fast = fast_form(plain, row_products=rows)
    for inputs in (
        inputs_for(kitti_camera),
        inputs_for(kitti_camera, batch=2, seed=2),
        inputs_for(kitti_camera, hw=(75, 201), seed=3),  # another size: other layouts and indices
        inputs_for(kitti_camera, seed=4),
    ):
        expected = run(plain, inputs)
        found = run(fast, inputs)
        errors = deviations(found, expected)
        assert max(errors.values()) < FP32_LIMIT, errors
        assert all(found[name].shape == m.shape for name, m in expected.items())


def test_bf16_maps_are_close(plain, kitti_camera):
    inputs = inputs_for(kitti_camera)
    errors = deviations(run(fast_form(plain, 'bf16'), inputs), run(plain, inputs))
    assert 1e-5 < max(errors.values()) < BF16_LIMIT, errors


def test_public_operators_give_the_same(plain, kitti_camera):
    """Where packed convolutions do not work, folded ones stand in."""
    fast = fast_form(plain, packed=False)
    assert any(isinstance(m, FoldedConv) for m in fast.modules())
    assert not any(isinstance(m, PackedConv) for m in fast.modules())
    inputs = inputs_for(kitti_camera)
    assert max(deviations(run(fast, inputs), run(plain, inputs)).values()) < FP32_LIMIT


def test_padding_is_the_mean_colour(kitti_camera):
    plain = small_student('aspp')
    image, *camera = inputs_for(kitti_camera)
    image[..., 80:, :] = image[..., 290:] = torch.nan
    errors = deviations(run(fast_form(plain), (image, *camera)), run(plain, (image, *camera)))
    assert max(errors.values()) < FP32_LIMIT, errors


def test_the_plain_student_keeps_its_weights_and_its_image(kitti_camera):
    plain = small_student('r18')
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    inputs = inputs_for(kitti_camera)
    expected, image = run(plain, inputs), inputs[0].clone()
    fast = fast_form(plain)
    first = run(fast, inputs)

    assert torch.equal(inputs[0], image)
    assert all(torch.equal(before[name], tensor) for name, tensor in plain.state_dict().items())
    assert all(torch.equal(expected[name], m) for name, m in run(plain, inputs).items())
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert all(torch.equal(first[name], m) for name, m in run(fast, inputs).items())


def test_a_stage_1_student_has_a_fast_form(kitti_camera):
    plain = small_student('r18')
    plain.bev_backbone = plain.head = None
    inputs = inputs_for(kitti_camera)
    with torch.inference_mode():
        expected, found = plain(*inputs), fast_form(plain)(*inputs)
    assert found.head is None
    assert (found.bev_BCYX - expected.bev_BCYX).norm() < FP32_LIMIT * expected.bev_BCYX.norm()


def test_no_fast_form_of_a_student_in_training_or_of_another_precision():
    student = small_student('r18')
    with pytest.raises(ValueError, match="precision 'fp16': a fast form has fp32 or bf16"):
        fast_form(student, 'fp16')
    with pytest.raises(ValueError, match=r'call student\.eval\(\) first'):
        fast_form(student.train())
