"""The exportable form of a student against its plain modules, for several cameras."""

import pytest
import torch

from cmkd_ros.export import camera_of, map_names
from cmkd_ros.model.export_form import ExportForm
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import build_student

HW = (96, 320)


def coarse_student(name, **image):
    data = load_spec(name).model_dump()
    data['grid']['voxel_m'] = (1.28, 1.28, 0.8)
    data['grid']['range_m'] = (2.0, -20.48, -3.0, 42.96, 20.48, 1.0)
    data['image'].update(image)
    torch.manual_seed(0)
    return build_student(NetworkSpec.model_validate(data)).eval()


@pytest.mark.parametrize('name', ['r18', 'ctp_r50'])
def test_one_graph_serves_every_camera(name, kitti_camera):
    small = {} if name == 'r18' else {'layer4_channels': 128, 'depth_channels': 16}
    student = coarse_student(name, **small)
    form = ExportForm(student)
    seen = set()
    for seed in range(3):
        cam_to_img, ref_to_cam = (matrix.clone() for matrix in kitti_camera)
        cam_to_img[:2] *= HW[1] / 1242 * (0.8 + 0.2 * seed)
        ref_to_cam[1, 3] -= 0.3 * seed
        image = torch.rand(1, 3, *HW, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            expected = vars(student(image, cam_to_img[None], ref_to_cam[None]).head)
            camera = camera_of(student, image, cam_to_img, ref_to_cam)
            found = form(image, *camera)
        seen.add(camera.pixels_Z4M.shape[2])
        assert map_names(student) == tuple(expected)
        for wanted, got in zip(expected.values(), found, strict=True):
            assert got.shape == wanted.shape
            assert (got - wanted).norm() < 1e-5 * wanted.norm()
    assert len(seen) == 3


def test_a_stage_1_student_is_refused():
    student = coarse_student('r18')
    student.bev_backbone = student.head = None
    for attempt in (ExportForm, map_names):
        with pytest.raises(ValueError, match='a stage-1 student has no head'):
            attempt(student)
