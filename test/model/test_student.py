"""The student as a whole: sizes, gradients, padding, costs, bad input."""

import weakref

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import build_student

KITTI_HW = (375, 1242)
OUTSIDE_A_SMALL_IMAGE = 17  # rows and columns of canvas that the smaller image of a pair leaves


def build(name='r18', with_head=True):
    torch.manual_seed(0)
    return build_student(load_spec(name), with_head)


def tiny_spec(**image) -> NetworkSpec:
    """The small student on a coarser grid, for tests that train or compare."""
    data = load_spec('r18').model_dump()
    data['grid']['voxel_m'] = (1.28, 1.28, 0.8)
    data['grid']['range_m'] = (2.0, -20.48, -3.0, 42.96, 20.48, 1.0)
    data['image'].update(image)
    return NetworkSpec.model_validate(data)


def batch_of(camera, batch, hw):
    """Random images and the camera that would see them at that size."""
    cam_to_img, ref_to_cam = camera
    scale = hw[1] / KITTI_HW[1]
    cam_to_img = cam_to_img.clone()
    cam_to_img[:2] *= scale
    image = torch.rand(batch, 3, *hw, generator=torch.Generator().manual_seed(1))
    return image, cam_to_img.expand(batch, 3, 4), ref_to_cam.expand(batch, 4, 4)


def all_maps(output) -> dict[str, torch.Tensor]:
    maps = {'depth': output.depth_logits_BDHW, 'bev': output.bev_BCYX}
    return maps | ({} if output.head is None else vars(output.head))


@pytest.mark.parametrize(
    ('name', 'with_head', 'parameters'),
    [
        ('scd_r50', False, 40_538_425),
        ('scd_r50', True, 45_004_673),
        ('ctp_r50', False, 42_788_409),
        ('ctp_r50', True, 44_292_996),
    ],
)
def test_the_official_students_have_the_official_size(name, with_head, parameters):
    with torch.device('meta'):
        student = build_student(load_spec(name), with_head)

    assert sum(p.numel() for p in student.parameters()) == parameters


def test_the_small_student_is_cheap_at_kitti_size(kitti_camera):
    student = build().eval()
    inputs = batch_of(kitti_camera, 1, KITTI_HW)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        output = student(*inputs)
    # Multiply-adds count twice; the gathers of the lift are not counted (1 % of the whole).
    gflop = counter.get_total_flops() / 1e9

    print(f'r18 at 1242x375: {gflop:.1f} GFLOP')
    assert gflop <= 80
    assert output.depth_logits_BDHW.shape == (1, 121, 24, 78)
    assert output.bev_BCYX.shape == (1, 64, 94, 70)
    assert output.cls_logits.shape == (1, 94, 70, 18)
    assert output.box_deltas.shape == (1, 94, 70, 42)
    assert output.dir_logits.shape == (1, 94, 70, 12)


def test_the_centre_head_student_runs(kitti_camera):
    student = build('ctp_r50').eval()
    with torch.inference_mode():
        output = student(*batch_of(kitti_camera, 1, (64, 212)))
        (found,) = find_boxes(student.head, output.head, load_spec('ctp_r50').post)

    assert output.bev_BCYX.shape == (1, 256, 150, 112)
    assert output.hm.shape == (1, 3, 300, 224)
    assert output.rot.shape == (1, 2, 300, 224)
    assert len(found) > 0
    assert (found.boxes_K7[:, 3:6] > 0).all()


