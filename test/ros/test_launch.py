"""The launch files: read, and their own functions run, everywhere; run where launch is installed.

No package index carries launch, so without ROS its actions cannot be executed. What they start is
tested as a command line in test_process.py.
"""

import ast
import os
import re

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cmkd_ros.cli_arguments import parse_arguments
from cmkd_ros.ros.parameters import declared_parameters

FILES = ('detect.launch.py', 'replay_eval.launch.py')
NEEDED = {
    'detect.launch.py': {
        'model', 'image', 'camera_info', 'device', 'precision', 'params_file', 'rviz', 'bag',
        'use_sim_time', 'cameras',
    },
    'replay_eval.launch.py': {'model', 'bag', 'labels', 'out', 'json', 'device'},
}  # fmt: skip
PURE = {'camera_names', 'camera_namespace', 'command_line'}


@pytest.fixture(scope='module')
def parts(project_root):
    """Function from a launch file to its tables and to those functions that need no launch."""

    def load(file):
        tree = ast.parse((project_root / 'launch' / file).read_text())
        names, keep = {}, []
        for node in tree.body:
            if isinstance(node, ast.Assign) and node.targets[0].id in ('PARAMETERS', 'ARGUMENTS'):
                keep.append(node)
            if isinstance(node, ast.FunctionDef) and node.name in PURE:
                keep.append(node)
        exec(compile(ast.Module(keep, []), file, 'exec'), names)
        return names

    return load


@pytest.mark.parametrize('file', FILES)
def test_every_argument_is_described_and_none_is_forgotten(file, parts):
    arguments = parts(file)['ARGUMENTS']
    assert set(arguments) >= NEEDED[file]
    assert all(len(text) > 10 for text in arguments.values())


def test_detect_sets_parameters_that_exist(parts):
    tables = parts('detect.launch.py')
    assert set(tables['PARAMETERS'].values()) <= {d.name for d in declared_parameters()}
    assert set(tables['PARAMETERS']) <= set(tables['ARGUMENTS'])


@pytest.mark.parametrize(
    ('text', 'names'),
    [('', []), ('[]', []), ('front', ['front']), ('[front, rear]', ['front', 'rear'])],
)
def test_cameras_are_named_as_ros_users_write_lists(text, names, parts):
    assert parts('detect.launch.py')['camera_names'](text) == names


def test_each_camera_has_a_namespace_of_its_own(parts):
    namespace = parts('detect.launch.py')['camera_namespace']
    assert namespace('', 'front') == '/front'
    assert namespace('/robot/', 'front') == '/robot/front'
    assert namespace('/robot', '') == '/robot'


def test_the_evaluation_is_a_command_that_cmkd_understands(parts):
    names = parts('replay_eval.launch.py')
    given = {name: f'/x/{name}' for name in names['ARGUMENTS']} | {'out': '', 'device': 'cpu'}
    options = parse_arguments(names['command_line'](given))
    assert options.command == 'eval-bag'
    assert (str(options.bag), str(options.json), options.out) == ('/x/bag', '/x/json', None)


def test_the_rviz_file_shows_topics_that_the_node_publishes(project_root):
    text = (project_root / 'config/detections.rviz').read_text()
    tree = yaml.safe_load(text)
    displays = {d['Class']: d for d in tree['Visualization Manager']['Displays']}
    topics = {d['Topic']['Value'] for d in displays.values() if 'Topic' in d}
    assert topics == {'detector/markers', 'detector/debug_image', 'detections'}
    assert not displays['vision_msgs_rviz_plugins/Detection3DArray']['Enabled']
    published = (project_root / 'cmkd_ros/ros/outputs.py').read_text()
    for topic in ('~/markers', '~/debug_image', 'detections'):
        assert re.search(rf"'{re.escape(topic)}'", published)


@pytest.mark.parametrize('file', FILES)
def test_launch_itself_reads_the_file(file, project_root):
    pytest.importorskip('launch_ros', reason='needs launch and launch_ros, which only ROS brings')
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(
        os.fspath(project_root / 'launch' / file)
    )
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) >= NEEDED[file]
    assert all(argument.description for argument in arguments.values())
