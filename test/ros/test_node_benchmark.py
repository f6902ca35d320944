"""The node's latency: one short run with the three processes of the real one."""

import io
import json
from multiprocessing.connection import Connection

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from rich.console import Console

from cmkd_ros.cli import main
from cmkd_ros.errors import FailedError
from cmkd_ros.ros.benchmark.node_benchmark import measure_node, print_node_benchmark
from cmkd_ros.ros.benchmark.peer_process import PeerProcess


@pytest.fixture(scope='module')
def result():
    size, network_s = (320, 96), 0.02
    return measure_node(size, (10.0,), 2.0, network_s, warm_up_s=1.0)


def test_images_are_answered_and_timed(result):
    (stream,) = result.streams
    assert 5 <= stream.sent <= 20  # of 20; a full machine may not get to all
    assert 0 < stream.answered <= stream.sent
    assert stream.counts['processed'] >= stream.answered
    for series in (stream.published_ms, stream.arrived_ms):
        assert 20.0 <= series['p50'] <= series['p95'] <= series['p99'] <= series['p100'] < 5000
    assert stream.longest_tick_ms >= 50.0
    assert stream.memory_mb['at_the_end'] > 50


def test_the_table_and_the_file_hold_the_same(result):
    text = io.StringIO()
    print_node_benchmark(result, Console(file=text, width=140))
    row = json.loads(json.dumps(result.as_dict()))['streams'][0]
    assert '320x96' in text.getvalue()
    assert f'{row["published_ms"]["p50"]:.1f}' in text.getvalue()
    assert f'{row["answered"]} of {row["sent"]}' in text.getvalue()


def test_wrong_input_is_told_in_one_line(capsys):
    assert main(['benchmark', '--node', '--student', 'r18']) == 2
    assert '--node takes --model FILE' in capsys.readouterr().err
    assert main(['benchmark', '--node', '--seconds', '0']) == 2
    assert 'seconds and rates must be positive' in capsys.readouterr().err
    assert main(['benchmark', '--node', '--model', '/nowhere.cmkd']) == 2
    assert '/nowhere.cmkd: no such model file' in capsys.readouterr().err
    assert main(['benchmark']) == 2
    assert 'benchmark needs --model FILE' in capsys.readouterr().err


def test_a_node_that_cannot_start_is_told_in_one_line(small_model, capsys, monkeypatch):
    """fp16 needs a GPU; the node says so in its log and ends."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    wrong = ['--model', str(small_model), '--precision', 'fp16', '--size', '64', '64']
    assert main(['benchmark', '--node', *wrong, '--rate', '10', '--seconds', '1']) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'cmkd: the node process ended with exit code 2; its log above says why'
    )


def test_a_process_that_has_ended_neither_speaks_nor_listens():
    with PeerProcess('camera', Connection.close) as camera:
        with pytest.raises(FailedError, match='the camera process ended with exit code 0'):
            camera.hear(60.0)
        with pytest.raises(FailedError, match='the camera process ended with exit code 0'):
            camera.tell('go on')
