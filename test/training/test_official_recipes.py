"""The official recipes say the numbers of the official configurations (cmkd-spec A and G)."""

import pytest

from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.engine.recipe import (
    RECIPES,
    DistillRecipe,
    TeacherRecipe,
    load_recipe,
)
from cmkd_ros.training.teacher.spec import load_teacher_spec

# family, data, stage -> epochs, highest rate, labelled, weights of BEV and depth, and of the head's
# classes (or heat maps), boxes, directions
STUDENTS = {
    ('scd', 'kitti', 1): (60, 2e-3, True, 32, 0.5, None),
    ('scd', 'kitti', 2): (20, 1e-4, True, 32, 0.5, (2, 2, 0.4)),
    ('scd', 'eigen', 1): (30, 2e-3, False, 32, 0, None),
    ('scd', 'eigen', 2): (10, 2e-4, False, 32, 0, (2, 2, 0.4)),
    ('pp', 'kitti', 1): (60, 2e-3, False, 4, 1, None),
    ('pp', 'kitti', 2): (20, 2e-4, False, 4, 1, (1, 2, 0.2)),
    ('pp', 'eigen', 1): (30, 2e-3, False, 32, 0, None),
    ('pp', 'eigen', 2): (10, 2e-4, False, 32, 0, (1, 2, 0.2)),
    ('ctp', 'kitti', 1): (60, 2e-3, False, 32, 0.5, None),
    ('ctp', 'kitti', 2): (20, 2e-4, False, 32, 0, (1, 4, 0)),
    ('ctp', 'eigen', 1): (30, 2e-3, False, 32, 0, None),
    ('ctp', 'eigen', 2): (10, 2e-4, False, 32, 0, (1, 4, 0)),
}
NETWORKS = {
    'scd': ('scd_r50', 'second', 'second_scd'),
    'pp': ('pp_r50', 'pointpillars', 'pointpillars_scd'),
    'ctp': ('ctp_r50', 'centerpoint', 'centerpoint_ctp'),
}
# teacher -> weights; beta2, last rate over the highest; objects pasted, and whether they fill up
TEACHERS = {
    'second': ((8, 2, 0.2), 0.99, 1e-5, {'Car': 20, 'Pedestrian': 15, 'Cyclist': 15}, True),
    'pointpillars': ((1, 2, 0.2), 0.99, 1e-5, {'Car': 15, 'Pedestrian': 15, 'Cyclist': 15}, False),
    'centerpoint': ((1, 2, 0), 0.999, 1e-4, {'Car': 20, 'Pedestrian': 15, 'Cyclist': 15}, True),
}


