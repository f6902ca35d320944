"""The ladders of the package: their rungs differ in what teaches, and in nothing else."""

from pathlib import Path

import pytest

from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.engine.recipe import SourceSpec
from cmkd_ros.training.engine.train import check_grids
from cmkd_ros.training.ladder.frames import LadderFrames
from cmkd_ros.training.ladder.recipe import load_ladder
from cmkd_ros.training.ladder.rungs import rung_recipes, teacher_recipe
from cmkd_ros.training.teacher.spec import load_teacher_spec

FRAMES = LadderFrames(
    SourceSpec(root=Path('/labelled')),
    SourceSpec(root=Path('/unlabelled'), labelled=False),
    SourceSpec(root=Path('/evaluation')),
)


def recipes_of(name, frames=FRAMES):
    ladder = load_ladder(name)
    return ladder, {
        rung: rung_recipes(ladder, rung, 1, frames, Path('/out/seed_1')) for rung in ladder.rungs
    }


@pytest.mark.parametrize('name', ['ladder_tiny', 'ladder_full'])
def test_all_rungs_have_the_same_steps_seed_student_and_schedule(name):
    ladder, recipes = recipes_of(name)
    assert ladder.name == name
    for stages in recipes.values():
        assert sum(recipe.optimiser.steps for recipe in stages) == ladder.steps
        for recipe in stages:
            first = recipes['labels_only'][0]
            assert recipe.seed == 1
            assert recipe.student == first.student
            same = recipe.optimiser.model_copy(update={'steps': first.optimiser.steps})
            assert same == first.optimiser
            assert [source.root for source in recipe.data.held_out] == [Path('/evaluation')]


@pytest.mark.parametrize('name', ['ladder_tiny', 'ladder_full'])
def test_only_the_first_two_rungs_read_labels_and_only_they_have_no_teacher(name):
    _, recipes = recipes_of(name)
    for rung, stages in recipes.items():
        for recipe in stages:
            by_labels = rung in ('labels_only', 'labels_depth')
            assert (recipe.teacher is None) == by_labels
            assert (recipe.labels is not None) == by_labels
            assert all(source.labelled == by_labels for source in recipe.data.sources)
            assert (recipe.weights.depth > 0) == (rung != 'labels_only')
            more = rung in ('unlabelled', 'unlabelled_tenth')
            assert len(recipe.data.sources) == 1 + more
    assert [recipe.stage for recipe in recipes['unlabelled']] == [1, 2]
    first, second = recipes['unlabelled']
    assert second.init == Path('/out/seed_1/unlabelled/stage_1/student.cmkd')
    assert first.teacher == Path('/out/seed_1/full/teacher.cmkd')
    assert recipes['unlabelled_tenth'][0].teacher == Path('/out/seed_1/tenth/teacher.cmkd')


@pytest.mark.parametrize('name', ['ladder_tiny', 'ladder_full'])
def test_the_teachers_fit_the_students(name):
    ladder, recipes = recipes_of(name)
    recipe = teacher_recipe(ladder, 'full', 1, FRAMES, FRAMES.labelled)
    check_grids(
        load_spec(recipes['features'][0].student), load_teacher_spec(recipe.teacher), 'teacher'
    )


@pytest.mark.parametrize(
    ('override', 'message'),
    [
        ('data.synthetic.unlabelled=0', 'unlabelled learns from unlabelled frames.*there are none'),
        ('rungs.features.teacher=best', 'expected one of full, tenth, found best'),
        ('rungs.features.stages.0.share=0.4', 'add up to 1, found 0.9'),
        ('gains=[[labels_only, up]]', 'expected names of rungs.*found up'),
        ('rungs.unlabelled.unlabelled=801', 'multiples of .* = 4, up to .* = 800, found 801'),
        ('rungs.unlabelled.unlabelled=804', 'up to data.synthetic.unlabelled = 800, found 804'),
        ('rungs.unlabelled.unlabelled=-4', 'true, false or 0 and more frames, found -4'),
        ('data.labelled={root: /kitti}', 'either synthetic, or labelled'),
        ('data.synthetic=null', 'found neither'),
        ('seeds=[1, 1]', 'expected different ones'),
        ('rungs.full={title: x, stages: [{recipe: {}}]}', 'another name for the rung'),
        ('task=distill', 'expected ladder'),
    ],
)
def test_ladders_that_cannot_be_climbed_are_refused(override, message):
    with pytest.raises(ValueError, match=message):
        load_ladder('ladder_tiny', (override,))


def test_a_wrong_key_of_a_student_names_its_rung():
    ladder = load_ladder('ladder_tiny', ('rungs.features.stages.1.recipe.weight={bev: 1}',))
    with pytest.raises(ValueError, match='rung features, stage 2: weight = .*unknown key'):
        rung_recipes(ladder, 'features', 0, FRAMES, Path('/out'))
