"""The package as colcon installs it on a robot: built, started and tested from a copy."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    '.*', '__pycache__', 'build', 'install', 'log', 'runs', 'demo_output', '*.egg-info'
)
BUILD_TIMEOUT_S = 180
ANSWER_TIMEOUT_S = 60

pytestmark = [
    pytest.mark.skipif(shutil.which('colcon') is None, reason='needs colcon (./run setup)'),
    pytest.mark.slow,
]


def run_in(workspace: Path, *command: str, timeout_s: float = BUILD_TIMEOUT_S) -> str:
    """What a command prints when run in a built workspace's environment; it must succeed."""
    done = subprocess.run(
        sourced(*command), cwd=workspace, env=environment(), capture_output=True, text=True,
        timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, (
        f'{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}'
    )
    return done.stdout


def sourced(*command: str) -> list[str]:
    """A command line that sources the workspace first, when it is built, as a user does."""
    script = '[ ! -f install/setup.bash ] || . install/setup.bash; exec "$0" "$@"'
    return ['bash', '-c', script, *command]


def environment() -> dict[str, str]:
    """This process's environment, with the venv's own commands and packages in front."""
    prefixes = [sys.prefix, *os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)]
    return {
        **os.environ,
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        'AMENT_PREFIX_PATH': os.pathsep.join(dict.fromkeys(filter(None, prefixes))),
        'PYTHONUNBUFFERED': '1',
    }


@pytest.fixture(scope='module')
def workspace(tmp_path_factory) -> Path:
    """A colcon workspace with a copy of this package, built."""
    workspace = tmp_path_factory.mktemp('workspace')
    shutil.copytree(ROOT, workspace / 'src' / 'cmkd_ros', ignore=NOT_SOURCE)
    run_in(workspace, 'colcon', 'build', '--event-handlers', 'console_direct+')
    return workspace


@pytest.fixture(scope='module')
def prefix(workspace) -> Path:
    return workspace / 'install' / 'cmkd_ros'


def test_everything_is_installed_where_ros_looks_for_it(prefix):
    share = prefix / 'share' / 'cmkd_ros'

    assert (prefix / 'share/ament_index/resource_index/packages/cmkd_ros').is_file()
    assert (share / 'package.xml').is_file()
    for folder in ('config', 'launch'):
        files = [
            p for p in (ROOT / folder).rglob('*') if p.suffix in {'.yaml', '.py', '.xml', '.rviz'}
        ]
        present = {p.relative_to(ROOT / folder) for p in files}
        installed = {p.relative_to(share / folder) for p in (share / folder).rglob('*')}
        assert present <= installed, folder
    for executable in ('cmkd_detector', 'cmkd'):
        path = prefix / 'lib' / 'cmkd_ros' / executable
        assert os.access(path, os.X_OK)
        # So that a robot's venv, which holds torch, is found.
        assert path.read_text().splitlines()[0] == '#!/usr/bin/env python3'


def test_code_recipes_and_networks_come_from_the_install(workspace, prefix):
    program = (
        'import cmkd_ros.training as t, cmkd_ros.model.spec as s; from pathlib import Path;'
        'print(Path(t.__file__).parent); print(s.config_folder());'
        'print(s.load_spec("r18").classes);'
        'print(*sorted(p.name for p in (Path(t.__file__).parent / "recipes").glob("*.yaml")))'
    )

    package, config, classes, recipes = run_in(workspace, 'python3', '-c', program).splitlines()

    assert Path(package).is_relative_to(prefix)
    assert Path(config) == prefix / 'share' / 'cmkd_ros' / 'config'
    assert 'Car' in classes
    assert recipes.split() == sorted(p.name for p in (ROOT / 'training/recipes').glob('*.yaml'))


def test_installed_command_tells_what_it_can_do(workspace, prefix):
    text = run_in(workspace, str(prefix / 'lib/cmkd_ros/cmkd'), '--help')

    for command in ('demo', 'info', 'detect', 'train-teacher', 'distill', 'eval-kitti'):
        assert command in text


def test_node_starts_by_the_command_line_of_launch(workspace, prefix):
    """Without a model it says in one line which parameter is missing, and ends on SIGINT."""
    pytest.importorskip('rclpy', reason='needs ROS (./run setup)')
    parameters = prefix / 'share/cmkd_ros/config/detect.yaml'
    command = [
        str(prefix / 'lib/cmkd_ros/cmkd_detector'), '--ros-args', '-r', '__node:=detector',
        '-r', '__ns:=/perception', '--params-file', str(parameters), '-r', 'image:=/cam/left',
    ]  # fmt: skip
    output = workspace / 'detector.log'
    with output.open('w') as sink:
        node = subprocess.Popen(
            sourced(*command), cwd=workspace, env=environment(), stdout=sink, stderr=sink
        )
    try:
        wait_until(lambda: 'model.path' in output.read_text() or node.poll() is not None)
        if node.poll() is None:
            node.send_signal(signal.SIGINT)
        node.wait(timeout=ANSWER_TIMEOUT_S)
    finally:
        node.kill()

    text = output.read_text()
    assert node.returncode == 0, text
    complaints = [line for line in text.splitlines() if 'model.path' in line]
    assert len(complaints) == 1, text
    assert '[perception.detector]' in complaints[0]
    assert 'Traceback' not in text


def wait_until(condition, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_colcon_test_runs_tests_and_passes(workspace):
    """One quick file of them: the point is that colcon finds pytest and the tests at all."""
    run_in(workspace, 'colcon', 'test', '--return-code-on-test-failure',
           '--pytest-args', 'test/test_layering.py')  # fmt: skip

    summary = run_in(workspace, 'colcon', 'test-result').strip().splitlines()[-1]

    match = re.fullmatch(r'Summary: (\d+) tests, 0 errors, 0 failures, 0 skipped', summary)
    assert match is not None, summary
    assert int(match.group(1)) > 10