@pytest.mark.parametrize(
    'name',
    sorted(path.stem for path in RECIPES.glob('[!_]*.yaml') if not path.stem.startswith('ladder_')),
)
def test_every_recipe_of_the_package_is_complete_and_named_as_its_file(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    if isinstance(recipe, DistillRecipe):
        assert load_spec(recipe.student).name == recipe.student
    else:
        assert load_teacher_spec(recipe.teacher).name == recipe.teacher


def test_all_twelve_students_and_three_teachers_are_there():
    names = {path.stem for path in RECIPES.glob('*.yaml')}
    assert {f'student_{f}_{d}_stage{s}' for f, d, s in STUDENTS} <= names
    assert {f'teacher_{name}_kitti' for name in TEACHERS} <= names


@pytest.mark.parametrize(('family', 'data', 'stage'), STUDENTS)
def test_numbers_of_the_official_students(family, data, stage):
    epochs, lr_max, labelled, bev, depth, head = STUDENTS[family, data, stage]
    student, teacher, teacher_spec = NETWORKS[family]
    recipe = load_recipe(f'student_{family}_{data}_stage{stage}')
    assert isinstance(recipe, DistillRecipe)
    assert (recipe.stage, recipe.student, recipe.teacher_spec) == (stage, student, teacher_spec)
    assert recipe.teacher.parts[-2] == f'teacher_{teacher}_kitti'

    optimiser = recipe.optimiser
    assert (optimiser.epochs, optimiser.batch_size, optimiser.precision) == (epochs, 4, 'fp32')
    assert (optimiser.lr_max, optimiser.weight_decay) == (lr_max, 0.01)
    assert (optimiser.warm_up, optimiser.clip_norm) == (0.4, 10)
    assert (optimiser.div_factor, optimiser.final_div_factor) == (10, 1000)
    assert (optimiser.momentum, optimiser.beta2) == ((0.85, 0.95), 0.999)

    assert (recipe.weights.bev, recipe.weights.depth, recipe.flip) == (bev, depth, 0.5)
    if head:
        assert (recipe.weights.cls, recipe.weights.box, recipe.weights.dir) == head
        assert (recipe.weights.label_cls, recipe.weights.label_box) == (1, 2)
    wanted = [labelled] if data == 'kitti' else [False, False]
    assert [source.labelled for source in recipe.data.sources] == wanted
    assert recipe.redraw_empty is labelled


@pytest.mark.parametrize(('family', 'data', 'stage'), STUDENTS)
def test_where_the_official_students_start_and_what_they_read(family, data, stage):
    recipe = load_recipe(f'student_{family}_{data}_stage{stage}')
    assert isinstance(recipe, DistillRecipe)
    if stage == 1:
        assert recipe.init is None
        assert recipe.init_image is not None
        assert recipe.init_image.name == 'deeplabv3_resnet50_coco-cd0a2569.pth'
    else:
        assert recipe.init_image is None
        assert recipe.init is not None
        assert recipe.init.parent.name == f'student_{family}_{data}_stage1'
    lists = [(source.layout, source.frames.name) for source in recipe.data.sources]
    kitti, eigen = ('object', 'train.txt'), ('raw', 'eigen_clean.txt')
    assert lists == ([kitti] if data == 'kitti' else [kitti, eigen])
    assert recipe.data.canvas_hw is None  # the batch's largest image


@pytest.mark.parametrize('name', TEACHERS)
def test_numbers_of_the_official_teachers(name):
    weights, beta2, last_rate, paste, fill_up = TEACHERS[name]
    recipe = load_recipe(f'teacher_{name}_kitti')
    assert isinstance(recipe, TeacherRecipe)
    assert recipe.teacher == name

    optimiser = recipe.optimiser
    assert (optimiser.epochs, optimiser.batch_size, optimiser.lr_max) == (80, 8, 3e-3)
    assert (optimiser.warm_up, optimiser.clip_norm, optimiser.weight_decay) == (0.4, 10, 0.01)
    assert (optimiser.momentum, optimiser.beta2) == ((0.85, 0.95), beta2)
    assert optimiser.div_factor == 10
    assert 1 / (optimiser.div_factor * optimiser.final_div_factor) == pytest.approx(last_rate)

    assert (recipe.weights.cls, recipe.weights.box, recipe.weights.dir) == weights
    augment = recipe.augment
    assert (augment.flip, augment.rotation_rad, augment.scale) == (0.5, 0.785, (0.95, 1.05))
    assert augment.shuffle
    assert (augment.paste, augment.paste_fill_up) == (paste, fill_up)
    assert augment.paste_min_points == 5
    assert all(source.labelled for source in recipe.data.sources)


def test_a_recipe_may_have_several_bases_of_which_later_ones_win(tmp_path):
    base = RECIPES / 'student_pp_kitti_stage1.yaml'
    (tmp_path / 'short.yaml').write_text('optimiser: {epochs: 3, batch_size: 2}\n')
    (tmp_path / 'mine.yaml').write_text(
        f'base: [{base}, short.yaml]\nname: mine\noptimiser: {{epochs: 5}}\n'
    )
    recipe = load_recipe(tmp_path / 'mine.yaml')
    assert (recipe.optimiser.epochs, recipe.optimiser.batch_size) == (5, 2)
    assert recipe.optimiser.lr_max == 2e-3
    assert isinstance(recipe, DistillRecipe)
    assert recipe.weights.bev == 4


def test_parts_of_recipes_are_not_offered_as_recipes():
    with pytest.raises(FileNotFoundError) as caught:
        load_recipe('student_scd')
    assert 'student_scd_eigen_stage2' in str(caught.value)
    assert '_official' not in str(caught.value)


@pytest.mark.parametrize(
    ('recipe', 'overrides', 'message'),
    [
        ('student_scd_kitti_stage2', ['init_image=x.pth'], 'init_image is for stage 1'),
        ('student_scd_kitti_stage1', ['init=x.cmkd'], 'init is for stage 2'),
        ('student_pp_eigen_stage1', ['data.sources.1.frames=null'], 'need a list of frames'),
        ('student_pp_eigen_stage1', ['data.sources.1.labelled=true'], 'labelled: false'),
        ('teacher_second_kitti', ['augment.paste.Car=-1'], 'augment.paste.Car = -1'),
    ],
)
def test_what_does_not_go_together_is_refused(recipe, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(recipe, tuple(overrides))
