"""Which engine runs a student: what is asked for, what is ready, and why not."""

import logging
import re
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from exported_students import tiny_spec, tiny_student, with_unknown_operator

from cmkd_ros import graph_cache
from cmkd_ros.backend import for_backend, seconds_of
from cmkd_ros.checkpoint import Bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.detector import Detector
from cmkd_ros.geometry import CameraModel
from cmkd_ros.graph_cache import cached_graph, graph_digest
from cmkd_ros.model.student import Student

CPU = torch.device('cpu')
NAMED = ['openvino', 'onnxruntime']
WIDTH, HEIGHT, FOCAL = 320, 96, 190.0


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of graphs."""
    monkeypatch.setenv('CMKD_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def graph(exported, cache):
    """Where the cache holds the graph of the tiny student with anchors, or is to hold it."""
    return cached_graph(exported('anchor')[0])


@pytest.fixture
def filled(exported, cache, graph):
    """A cache that holds that graph."""
    cache.mkdir()
    shutil.copy(exported('anchor')[1], graph)
    return cache


@pytest.fixture
def engines_win(monkeypatch):
    """Engines compute a frame sooner than torch, whatever this machine does meanwhile."""
    monkeypatch.setattr('cmkd_ros.backend.seconds_of', lambda networks: [1.0, 2.0])


def other_student():
    """Another student of the same shape."""
    student = tiny_student('anchor')
    with torch.no_grad():
        student.head.box.bias.add_(1.0)
    return student


def scene():
    """A picture, its camera and pose."""
    coarse = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    projection = [[FOCAL, 0, WIDTH / 2, 0], [0, FOCAL, HEIGHT / 2, 0], [0, 0, 1, 0]]
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])
    image = np.ascontiguousarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
    return image, CameraModel.from_projection(projection, WIDTH, HEIGHT), pose


@pytest.mark.parametrize('backend', NAMED)
def test_a_named_engine_finds_the_boxes_of_torch(filled, backend):
    spec = tiny_spec('anchor')
    detectors = [
        Detector(tiny_student('anchor'), spec.classes, spec.post, FOCAL, backend=name)
        for name in ('torch', backend)
    ]
    assert [detector.backend for detector in detectors] == ['torch', backend]
    expected, found = (detector(*scene()) for detector in detectors)
    assert len(found) == len(expected) > 20
    np.testing.assert_allclose(found.scores_N, expected.scores_N, atol=1e-5)
    assert [path.suffix for path in filled.iterdir()] == ['.onnx']  # exported by nobody again


@pytest.mark.usefixtures('engines_win')
def test_auto_takes_the_first_engine_that_has_the_graph(filled, monkeypatch):
    student = tiny_student('anchor')
    assert for_backend(student, CPU, backend='auto').backend == 'openvino'
    monkeypatch.setitem(sys.modules, 'openvino', None)
    assert for_backend(student, CPU, backend='auto').backend == 'onnxruntime'


@pytest.mark.parametrize(('of_engine', 'runs'), [(0.2, 'openvino'), (0.3, 'torch')])
def test_auto_takes_what_is_sooner(filled, caplog, monkeypatch, of_engine, runs):
    asked = []
    monkeypatch.setattr(
        'cmkd_ros.backend.seconds_of', lambda networks: asked.append(networks) or [of_engine, 0.25]
    )
    with caplog.at_level(logging.INFO, 'cmkd'):
        chosen = for_backend(tiny_student('anchor'), CPU, backend='auto')
    assert (chosen.backend, chosen.precision) == (runs, 'fp32')
    assert chosen.network is asked[0][runs == 'torch']
    assert caplog.messages[-1] == (
        f'backend auto: {runs} in fp32, a test frame takes {1e3 * of_engine:.0f} ms by openvino '
        'and 250 ms by torch'
    )


def test_the_slower_network_is_seen_as_such():
    def slow(*_):
        time.sleep(0.2)

    of_slow, of_quick = seconds_of((slow, lambda *_: None))
    assert of_slow >= 0.2
    assert of_quick < of_slow


def test_auto_without_graph_or_engine_is_torch_and_says_why(cache, caplog, monkeypatch):
    for module in NAMED:
        pytest.importorskip(module, reason=f'needs {module} (extra: export)')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with caplog.at_level(logging.INFO, 'cmkd'):
        chosen = for_backend(tiny_student('anchor'), CPU, backend='auto')
    assert chosen.backend == 'torch'
    assert isinstance(chosen.network, Student)
    assert caplog.messages == [
        'backend auto: torch, because openvino has no graph of this model yet (once: '
        '`cmkd export --model FILE`), and onnxruntime is not installed'
    ]
    assert not cache.exists()


def test_auto_hashes_the_weights_once_for_all_engines(cache, monkeypatch):
    student, hashed = tiny_student('anchor'), []
    for module in NAMED:
        pytest.importorskip(module, reason=f'needs {module} (extra: export)')
    digest = graph_cache.graph_digest
    monkeypatch.setattr(graph_cache, 'graph_digest', lambda s: hashed.append(s) or digest(s))
    assert for_backend(student, CPU, backend='auto').backend == 'torch'
    assert hashed == [student]


@pytest.mark.usefixtures('engines_win')
def test_auto_leaves_a_cpu_with_bf16_to_who_has_bf16(filled, caplog, monkeypatch):
    monkeypatch.setattr('cmkd_ros.backend.cpu_multiplies_bf16', lambda: True)
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with caplog.at_level(logging.INFO, 'cmkd'):
        chosen = for_backend(tiny_student('anchor'), CPU, 'auto', 'auto')
    assert chosen.backend == 'torch'
    assert 'onnxruntime has no bf16' in caplog.text
    assert for_backend(tiny_student('anchor'), CPU, 'fp32', 'auto').backend == 'onnxruntime'


def test_a_graph_belongs_to_its_very_student(cache):
    digests = {graph_digest(student) for student in (tiny_student('anchor'), other_student())}
    assert len(digests) == 2
    assert graph_digest(tiny_student('anchor')) in digests
    assert cached_graph(other_student()).parent == cache


@pytest.mark.parametrize('backend', NAMED)
def test_a_missing_engine_is_told_in_one_sentence(cache, monkeypatch, backend):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(
        ValueError,
        match=f'^backend {backend} cannot be used: {backend} is not installed; torch works '
        'without it$',
    ):
        for_backend(tiny_student('anchor'), CPU, backend=backend)


def test_the_graph_of_another_student_fails_the_check(filled, graph, caplog):
    student = other_student()
    graph.rename(cached_graph(student))
    with pytest.raises(
        ValueError,
        match='^backend openvino cannot be used: openvino computes other head maps than the '
        r'student, by \S+ where 1e-04 is allowed; torch works without it$',
    ):
        for_backend(student, CPU, backend='openvino')
    with caplog.at_level(logging.INFO, 'cmkd'):
        assert for_backend(student, CPU, backend='auto').backend == 'torch'
    assert 'openvino computes other head maps' in caplog.text


@pytest.mark.parametrize('backend', NAMED)
def test_a_damaged_graph_is_told_in_one_sentence(filled, graph, backend):
    graph.write_bytes(graph.read_bytes()[:-1000])
    with pytest.raises(ValueError) as told:
        for_backend(tiny_student('anchor'), CPU, backend=backend)
    text = rf'backend {backend} cannot be used: {backend} does not open {graph}: .*; torch works .*'
    assert re.fullmatch(text, str(told.value))


def test_a_cache_that_cannot_be_written_is_told_before_the_export(tmp_path, monkeypatch):
    pytest.importorskip('onnx', reason='needs onnx (extra: export)')
    pytest.importorskip('openvino', reason='needs openvino (extra: export)')
    (tmp_path / 'file').touch()
    monkeypatch.setenv('CMKD_CACHE', str(tmp_path / 'file' / 'cache'))
    with pytest.raises(
        ValueError,
        match=r'cannot be used: \S+/file/cache: no graph can be kept here \(Not a directory\); '
        'name another folder in the variable CMKD_CACHE; torch works',
    ):
        for_backend(tiny_student('anchor'), CPU, backend='openvino')
    assert for_backend(tiny_student('anchor'), CPU, backend='auto').backend == 'torch'


def test_wrong_choices_are_refused():
    student = tiny_student('anchor')
    with pytest.raises(ValueError, match="backend 'tvm': expected one of auto, torch, openvino"):
        for_backend(student, CPU, backend='tvm')
    with pytest.raises(ValueError, match='backend openvino runs on the CPU, not on cuda'):
        for_backend(student, torch.device('cuda'), backend='openvino')


@pytest.fixture
def bundle(tmp_path):
    """Bundle of the tiny student with anchors."""
    spec, weights = tiny_spec('anchor'), tiny_student('anchor').state_dict()
    data = spec.model_dump(mode='json')
    return save_bundle(tmp_path / 'tiny.cmkd', Bundle('student', data, weights, True, FOCAL))


def test_the_export_command_compares_the_graph_of_the_cache(filled, bundle, capsys):
    before = sorted(filled.iterdir())
    assert main(['export', '--model', str(bundle), '--frames', '2', '--size', '320', '96']) == 0
    assert sorted(filled.iterdir()) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(before[0]))
    told = [line.split() for line in lines[1:]]
    maps = ['cls_logits', 'box_deltas', 'dir_logits']
    assert [row[:2] for row in told] == [[name, key] for name in NAMED for key in maps]
    assert all(0 < float(row[2]) < 1e-4 for row in told)


def test_the_export_command_refuses_a_graph_that_computes_something_else(
    filled, graph, bundle, capsys
):
    graph_of_other = cached_graph(other_student())
    graph.rename(graph_of_other)
    other = bundle.with_name('other.cmkd')
    data, weights = tiny_spec('anchor').model_dump(mode='json'), other_student().state_dict()
    save_bundle(other, Bundle('student', data, weights, True, FOCAL))
    common = ['export', '--frames', '1', '--size', '320', '96', '--model']
    assert main([*common, str(other)]) == 2
    assert 'openvino, onnxruntime computes other maps' in capsys.readouterr().err
    assert main([*common, str(bundle), '--precision', 'fp16']) == 2
    assert 'name it by --onnx' in capsys.readouterr().err


def test_an_operator_that_engines_refuse_ends_the_export_in_one_line_and_leaves_torch(
    filled, graph, bundle, caplog, capsys
):
    with_unknown_operator(graph, graph)
    common = ['--model', str(bundle), '--frames', '1', '--size', '320', '96']
    assert main(['export', *common]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith('cmkd: ')]
    assert re.fullmatch(f'cmkd: openvino does not open {graph}: .*Odd.*', line)
    with caplog.at_level(logging.INFO, 'cmkd'):
        assert for_backend(tiny_student('anchor'), CPU, backend='auto').backend == 'torch'
    assert 'openvino does not open' in caplog.text
    assert 'onnxruntime does not open' in caplog.text


@pytest.mark.usefixtures('engines_win')
def test_the_node_takes_the_engine_of_its_parameter(filled, bundle):
    pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    from cmkd_ros.ros.detector_node import load_model
    from cmkd_ros.ros.parameters import parse_parameters

    for asked, runs in (('auto', 'openvino'), ('torch', 'torch'), ('onnxruntime', 'onnxruntime')):
        settings = parse_parameters({'model.path': str(bundle), 'backend': asked})
        assert load_model(settings)[0].backend == runs
