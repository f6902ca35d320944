"""Measurements of the node: `python -m cmkd_ros.ros.benchmark --help`."""
