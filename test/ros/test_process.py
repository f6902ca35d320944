"""The node as the process that a launch file starts: arguments, signals, exit codes."""

import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from cmkd_ros.ros.node_process import NodeProcess, detector_process, write_parameters

MODULE = [sys.executable, '-m', 'cmkd_ros.ros.node']


def wait_for_log(process, pattern, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not re.search(pattern, process.log.read_text()):
        assert process.exit_code() is None, process.log.read_text()
        assert time.monotonic() < deadline, process.log.read_text()
        time.sleep(0.02)


def test_parameter_files_are_what_ros_reads(tmp_path):
    write_parameters(tmp_path / 'p.yaml', {'model.path': 'a', 'pose.transform': (1.0, 2.0)})
    assert yaml.safe_load((tmp_path / 'p.yaml').read_text()) == {
        '/**': {'ros__parameters': {'model': {'path': 'a'}, 'pose': {'transform': [1.0, 2.0]}}}
    }


def test_the_command_line_that_launch_produces(small_model, tmp_path, project_root):
    """Node name, namespace, two parameter files and remappings, in launch's form and order."""
    write_parameters(tmp_path / 'given.yaml', {'model.path': str(small_model), 'device': 'cpu'})
    process = NodeProcess(
        [
            *MODULE,
            *('--ros-args', '--log-level', 'info', '--ros-args'),
            *('-r', '__node:=front', '-r', '__ns:=/perception'),
            *('--params-file', str(project_root / 'config/detect.yaml')),
            *('--params-file', str(tmp_path / 'given.yaml')),
            *('-r', 'image:=/cam/left', '-r', 'camera_info:=/cam/left_info'),
        ],
        tmp_path / 'log.txt',
    )
    try:
        wait_for_log(process, r'\[perception\.front\]: active after .* images on /cam/left, ')
        wait_for_log(process, r'detections on /perception/detections')
    finally:
        assert process.stop(signal.SIGINT) == 0
    assert 'Traceback' not in process.log.read_text()


@pytest.mark.parametrize('signals', [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_ends_cleanly_whatever_it_is_told(signals, small_model):
    with detector_process({'model.path': str(small_model), 'device': 'cpu'}, {}) as process:
        wait_for_log(process, 'active after')
        for each in signals[:-1]:
            process.send(each)
        assert process.stop(signals[-1]) == 0
        assert 'Traceback' not in process.log.read_text()


@pytest.mark.parametrize(('sent', 'delay_s'), [(signal.SIGINT, 0.7), (signal.SIGTERM, 1.7)])
def test_ends_cleanly_while_it_starts(sent, delay_s, small_model):
    """Between the first import and the warm-up; where exactly depends on the machine."""
    with detector_process({'model.path': str(small_model), 'device': 'cpu'}, {}) as process:
        time.sleep(delay_s)
        assert process.stop(sent) == 0, process.log.read_text()
        assert 'Traceback' not in process.log.read_text()


@pytest.mark.parametrize(
    ('yaml_text', 'words'),
    [
        ('/**: {ros__parameters: {pose: {source: guess}}}', "pose.source = 'guess'"),
        ('/**: {ros__parameters: [1, 2', 'parameter'),
    ],
)
def test_a_wrong_parameter_is_one_line_of_ours_and_exit_code_2(tmp_path, yaml_text, words):
    file = tmp_path / 'wrong.yaml'
    file.write_text(yaml_text)
    done = subprocess.run(
        [*MODULE, '--ros-args', '--params-file', str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    (fatal,) = [line for line in done.stderr.splitlines() if line.startswith('[FATAL]')]
    assert words in fatal
    assert 'Traceback' not in done.stderr


def test_a_node_without_a_model_lives_on_and_says_so(tmp_path):
    with detector_process({'model.path': str(tmp_path / 'no.cmkd')}, {}) as process:
        wait_for_log(process, r'cannot be configured: .*no\.cmkd: no such model file')
        time.sleep(0.3)
        assert process.exit_code() is None
        assert 'no such model file' in process.complaint()
        assert process.stop() == 0
