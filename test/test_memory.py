"""Memory that is short, really: one sentence, and not a traceback."""

import cv2
import numpy as np
import pytest
import torch
from exported_students import tiny_spec, tiny_student
from scarce_memory import at_most_more, said

from cmkd_ros.checkpoint import Bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.errors import last_line, memory_shortage
from cmkd_ros.graph_cache import cached_graph
from cmkd_ros.kitti_files import KittiCalibration, write_calibration

FOCAL = 190.0
TRAINING_FOCAL = 38 * FOCAL  # a picture of 320 x 96 becomes one of 12160 x 3648
POSE = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])


@pytest.fixture
def bundle(tmp_path):
    """Bundle of the tiny student with anchors, trained with a very long lens."""
    data, weights = tiny_spec('anchor').model_dump(mode='json'), tiny_student('anchor').state_dict()
    file = tmp_path / 'tiny.cmkd'
    return str(save_bundle(file, Bundle('student', data, weights, True, TRAINING_FOCAL)))


@pytest.mark.parametrize(
    'allocate',
    [
        lambda: torch.empty(2**40),
        lambda: np.empty(2**40, np.float32),
        lambda: cv2.resize(np.zeros((2, 2, 3), np.uint8), (2**20, 2**20)),
    ],
)
def test_the_errors_of_torch_numpy_and_opencv_tell_how_much(allocate):
    with pytest.raises(Exception) as told, at_most_more(500):
        allocate()
    text = memory_shortage(told.value)
    assert text.startswith('out of memory on this machine, which had no ')
    gigabytes = float(text.split()[-3])
    assert gigabytes == pytest.approx(2**42 / 1e9, rel=0.26)  # OpenCV: three bytes a pixel
    assert last_line(told.value) == text


@pytest.mark.parametrize(
    ('error', 'told'),
    [
        (
            torch.OutOfMemoryError(
                'CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of '
                '139.80 GiB of which 8.50 MiB is free.'
            ),
            'out of memory on the GPU, which had no 0.021 GB more',
        ),
        (RuntimeError('CUDA error: out of memory\nCUDA kernel errors might be ...'), 'on the GPU'),
        (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), 'out of memory on the GPU'),
        (MemoryError(), 'out of memory on this machine'),
        (RuntimeError('std::bad_alloc'), 'out of memory on this machine'),
    ],
)
def test_other_errors_of_memory_are_known_by_their_words(error, told):
    assert memory_shortage(error).endswith(told)


def test_other_errors_are_none_of_memory(capsys):
    assert memory_shortage(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None
    assert last_line(RuntimeError('at here.cpp:1\n no such operator ')) == 'no such operator'
    assert last_line(RuntimeError()) == 'RuntimeError'


def test_a_picture_too_large_to_detect_in_is_told_in_one_sentence(bundle, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'image.png'), np.zeros((96, 320, 3), np.uint8))
    projection = np.array([[FOCAL, 0, 160, 0], [0, FOCAL, 48, 0], [0, 0, 1, 0]])
    calibration = KittiCalibration(projection, np.eye(3), POSE)
    write_calibration(tmp_path / 'calib.txt', calibration)
    picture = ['--image', str(tmp_path / 'image.png'), '--calib', str(tmp_path / 'calib.txt')]
    with at_most_more(400):
        code = main(['detect', '--model', bundle, '--device', 'cpu', *picture])
    assert code == 1
    assert (
        said(capsys) == 'cmkd: detect ran out of memory on this machine, which had no 0.53 GB more'
    )


def test_a_benchmark_too_large_is_told_in_one_sentence(bundle, capsys):
    with at_most_more(500):
        code = main(['benchmark', '--model', bundle, '--size', '20000', '20000', '--device', 'cpu'])
    assert code == 1
    assert said(capsys) == (
        'cmkd: benchmark ran out of memory on this machine, which had no 4.8 GB more; less is '
        'needed with a smaller --size or --batch'
    )


def test_a_comparison_too_large_is_told_after_the_export(
    exported, bundle, tmp_path, monkeypatch, capsys
):
    student, graph = exported('anchor')
    monkeypatch.setenv('CMKD_CACHE', str(tmp_path))
    cached_graph(student).write_bytes(graph.read_bytes())
    with at_most_more(1500):
        code = main(['export', '--model', bundle, '--size', '20000', '20000'])
    assert code == 1
    assert said(capsys) == (
        'cmkd: export ran out of memory on this machine, which had no 4.8 GB more; less is needed '
        'with a smaller --size'
    )
