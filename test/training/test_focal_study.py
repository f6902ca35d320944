"""The study of focal lengths with the model in the box: one frame, two cameras."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmkd_ros.kitti_files import read_results
from cmkd_ros.training.focal_study import study_focal_lengths

DEMO = Path(__file__).parents[2] / 'config' / 'models' / 'demo.cmkd'


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp('focal') / 'study'
    return out, study_focal_lengths(DEMO, out, frames=1, seed=3001, factors=(1.0, 0.5))


def places(folder: Path, n: int):
    """Where the n surest boxes of the frame lie, surest first: (n, 3), camera frame, metres."""
    found = read_results(folder / '000000.txt')
    return found.locations_N3[np.argsort(-found.scores_N)[:n]]


def test_every_camera_is_judged_by_the_same_labels(study):
    out, rows = study
    assert json.loads((out / 'focal_study.json').read_text()) == rows
    assert [(row['factor'], row['rescaled']) for row in rows] == [
        (1.0, True), (0.5, True), (0.5, False),
    ]  # fmt: skip
    assert [row['width'] for row in rows] == [1242, 621, 621]
    assert rows[0]['fx_px'] == pytest.approx(2 * rows[1]['fx_px'], rel=1e-3)
    assert len({tuple(row['n_gt']) for row in rows}) == 1


def test_rescaled_boxes_lie_where_those_of_the_trained_camera_do(study):
    out, _ = study
    whole_33 = places(out / 'results_1_rescaled', 3)
    half_63 = places(out / 'results_0.5_rescaled', 6)  # their order may differ a little
    assert len(whole_33) == 3
    distances_36 = np.linalg.norm(whole_33[:, None] - half_63[None], axis=2)
    assert distances_36.min(axis=1).max() < 1.0
