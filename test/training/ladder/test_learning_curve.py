"""Learning curves: found in the recipe, on the frames that the other ladder has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmkd_ros.training.data.synthetic.drive import render_frame
from cmkd_ros.training.data.synthetic.settings import DriveSettings
from cmkd_ros.training.engine.recipe import SourceSpec
from cmkd_ros.training.ladder.frames import LadderFrames, provide_frames
from cmkd_ros.training.ladder.learning_curve import CurvePoint, find_learning_curves
from cmkd_ros.training.ladder.recipe import LadderData, load_ladder
from cmkd_ros.training.ladder.rungs import rung_recipes, teacher_recipe

NUMBERS = (160, 320, 800, 1600)
POINTS = tuple(CurvePoint(count, f'x{count // 160}') for count in (0, *NUMBERS))


def test_rungs_that_differ_only_in_unlabelled_frames_are_a_curve():
    (curve,) = find_learning_curves(load_ladder('ladder_curve'))
    assert (curve.teacher, curve.points) == ('full', POINTS)


@pytest.mark.parametrize(
    ('override', 'left'),
    [
        ('rungs.x10.unlabelled=true', POINTS),  # all: the same frames
        ('rungs.x2.stages.0.recipe.weights.bev=2.0', (POINTS[0], POINTS[1], *POINTS[3:])),
        ('rungs.x2.unlabelled=160', (POINTS[0], POINTS[1], *POINTS[3:])),  # a repetition
    ],
)
def test_what_else_differs_is_no_point_of_it(override, left):
    (curve,) = find_learning_curves(load_ladder('ladder_curve', (override,)))
    assert curve.points == left


@pytest.mark.parametrize('name', ['ladder_tiny', 'ladder_full'])
def test_two_points_are_no_curve(name):
    assert find_learning_curves(load_ladder(name)) == []


def test_the_curve_has_the_frames_and_rungs_of_the_tiny_ladder():
    tiny, curve = load_ladder('ladder_tiny'), load_ladder('ladder_curve')
    frames = LadderFrames(
        labelled=SourceSpec(root=Path('/labelled')),
        unlabelled=(unlabelled := SourceSpec(root=Path('/unlabelled'), labelled=False)),
        evaluation=SourceSpec(root=Path('/evaluation')),
        first=dict.fromkeys(NUMBERS, unlabelled),
    )
    seed = Path('/seed_0')

    def anonymous(recipe):
        return recipe.model_dump(exclude={'name': True, 'init': True})

    for ours, theirs in (('x0', 'features'), ('x5', 'unlabelled')):
        pairs = zip(
            rung_recipes(curve, ours, 0, frames, seed),
            rung_recipes(tiny, theirs, 0, frames, seed),
            strict=True,
        )
        assert all(anonymous(mine) == anonymous(other) for mine, other in pairs)
    teachers = [teacher_recipe(x, 'full', 0, frames, frames.labelled) for x in (tiny, curve)]
    assert anonymous(teachers[0]) == anonymous(teachers[1])
    sizes = {'unlabelled': 800}
    assert curve.data.synthetic.model_copy(update=sizes) == tiny.data.synthetic


def test_more_frames_of_a_seed_begin_with_the_same_ones():
    few = DriveSettings(4, seed=5002, width=96, height=48, frames_per_drive=2)
    for one, other in zip(
        render_frame(few, 3), render_frame(replace(few, frames=40), 3), strict=True
    ):
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)


def test_frames_of_ones_own_are_counted_and_cut(shared_dir, tmp_path):
    mini = {'root': shared_dir / 'kitti_mini'}
    data = LadderData(labelled=mini, unlabelled=mini | {'labelled': False}, evaluation=mini)
    found = provide_frames(data, tmp_path, numbers=(2, 5))
    assert found.unlabelled_of(False) is None
    assert found.unlabelled_of(True) == data.unlabelled
    lists = [found.unlabelled_of(number).frames.read_text().split() for number in (2, 5)]
    assert [len(frames) for frames in lists] == [2, 5]
    assert lists[1][:2] == lists[0]
    with pytest.raises(ValueError, match='a rung asks for 9999 frames, but .* has 27'):
        provide_frames(data, tmp_path, numbers=(2, 9999))
