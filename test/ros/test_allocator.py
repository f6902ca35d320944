"""Blocks of the size of images are not fetched from the system again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import numpy as np
from cmkd_ros.ros.allocator import keep_large_blocks

def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.full(6_000_000, 1, np.uint8) for _ in range(4)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def least():
    faults_of_a_round()
    return min(faults_of_a_round() for _ in range(5))

before = least()
print(keep_large_blocks(), before, least())
"""


def test_a_process_keeps_the_memory_of_images():
    """In a process of its own: malloc's settings cannot be taken back."""
    command = [sys.executable, '-c', PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    is_set, before, after = run.stdout.split()
    if is_set == 'False' or int(before) < 100:
        pytest.skip('no glibc, or pages of megabytes')
    assert int(after) < int(before) / 20
