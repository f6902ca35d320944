"""The study of focal lengths with the model in the box: one frame, two cameras."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cmkd_ros.kitti_files import read_results
from cmkd_ros.training.focal_study import study_focal_lengths

DEMO = Path(__file__).parents[2] / 'config' / 'models' / 'demo.cmkd'


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp('focal') / 'study'
    return out, study_focal_lengths(DEMO, out, frames=1, seed=3001, factors=(1.0, 0.5))


def best_place(folder: Path):
    """Where the surest box of the frame lies; camera frame, metres."""
    found = read_results(folder / '000000.txt')
    return found.locations_N3[found.scores_N.argmax()]


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
    whole, half = (best_place(out / f'results_{factor}_rescaled') for factor in ('1', '0.5'))
    assert half == pytest.approx(whole, abs=1.0)