@pytest.mark.parametrize('depth_head', ['plain', 'aspp'])
def test_gradients_reach_every_parameter(kitti_camera, depth_head):
    torch.manual_seed(0)
    student = build_student(tiny_spec(depth_head=depth_head)).train()
    output = student(*batch_of(kitti_camera, 2, (128, 416)))
    sum(value.square().mean() for value in all_maps(output).values()).backward()

    without = [
        name
        for name, parameter in student.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    # A bias before batch norm cannot matter: its gradient is rounding, or exactly none.
    assert [name for name in without if not name.endswith('.conv.bias')] == []


@pytest.mark.parametrize('term', ['depth', 'bev', 'cls_logits', 'box_deltas', 'dir_logits'])
def test_every_output_trains_the_image_backbone(kitti_camera, term):
    student = build_student(tiny_spec()).train()
    output = student(*batch_of(kitti_camera, 2, (128, 416)))
    all_maps(output)[term].square().mean().backward()

    assert student.image_backbone.conv1.weight.grad.abs().max() > 0


def test_stage_one_ends_at_the_distilled_layer(kitti_camera):
    student = build(with_head=False).eval()
    with torch.inference_mode():
        output = student(*batch_of(kitti_camera, 1, (128, 416)))

    assert student.bev_backbone is None
    assert student.head is None
    assert output.head is None
    with pytest.raises(AttributeError, match="no map named 'cls_logits'"):
        output.cls_logits  # noqa: B018
    assert set(student.state_dict()) == {
        key for key in build().state_dict() if not key.startswith(('bev_backbone.', 'head.'))
    }


@pytest.mark.parametrize('depth_head', ['plain', 'aspp'])
def test_an_image_gives_the_same_in_any_company(kitti_camera, depth_head):
    """Two images of different size on one canvas, and each alone on the same canvas."""
    torch.manual_seed(0)
    student = build_student(tiny_spec(depth_head=depth_head)).eval()
    image, cam_to_img, ref_to_cam = batch_of(kitti_camera, 2, (128, 416))
    image[1, :, -OUTSIDE_A_SMALL_IMAGE:] = torch.nan
    image[1, :, :, -OUTSIDE_A_SMALL_IMAGE:] = torch.nan
    cam_to_img = cam_to_img.clone()
    cam_to_img[1, 0, 2] += 9.0
    with torch.inference_mode():
        together = all_maps(student(image, cam_to_img, ref_to_cam))
        for b in range(2):
            one = slice(b, b + 1)
            alone = all_maps(student(image[one], cam_to_img[one], ref_to_cam[one]))
            for name, maps in alone.items():
                assert maps.isfinite().all()
                error = (maps - together[name][one]).abs().max() / maps.abs().max()
                assert error < 1e-5, name


def test_bf16_stays_near_fp32(kitti_camera):
    torch.manual_seed(0)
    student = build_student(tiny_spec()).eval()
    inputs = batch_of(kitti_camera, 1, (128, 416))
    with torch.inference_mode():
        expected = all_maps(student(*inputs))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = all_maps(student(*inputs))

    for name, maps in expected.items():
        error = (found[name] - maps).square().mean().sqrt() / maps.square().mean().sqrt()
        print(f'{name}: {error:.1e}')
        assert error < 0.05, name


def test_bf16_trains(kitti_camera):
    torch.manual_seed(0)
    student = build_student(tiny_spec()).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        maps = all_maps(student(*batch_of(kitti_camera, 2, (128, 416))))
    sum(value.float().square().mean() for value in maps.values()).backward()

    gradient = student.image_backbone.conv1.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda i, p, t: (i[0], p, t), r'images must be float \(B, 3, H, W\)'),
        (lambda i, p, t: ((255 * i).byte(), p, t), r'found torch.uint8'),
        (lambda i, p, t: (i[:, :, :20], p, t), r'32x32 pixels, found \(2, 3, 20, 416\)'),
        (lambda i, p, t: (i, p[:1], t), r'cam_to_img must be \(2, 3, 4\), found \(1, 3, 4\)'),
        (lambda i, p, t: (i, p, t[:, :3]), r'ref_to_cam must be \(2, 4, 4\), found \(2, 3, 4\)'),
    ],
)
def test_inputs_that_do_not_fit_are_refused(kitti_camera, change, message):
    student = build_student(tiny_spec()).eval()
    with pytest.raises(ValueError, match=message):
        student(*change(*batch_of(kitti_camera, 2, (128, 416))))


def test_a_map_goes_after_its_last_use(kitti_camera):
    student = build().eval()
    made, alive_at = {}, {}

    def keep(name, pick=lambda found: found):
        return lambda module, given, found: made.__setitem__(name, weakref.ref(pick(found)))

    def look(name):
        return lambda module, given: alive_at.__setitem__(
            name, {key for key, tensor in made.items() if tensor() is not None}
        )

    backbone, columns = student.image_backbone, lambda found: found[0].values_MZC
    backbone.register_forward_hook(keep('features', lambda found: found.features_BCHW))
    backbone.register_forward_hook(keep('deep', lambda found: found.deep_BCHW))
    student.lift.register_forward_hook(keep('columns', columns))
    student.collapse.register_forward_hook(keep('collapsed'))
    for stage in ('depth_head', 'lift', 'collapse', 'adaptation', 'bev_backbone'):
        student.get_submodule(stage).register_forward_pre_hook(look(stage))
    with torch.inference_mode():
        student(*batch_of(kitti_camera, 1, (96, 320)))

    assert alive_at == {
        'depth_head': {'deep'},
        'lift': set(),
        'collapse': {'columns'},
        'adaptation': {'collapsed'},
        'bev_backbone': set(),
    }
