"""The detector around the form for GPUs. On a CPU the form runs too, but for its graph."""

import logging

import numpy as np
import pytest
import torch
from exported_students import tiny_spec, tiny_student

from cmkd_ros.cuda_benchmark import measure
from cmkd_ros.detector import Detector
from cmkd_ros.errors import FailedError
from cmkd_ros.geometry import CameraModel
from cmkd_ros.model.cuda_form import CudaForm
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.fixed_post import FixedPost

T_CAM_REF = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')


@pytest.fixture(autouse=True)
def small_table(monkeypatch):
    """Pairs of candidates take their time on a CPU."""
    monkeypatch.setattr(FixedPost.__init__, '__defaults__', (120,))


def scene(width=320, height=96, seed=0):
    """A picture and its camera."""
    focal = 0.58 * width
    projection = [[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0]]
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3))
    image = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    return image, CameraModel.from_projection(projection, width, height)


def detector_of(student, **kwargs):
    spec = tiny_spec('anchor')
    post = spec.post.model_copy(update={'score_threshold': 0.35})
    return Detector(student, spec.classes, post, 0.0, **kwargs)


@pytest.fixture
def with_form():
    """A detector on the CPU that runs the form for GPUs."""
    student = tiny_student('anchor')
    detector = detector_of(student)
    detector.network = CudaStudent(CudaForm(student, 'fp32'))
    return detector


def assert_same(found, expected):
    assert len(found) == len(expected) > 0
    assert found.class_names == expected.class_names
    np.testing.assert_allclose(found.scores_N, expected.scores_N, atol=1e-4)
    np.testing.assert_allclose(found.boxes.array_N7, expected.boxes.array_N7, rtol=1e-3, atol=1e-3)


def test_detections_are_those_of_the_form_for_cpus(with_form):
    expected = detector_of(tiny_student('anchor'))
    for size in ((320, 96), (208, 80)):
        image, camera = scene(*size)
        found = with_form(image, camera, T_CAM_REF)
        assert_same(found, expected(image, camera, T_CAM_REF))


def test_thresholds_act_from_the_next_image_on(with_form):
    image, camera = scene()
    many = with_form(image, camera, T_CAM_REF)
    with_form.set_thresholds(score_threshold=float(many.scores_N[2]) - 1e-6)
    assert len(with_form(image, camera, T_CAM_REF)) == 3
    with_form.class_thresholds = dict.fromkeys(with_form.class_names, 1.0)
    assert len(with_form(image, camera, T_CAM_REF)) == 0


def test_an_image_that_does_not_fit_its_camera_is_refused(with_form):
    image, camera = scene()
    with pytest.raises(ValueError, match='image is 300x96 but the camera is calibrated for 320x96'):
        with_form(image[:, :300], camera, T_CAM_REF)
    assert isinstance(with_form.network, CudaStudent)


def test_a_form_that_fails_hands_over_to_the_plain_modules(with_form, monkeypatch, caplog):
    image, camera = scene()
    expected = with_form(image, camera, T_CAM_REF)

    def fail(*_):
        raise RuntimeError('CUDA error: operation not permitted\nmore lines')

    monkeypatch.setattr(CudaForm, 'forward', fail)
    other_image, other_camera = scene(208, 80)
    with caplog.at_level(logging.WARNING, logger='cmkd.detector'):
        with_form(other_image, other_camera, T_CAM_REF)
        found = with_form(image, camera, T_CAM_REF)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == (
        'plain modules run from now on: the form for GPUs failed: CUDA error: operation not '
        'permitted'
    )
    assert_same(found, expected)


def test_too_little_memory_is_one_sentence(with_form, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(CudaForm, 'forward', refuse)
    monkeypatch.setattr(type(with_form._plain), 'forward', refuse)
    image, camera = scene()
    with pytest.raises(FailedError) as failed:
        with_form(image, camera, T_CAM_REF)
    assert str(failed.value) == (
        'cpu has too little memory for an image of 320x96 in fp32: free some, or choose bf16 or '
        'device cpu'
    )


def test_the_benchmark_measures_each_way(with_form):
    spec = tiny_spec('anchor')
    student = tiny_student('anchor')
    costs = list(measure(student, spec, torch.device('cpu'), 'fp32', (320, 96), repeats=2))
    assert [cost.name for cost in costs][::3] == ['form', 'plain modules']
    assert all(cost.host_ms > 0 and cost.fault == '' for cost in costs)
    assert all(cost.deviation < 1e-5 and cost.device_ms > 0 for cost in costs[:3])
    assert len({cost.boxes for cost in costs}) == 1


@on_gpu
@pytest.mark.parametrize('precision', ['fp32', 'auto', 'fp16'])
def test_the_whole_on_a_gpu(precision):
    expected = detector_of(tiny_student('anchor'))
    detector = detector_of(tiny_student('anchor'), device='cuda', precision=precision)
    for size, seed in (((320, 96), 0), ((320, 96), 1), ((208, 80), 0), ((320, 96), 0)):
        image, camera = scene(*size, seed)
        found = detector(image, camera, T_CAM_REF)
        wanted = expected(image, camera, T_CAM_REF)
        if precision == 'fp32':
            assert isinstance(detector.network, CudaStudent)
            assert len(found) == len(wanted)
            np.testing.assert_allclose(found.scores_N, wanted.scores_N, atol=1e-3)
        else:  # scores near the threshold change sides
            assert abs(len(found) - len(wanted)) <= 3 + 0.2 * len(wanted)


@on_gpu
def test_a_gpu_without_the_form_runs_the_plain_modules(monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(CudaForm, 'forward', refuse)
    detector = detector_of(tiny_student('anchor'), device='cuda')
    assert not isinstance(detector.network, CudaStudent)
    image, camera = scene()
    expected = detector_of(tiny_student('anchor'))(image, camera, T_CAM_REF)
    found = detector(image, camera, T_CAM_REF)
    assert abs(len(found) - len(expected)) <= 2
