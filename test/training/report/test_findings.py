"""What a report says about maps and depths that are known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cmkd_ros.geometry import Boxes3D
from cmkd_ros.geometry.depth_bins import bin_edges
from cmkd_ros.model.spec import DepthSpec
from cmkd_ros.training.report.bev_maps import compare_maps
from cmkd_ros.training.report.depth_plots import depth_errors
from cmkd_ros.training.report.findings import find_faults
from cmkd_ros.training.report.probe import Probe

DEPTH = DepthSpec(mode='UD', bins=40, min_m=2.0, max_m=42.0)


def make_probe(student, teacher, offset_m=0.0):
    """Depths of 3.5 to 38.5 m; the student's distribution is sure, and off by `offset_m`."""
    depth_hw = np.linspace(3.5, 38.5, 36).reshape(4, 9)
    bins = np.searchsorted(bin_edges('UD', 40, 2.0, 42.0), depth_hw + offset_m) - 1
    sample = SimpleNamespace(boxes_M7=np.zeros((0, 7)))
    probability = np.zeros((40, 4, 9))
    np.put_along_axis(probability, bins[None], 1.0, axis=0)
    return Probe(sample, student, teacher, probability, np.zeros((4, 9)), depth_hw, None, None)


@pytest.fixture
def teacher():
    return np.random.default_rng(0).random((8, 6, 5))


def test_equal_maps_have_no_error_and_empty_ones_have_all_of_it(teacher):
    equal = compare_maps([make_probe(teacher, teacher)])
    assert equal.relative_error == 0 and equal.correlation == pytest.approx(1)
    empty = compare_maps([make_probe(0 * teacher, teacher)])
    assert empty.relative_error == pytest.approx(1)
    assert (empty.dead_student, empty.dead_teacher, empty.channels) == (8, 0, 8)
    assert compare_maps([make_probe(teacher, None)]) is None


def test_depth_errors_are_those_of_the_distribution(teacher):
    exact = depth_errors([make_probe(teacher, teacher)], DEPTH)
    assert max(exact.median_m.values()) <= 0.5  # half a bin
    off = depth_errors([make_probe(teacher, teacher, offset_m=3.0)], DEPTH)
    assert off.median_m[10, 20] == pytest.approx(3.0, abs=0.5)
    assert sum(off.pixels.values()) == 36


def test_faults_are_named(teacher):
    steps = np.arange(40.0)
    curves = {'bev': (steps, np.full(40, 2.0)), 'depth': (steps, np.linspace(2, 1, 40))}
    good, bad = make_probe(teacher, teacher), make_probe(0 * teacher, teacher, offset_m=3.0)
    quiet = find_faults(compare_maps([good]), depth_errors([good], DEPTH), {}, [good])
    assert not any('Look:' in text for text in quiet)
    loud = find_faults(compare_maps([bad]), depth_errors([bad], DEPTH), curves, [bad])
    for part in ('features were not learned', 'channels of the student', 'bev did not fall'):
        assert any(part in text and 'Look:' in text for text in loud)
    assert not any('depth did not fall' in text for text in loud)


def test_a_teacher_that_finds_nothing_is_told(teacher):
    probes = [make_probe(teacher, teacher) for _ in range(2)]
    box_17 = np.array([[10.0, 0, -1, 4, 1.6, 1.5, 0]])

    def sentences(boxes_K7):
        seen = [replace(probe, taught=Boxes3D(boxes_K7)) for probe in probes]
        return find_faults(None, None, {}, seen)

    assert any('Look: The teacher finds 0 boxes' in text for text in sentences(box_17[:0]))
    assert 'The teacher finds 2 boxes in these frames, 0 are labelled.' in sentences(box_17)
