"""The reference form, against which speed is measured, computes the same as the plain modules."""

import pytest
import torch

from cmkd_ros.model.reference_form import VolumeLift, reference_form
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import build_student


@pytest.fixture(scope='module')
def student():
    data = load_spec('r18').model_dump()
    data['grid']['voxel_m'] = (1.28, 1.28, 0.8)
    data['grid']['range_m'] = (2.0, -20.48, -3.0, 42.96, 20.48, 1.0)
    torch.manual_seed(0)
    return build_student(NetworkSpec.model_validate(data)).eval()


def test_maps_equal_those_of_the_plain_modules(student, kitti_camera):
    cam_to_img, ref_to_cam = kitti_camera
    cam_to_img = cam_to_img.clone()
    cam_to_img[:2] *= 320 / 1242
    other = ref_to_cam.clone()
    other[1, 3] -= 0.3
    inputs = (
        torch.rand(2, 3, 96, 320),
        torch.stack([cam_to_img, cam_to_img]),
        torch.stack([ref_to_cam, other]),
    )
    reference = reference_form(student)
    assert isinstance(reference.lift, VolumeLift)
    assert not isinstance(student.lift, VolumeLift)
    with torch.inference_mode():
        expected, found = student(*inputs), reference(*inputs)
    assert (found.bev_BCYX - expected.bev_BCYX).norm() < 1e-5 * expected.bev_BCYX.norm()
    assert not torch.equal(found.bev_BCYX[0], found.bev_BCYX[1])


def test_convolutions_run_in_the_official_memory_format(student, kitti_camera):
    strides = []
    with torch.inference_mode():
        handle = student.image_backbone.layer1.register_forward_hook(
            lambda module, given, output: strides.append(output.stride(1))
        )
        inputs = (torch.rand(1, 3, 64, 64), *(matrix[None] for matrix in kitti_camera))
        reference_form(student)(*inputs)
        student(*inputs)
        handle.remove()
    assert strides[0] > 1
    assert strides[1] == 1
