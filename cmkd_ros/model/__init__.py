"""The networks: the camera student, and the parts it shares with the LiDAR teachers."""

from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, StudentOutput
from cmkd_ros.model.post import RawBoxes, find_boxes
from cmkd_ros.model.spec import NetworkSpec, load_spec
from cmkd_ros.model.student import Student, build_student

__all__ = [
    'AnchorHeadOutput',
    'CenterHeadOutput',
    'NetworkSpec',
    'RawBoxes',
    'Student',
    'StudentOutput',
    'build_student',
    'find_boxes',
    'load_spec',
]
