"""int8 in OpenVINO: what is quantised, what is not, and who may use it.

What quantises needs a process of its own, since loaders that fork after nncf's work crash:
`CMKD_TEST_INT8=1 pytest test/test_int8.py`.
"""

import logging
import os
import re
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import torch
from exported_students import tiny_spec

from cmkd_ros.backend import for_backend
from cmkd_ros.checkpoint import Bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.export import camera_of, random_frame
from cmkd_ros.graph_cache import cached_graph, int8_graph
from cmkd_ros.kitti_files import KittiCalibration, KittiObjects, write_calibration, write_labels
from cmkd_ros.model.precision import head_deviation

CPU = torch.device('cpu')
FOCAL = 190.0


def require_nncf():
    pytest.importorskip('nncf', reason='needs nncf (extra: int8)')
    if not os.environ.get('CMKD_TEST_INT8'):
        pytest.skip('quantises only in a process of its own: CMKD_TEST_INT8=1 pytest FILE')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of graphs."""
    monkeypatch.setenv('CMKD_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='module')
def quantised(exported):
    """Function from a head to its tiny student and int8 graph in memory, each made once."""
    require_nncf()
    from cmkd_ros.int8_graph import quantise

    made = {}

    def make(head):
        student, file = exported(head)

        def inputs_of(seed):
            image, *camera = random_frame(student, (320, 96), seed)
            tensors = {'image': image, **camera_of(student, image, *camera)._asdict()}
            return {name: tensor.numpy() for name, tensor in tensors.items()}

        if head not in made:
            made[head] = student, quantise(file, range(4), inputs_of)
        return made[head]

    return make


@pytest.mark.parametrize(('head', 'maps'), [('anchor', 3), ('center', 5)])
def test_what_boxes_are_read_from_stays_in_floating_point(quantised, head, maps):
    from cmkd_ros.int8_graph import last_convolutions

    model = quantised(head)[1]
    kept = last_convolutions(model)
    assert len(set(kept)) == maps + 1  # and the depth distribution
    kinds = {True: set(), False: set()}
    for op in model.get_ordered_ops():
        if op.get_type_name() == 'Convolution':
            weights = op.input_value(1).get_node()
            kinds[op.get_friendly_name() in kept].add(weights.get_type_name())
    assert kinds[True].isdisjoint(kinds[False])
    assert all(kinds.values())


def test_int8_computes_nearly_what_the_student_does_and_tells_its_cost(quantised, cache, caplog):
    from cmkd_ros.int8_graph import save_int8

    student, model = quantised('anchor')
    save_int8(model, int8_graph(student), 'three points of AP')
    assert list(cache.iterdir()) == [int8_graph(student)]  # one file: no pair that can be mixed
    with caplog.at_level(logging.INFO, 'cmkd'):
        chosen = for_backend(student, CPU, 'int8', 'openvino')
    assert (chosen.precision, chosen.backend) == ('int8', 'openvino')
    assert 'int8: three points of AP' in caplog.messages
    assert 1e-3 < head_deviation(chosen.network, student) < 1.0


def test_weights_of_another_graph_fail_the_check(quantised, cache):
    from cmkd_ros.int8_graph import save_int8

    student, model = quantised('anchor')
    file = save_int8(model, int8_graph(student), '')
    parts = read_parts(file)
    content = np.frombuffer(parts['graph.bin'], np.uint8)
    write_parts(file, {**parts, 'graph.bin': content[::-1].tobytes()})
    with pytest.raises(ValueError, match='^backend openvino cannot be used: .*; torch works'):
        for_backend(student, CPU, 'int8', 'openvino')


def test_int8_is_for_openvino_and_after_its_export_only(exported, cache):
    student, _ = exported('anchor')
    with pytest.raises(
        ValueError, match=r'no int8 graph yet \(once: `cmkd export --model FILE --precision int8'
    ):
        for_backend(student, CPU, 'int8', 'openvino')
    for backend in ('torch', 'auto', 'onnxruntime'):
        with pytest.raises(ValueError, match='^precision int8 needs backend openvino$'):
            for_backend(student, CPU, 'int8', backend)


@pytest.fixture
def archive(exported, cache):
    """Student and file of a graph in fp32 where that in int8 is looked for: made in a moment."""
    openvino = pytest.importorskip('openvino', reason='needs openvino (extra: export)')
    from cmkd_ros.int8_graph import save_int8

    student, file = exported('anchor')
    model = openvino.Core().read_model(str(file))
    return student, save_int8(model, int8_graph(student), 'nothing')


def read_parts(file):
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_parts(file, parts):
    with zipfile.ZipFile(file, 'w') as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def change_a_byte(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1000])


def lose_weights(file):
    write_parts(file, {'graph.xml': read_parts(file)['graph.xml']})


def halve_weights(file):
    parts = read_parts(file)
    write_parts(file, {**parts, 'graph.bin': parts['graph.bin'][: len(parts['graph.bin']) // 2]})


def test_graph_and_weights_of_one_archive_compute_what_the_student_does(archive, caplog):
    student, _ = archive
    with caplog.at_level(logging.INFO, 'cmkd'):
        chosen = for_backend(student, CPU, 'int8', 'openvino')
    assert head_deviation(chosen.network, student) < 1e-4
    assert 'int8: nothing' in caplog.messages


@pytest.mark.parametrize('damage', [change_a_byte, cut_short, lose_weights, halve_weights])
def test_a_damaged_archive_is_told_in_one_sentence(archive, damage):
    student, file = archive
    damage(file)
    with pytest.raises(ValueError) as told:
        for_backend(student, CPU, 'int8', 'openvino')
    assert re.fullmatch(
        f'backend openvino cannot be used: openvino does not open {file}: .+; torch works .*',
        str(told.value),
    )


def test_a_full_disk_leaves_the_file_that_was_there(archive):
    """Files of this process end at 100 kB, as on a disk that is full."""
    _, file = archive
    before = file.read_bytes()
    program = f"""if True:
        import openvino, pathlib, resource, signal
        from cmkd_ros.int8_graph import read_int8, save_int8
        file = pathlib.Path({str(file)!r})
        model = read_int8(openvino.Core(), file)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_int8(model, file, 'lost')
        except RuntimeError as error:
            print(type(error).__name__, error)
    """
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert ended.stdout.startswith(f'FailedError openvino does not write {file}: '), ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_missing_quantiser_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    command = ['export', '--precision', 'int8', '--model', str(tmp_path / 'none.cmkd')]
    assert main([*command, '--data', str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cmkd: export needs 'nncf', which is not installed here")


@pytest.fixture
def kitti(tmp_path):
    """Five labelled frames of noise."""
    for name in ('image_2', 'calib', 'label_2'):
        (tmp_path / 'kitti' / name).mkdir(parents=True)
    pose = np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]])
    projection = np.array([[FOCAL, 0, 160, 0], [0, FOCAL, 48, 0], [0, 0, 1, 0]])
    car = ([0.0], [0], [0.0], [[100, 40, 160, 80]], [[1.5, 1.6, 4]], [[1, 1.6, 12]], [0.0])
    generator = np.random.default_rng(0)
    for index in range(5):
        frame = f'{index:06d}'
        pixels = generator.integers(0, 255, (96, 320, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'kitti' / 'image_2' / f'{frame}.png'), pixels)
        calibration = KittiCalibration(projection, np.eye(3), pose)
        write_calibration(tmp_path / 'kitti' / 'calib' / f'{frame}.txt', calibration)
        write_labels(tmp_path / 'kitti' / 'label_2' / f'{frame}.txt', KittiObjects(('Car',), *car))
    return tmp_path / 'kitti'


def test_the_command_tells_what_int8_costs(exported, cache, kitti, tmp_path, capsys, monkeypatch):
    require_nncf()
    from cmkd_ros.engines import OpenVinoEngine
    from cmkd_ros.int8_graph import cost_of, read_int8

    opened, opens = [], OpenVinoEngine._open
    monkeypatch.setattr(
        OpenVinoEngine, '_open', lambda *given: opened.append(given[2]) or opens(*given)
    )
    student, file = exported('anchor')
    data = tiny_spec('anchor').model_dump(mode='json')
    bundle = save_bundle(
        tmp_path / 'tiny.cmkd', Bundle('student', data, student.state_dict(), True, FOCAL)
    )
    cache.mkdir()
    cached_graph(student).write_bytes(file.read_bytes())
    command = ['export', '--model', str(bundle), '--precision', 'int8']
    assert main([*command, '--data', str(kitti), '--calibration', '3', '--frames', '2']) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    cost = 'Car 3D moderate AP (R40) 0.00 instead of 0.00 on 2 frames'
    assert last == f'{int8_graph(student)}: {cost}'
    assert opened == ['fp32', 'int8']
    import openvino

    assert cost_of(read_int8(openvino.Core(), int8_graph(student))) == cost
    assert main(command) == 2
    assert 'int8 needs --data KITTI_FOLDER' in capsys.readouterr().err
