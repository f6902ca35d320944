"""Engines compute what the student does, through one graph for every camera and size of image."""

import sys

import pytest
import torch

pytest.importorskip('onnx', reason='needs onnx (extra: export)')
pytest.importorskip('onnxscript', reason='needs onnxscript (extra: export)')
pytest.importorskip('onnxruntime', reason='needs onnxruntime (extra: export)')
pytest.importorskip('openvino', reason='needs openvino (extra: export)')

import onnx
from exported_students import with_unknown_operator

from cmkd_ros.engine_parity import check_engines
from cmkd_ros.engines import ENGINES
from cmkd_ros.errors import FailedError
from cmkd_ros.export import random_frame, write_graph


@pytest.mark.parametrize('head', ['anchor', 'center'])
@pytest.mark.parametrize('name', ENGINES)
def test_an_engine_follows_the_camera_and_the_size_of_the_image(exported, name, head):
    student, file = exported(head)
    engine = ENGINES[name](student, file)
    cameras = set()
    for size_wh in ((320, 96), (250, 130)):  # the second is no multiple of the stride
        for seed in (0, 1, 0):
            image, cam_to_img, ref_to_cam = random_frame(student, size_wh, seed)
            inputs = (image, cam_to_img[None], ref_to_cam[None])
            with torch.inference_mode():
                expected = vars(student(*inputs).head)
            found = vars(engine(*inputs).head)
            assert list(found) == list(expected)
            for key, wanted in expected.items():
                assert (found[key] - wanted).norm() < 1e-4 * wanted.std() * wanted.numel() ** 0.5
            cameras.add(round(expected[key].std().item(), 4))
    assert len(cameras) == 4  # else nothing above depended on image and camera


@pytest.mark.parametrize('name', ENGINES)
def test_one_image_at_a_time(exported, name):
    student, file = exported('anchor')
    image, cam_to_img, ref_to_cam = random_frame(student, (64, 32), 0)
    with pytest.raises(ValueError, match=f'{name} takes one image at a time, found 2'):
        ENGINES[name](student, file)(image.repeat(2, 1, 1, 1), cam_to_img[None], ref_to_cam[None])


def test_an_engine_has_its_precisions(exported):
    student, file = exported('anchor')
    with pytest.raises(ValueError, match='onnxruntime computes in fp32, not in bf16'):
        ENGINES['onnxruntime'](student, file, 'bf16')


@pytest.mark.parametrize('name', ENGINES)
def test_an_operator_that_an_engine_refuses_is_told_in_one_line(exported, name, tmp_path):
    student, file = exported('anchor')
    odd = with_unknown_operator(file, tmp_path / 'odd.onnx')
    with pytest.raises(FailedError, match=rf'^{name} does not open \S+odd\.onnx: .*Odd.*$') as told:
        ENGINES[name](student, odd)
    assert '\n' not in str(told.value)


@pytest.mark.parametrize('name', ENGINES)
@pytest.mark.parametrize(
    ('source', 'told'),
    [
        ('', "is too old: module '{name}' has no attribute '"),  # OpenVINO before 2023.1
        ('raise ImportError', 'is installed but cannot be loaded: ImportError'),  # onnxruntime 1.18
        ('import libodd', "is installed but cannot be loaded: No module named 'libodd'"),
    ],
)
def test_an_engine_of_another_time_is_told_in_one_line(
    exported, name, source, told, tmp_path, monkeypatch
):
    student, file = exported('anchor')
    (tmp_path / f'{name}.py').write_text(f'{source}\n')
    monkeypatch.syspath_prepend(tmp_path)
    for loaded in [loaded for loaded in sys.modules if loaded.partition('.')[0] == name]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(FailedError) as found:
        ENGINES[name](student, file)
    assert str(found.value).startswith(f'{name} {told.format(name=name)}')
    monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.parametrize('name', ENGINES)
def test_an_engine_that_fails_while_running_says_so_and_goes_on(exported, name):
    student, file = exported('anchor')
    engine = ENGINES[name](student, file)
    image, cam_to_img, ref_to_cam = random_frame(student, (64, 32), 0)
    with pytest.raises(FailedError, match=f'^{name} does not run: ') as told:
        engine(image[:, :1], cam_to_img[None], ref_to_cam[None])  # the graph wants three channels
    assert '\n' not in str(told.value)
    assert engine(image, cam_to_img[None], ref_to_cam[None]).head.cls_logits.isfinite().all()


def test_no_frame_proves_nothing(exported):
    with pytest.raises(ValueError, match='0 frames to compare: expected 1 or more'):
        check_engines(*exported('anchor'), (64, 32), frames=0)


@pytest.mark.parametrize('external_data', [False, True])
def test_fp16_halves_the_file_and_stays_near_the_student(exported, tmp_path, external_data):
    student, full = exported('anchor')
    file = write_graph(onnx.load(full), tmp_path / 'half.onnx', 'fp16', external_data)
    data = tmp_path / 'half.onnx.data'
    names = {file.name, data.name} if external_data else {file.name}
    assert {path.name for path in tmp_path.iterdir()} == names

    weights = sum(p.numel() for p in student.parameters())
    stored = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert full.stat().st_size - stored == pytest.approx(2 * weights, rel=0.1)
    if external_data:
        assert data.stat().st_size > 0.9 * 2 * weights
    found = check_engines(student, file, (320, 96), frames=1)
    assert [parity.engine for parity in found] == list(ENGINES)
    for parity in found:
        assert parity.passed('fp16')
        assert not parity.passed('fp32')  # the weights were rounded


def test_a_weight_beyond_fp16_is_refused(exported, tmp_path):
    model = onnx.load(exported('anchor')[1])
    weight = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
    weight.raw_data = b'\x00\x00\x80\x49' + weight.raw_data[4:]  # 2 ** 20
    with pytest.raises(ValueError, match=rf'{weight.name} holds 1.04858e\+06 and fp16 ends at 65'):
        write_graph(model, tmp_path / 'half.onnx', 'fp16')
    assert not list(tmp_path.iterdir())
