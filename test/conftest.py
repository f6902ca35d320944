"""Shared by all tests: where real data lies, and a ROS graph of one's own."""

import os
import sys
import zlib
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# Tests must neither hear nor disturb a robot, nor each other: loopback only, and a domain of this
# process (0-101 are safe from the ephemeral ports of Linux; 0 is the one robots use). Set at
# import, because rclpy and the node's processes read the environment when they start.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 101)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, files of slow ones first: no core idles at last."""
    if hasattr(config, 'workerinput'):
        slow = {item.path for item in items if item.get_closest_marker('slow')}
        items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Random tensors of a test and of its fixtures are the same whatever ran before it."""
    if 'torch' in sys.modules:
        sys.modules['torch'].manual_seed(zlib.crc32(item.nodeid.encode()))


@pytest.fixture(scope='session')
def project_root() -> Path:
    """The checkout's root folder."""
    return PROJECT_ROOT


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """The folder of real data (KITTI frames, golden values) that may lie beside the checkout."""
    shared = PROJECT_ROOT.parent / 'shared'
    if not shared.is_dir():
        pytest.skip(f'needs the real data in {shared}, which is absent')
    return shared


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """Function from a head ('anchor', 'center') to its tiny student and graph, exported once."""
    for module in ('onnx', 'onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(module, reason=f'needs {module} (extra: export)')
    from exported_students import tiny_student

    from cmkd_ros.export import export_onnx

    made = {}

    def export(head):
        if head not in made:
            student = tiny_student(head)
            file = tmp_path_factory.mktemp('graphs') / f'{head}.onnx'
            made[head] = student, export_onnx(student, file)
        return made[head]

    return export
