"""The detector as a whole: what it computes is what the plain network says."""

import numpy as np
import pytest
import torch

from cmkd_ros.detector import Detector
from cmkd_ros.geometry import CameraModel
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student

T_CAM_REF = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
WIDTH, HEIGHT, FOCAL = 416, 128, 240.0


@pytest.fixture(scope='module')
def scene():
    """A small student that finds something everywhere, a picture and its camera."""
    torch.manual_seed(0)
    spec = load_spec('r18')
    student = build_student(spec)
    torch.nn.init.normal_(student.head.cls.weight, std=0.15)
    projection = [[FOCAL, 0, WIDTH / 2, 0], [0, FOCAL, HEIGHT / 2, 0], [0, 0, 1, 0]]
    camera = CameraModel.from_projection(projection, WIDTH, HEIGHT)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    inputs = tensors_of(image, camera)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():  # statistics that fit what it sees
        student.train()(*(torch.cat([tensor, tensor]) for tensor in inputs))
    return spec, student.eval(), image, camera


def tensors_of(image, camera):
    return (
        torch.from_numpy(image).permute(2, 0, 1)[None] / 255,
        torch.tensor(camera.projection_px_34[None], dtype=torch.float32),
        torch.tensor(T_CAM_REF[None], dtype=torch.float32),
    )


def test_boxes_are_those_of_the_plain_network(scene):
    spec, student, image, camera = scene
    detector = Detector(student, spec.classes, spec.post, FOCAL)
    found = detector(image, camera, T_CAM_REF)

    with torch.inference_mode():
        output = student(*tensors_of(image, camera))
    expected = find_boxes(student.head, output.head, spec.post)[0]
    assert detector.precision == 'fp32'
    assert len(found) == len(expected) > 50
    np.testing.assert_allclose(found.scores_N, expected.scores_K, atol=1e-4)
    # Cells that the camera does not see all have one score: their order is anything's.
    alone = np.abs(np.diff(found.scores_N, prepend=2, append=-1)).reshape(-1)
    alone = np.minimum(alone[:-1], alone[1:]) > 1e-4
    assert alone.sum() > 10
    boxes, names = found.boxes.array_N7[alone], np.array(found.class_names)[alone]
    np.testing.assert_allclose(boxes, expected.boxes_K7[alone], atol=1e-3)
    assert names.tolist() == [spec.classes[i] for i in expected.labels_K[alone]]


def test_what_the_student_learns_later_needs_a_new_detector(scene):
    spec, _, image, camera = scene
    torch.manual_seed(1)
    student = build_student(spec).eval()
    detector = Detector(student, spec.classes, spec.post, FOCAL)
    detector.set_thresholds(score_threshold=0.005)
    before = detector(image, camera, T_CAM_REF)
    with torch.no_grad():
        student.head.cls.bias.fill_(-50.0)
    assert len(detector(image, camera, T_CAM_REF)) == len(before) > 0


@pytest.mark.parametrize('precision', ['auto', 'bf16', 'fp32'])
def test_the_precision_that_runs_is_told(scene, precision):
    spec, student, image, camera = scene
    detector = Detector(student, spec.classes, spec.post, FOCAL, precision=precision)
    assert detector.precision in ('fp32', 'bf16')
    assert np.isfinite(detector(image, camera, T_CAM_REF).boxes.array_N7).all()


@pytest.mark.parametrize('focal', [FOCAL, 1.5 * FOCAL], ids=['as it is', 'resized'])
@pytest.mark.parametrize('distortion', [(), (-0.2, 0.05, 0, 0, 0)], ids=['rectified', 'raw'])
def test_a_view_of_bgr_pixels_is_prepared_like_rgb(scene, focal, distortion):
    spec, student, image, camera = scene
    detector = Detector(student, spec.classes, spec.post, train_fx_px=FOCAL)
    K = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    P = np.column_stack([K, np.zeros(3)])
    camera = CameraModel(WIDTH, HEIGHT, K, P, np.eye(3), distortion, 'plumb_bob')
    view = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    view.flags.writeable = False  # as the buffer of a message
    expected, seen_camera = detector.prepare(image, camera)
    found, found_camera = detector.prepare(view, camera)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    assert found_camera == seen_camera
    for one, other in zip(
        detector.tensors(view, camera, T_CAM_REF), detector.tensors(image, camera, T_CAM_REF),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ('device', 'gpus', 'words'),
    [
        ('cuda', 0, "device 'cuda': this torch .* sees no CUDA GPU"),
        ('cuda:3', 2, "device 'cuda:3': there are only 2 CUDA GPUs"),
        ('gpu', 0, "device 'gpu': expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_is_not_there_is_told(device, gpus, words, scene, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    with pytest.raises(ValueError, match=words):
        Detector(scene[1], scene[0].classes, scene[0].post, FOCAL, device=device)
