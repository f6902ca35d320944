"""The training commands on a handful of frames: what they leave, resume and refuse."""

import csv
import json

import numpy as np
import pytest
import torch

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.detector import Detector
from cmkd_ros.kitti_files import read_calibration
from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.engine.distill_module import DistillModule, distillation_terms
from cmkd_ros.training.engine.recipe import load_recipe
from cmkd_ros.training.engine.run import open_run_folder
from cmkd_ros.training.engine.train import build_teacher_of, distill, open_frames, train_teacher


def test_a_run_leaves_a_bundle_its_recipe_checkpoints_and_curves(trained):
    run = trained['stage2'].parent
    assert (run / 'checkpoints' / 'last.ckpt').is_file()
    assert (run / 'recipe.yaml').is_file()
    assert list((run / 'logs' / 'tensorboard').glob('events*'))
    rows = list(csv.DictReader((run / 'logs' / 'csv' / 'metrics.csv').open()))
    assert len(rows) == 6  # 2 epochs of 6 frames in batches of 2
    assert {'loss/bev', 'loss/depth', 'loss/cls', 'loss/box', 'loss/dir'} <= set(rows[0])
    metrics = json.loads((run / 'metrics.json').read_text())
    assert metrics['loss'] == pytest.approx(
        sum(metrics[f'loss/{term}'] for term in ('bev', 'depth', 'cls', 'box', 'dir')), rel=1e-5
    )


def test_the_bundle_knows_where_it_comes_from(trained, drive):
    bundle = load_bundle(trained['stage2'])
    assert bundle.provenance['frames']['count'] == 6
    assert bundle.provenance['recipe']['stage'] == 2
    assert bundle.provenance['teacher']['recipe']['task'] == 'teacher'
    assert bundle.train_fx_px > 0
    calibration = read_calibration(drive / 'training' / 'calib' / '000000.txt')
    assert bundle.train_fx_px == pytest.approx(calibration.P2_34[0, 0], rel=1e-3)


def test_stage_1_has_no_head_and_cannot_detect(trained):
    assert not load_bundle(trained['stage1']).with_head
    with pytest.raises(ValueError, match='stage-1'):
        Detector.from_file(trained['stage1'])
    assert Detector.from_file(trained['stage2']).class_names == ('Car', 'Pedestrian', 'Cyclist')


@pytest.mark.parametrize(
    ('minutes', 'workers', 'repeated'),
    [(10, 0, 1), (0, 0, 0), (0, 1, 0)],
    ids=['from the last epoch', 'within the epoch', 'within the epoch, read ahead'],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    trained, specs, recipe_overrides, tmp_path, monkeypatch, minutes, workers, repeated
):
    """Cut off in the second epoch, resumed: the same frames and the same weights to the bit."""
    from cmkd_ros.training.engine.teacher_module import TeacherModule

    steps = []
    original = TeacherModule.training_step

    def failing(self, batch, batch_index):
        if len(steps) == 4:  # one of the three steps of the second epoch is done
            raise OSError('power cut')
        return recording(self, batch, batch_index)

    def recording(self, batch, batch_index):
        steps.append(batch.frame_ids)
        return original(self, batch, batch_index)

    overrides = recipe_overrides(
        f'teacher={specs["teacher"]}',
        f'checkpoint_minutes={minutes}',
        f'data.workers={workers}',
    )
    out = tmp_path / 'run'
    monkeypatch.setattr(TeacherModule, 'training_step', failing)
    with pytest.raises(OSError, match='power cut'):
        train_teacher('teacher_pointpillars_r18', overrides, out)
    assert not (out / 'teacher.cmkd').exists()
    assert [path.name for path in (out / 'checkpoints').iterdir()] == ['last.ckpt']
    monkeypatch.setattr(TeacherModule, 'training_step', recording)
    resumed = load_bundle(train_teacher('teacher_pointpillars_r18', overrides, out, resume=True))
    assert len(steps) == 6 + repeated
    assert len({*steps[3:4], *steps[4 + repeated :]}) == 3  # every batch of the epoch once
    curves = [
        list(csv.DictReader((out / 'logs/csv' / f'{name}.csv').open()))
        for name in ('metrics_1', 'metrics')
    ]
    assert [len(rows) for rows in curves] == [4, 2 + repeated]
    straight = load_bundle(trained['teacher'])
    for key, tensor in straight.tensors.items():
        torch.testing.assert_close(resumed.tensors[key], tensor, rtol=0, atol=0)


def test_an_existing_folder_is_not_overwritten(trained, recipe_overrides, specs, tmp_path):
    overrides = recipe_overrides(f'teacher={specs["teacher"]}')
    with pytest.raises(FileExistsError, match='--resume'):
        train_teacher('teacher_pointpillars_r18', overrides, trained['teacher'].parent)
    with pytest.raises(ValueError, match='another recipe'):
        train_teacher(
            'teacher_pointpillars_r18', (*overrides, 'seed=7'), trained['teacher'].parent, True
        )
    recipe = load_recipe('teacher_pointpillars_r18')
    assert open_run_folder(tmp_path / 'new', recipe, resume=False) is None


def test_wrong_bundles_are_told_apart(trained, specs, recipe_overrides, tmp_path):
    student, teacher = trained['stage1'], trained['teacher']
    common = recipe_overrides(f'student={specs["student"]}')
    with pytest.raises(ValueError, match='LiDAR teacher is needed'):
        distill('student_r18_stage1', (*common, f'teacher={student}'), tmp_path / 'a')
    with pytest.raises(ValueError, match='LiDAR teacher'):
        distill(
            'student_r18_stage2',
            (*common, f'teacher={teacher}', f'init={teacher}'),
            tmp_path / 'b',
        )
    with pytest.raises(ValueError, match='grid does not fit the student r18.*32 x 32 cells'):
        distill(
            'student_r18_stage1',
            recipe_overrides('student=r18', f'teacher={teacher}'),
            tmp_path / 'c',
        )
    with pytest.raises(ValueError, match='not a recipe for a teacher'):
        train_teacher('student_r18_stage1', common, tmp_path / 'd')


def test_every_loss_term_moves_the_student_and_never_the_teacher(trained, specs, recipe_overrides):
    """Gradients of each term by itself (published code has terms without any)."""
    from cmkd_ros.model.spec import load_spec
    from cmkd_ros.model.student import build_student
    from cmkd_ros.training.data.collate import make_batch

    recipe = load_recipe(
        'student_r18_stage2',
        recipe_overrides(f'student={specs["student"]}', f'teacher={trained["teacher"]}'),
    )
    teacher_spec, teacher = build_teacher_of(load_bundle(trained['teacher']), with_head=True)
    with torch.no_grad():  # moments of training leave no confident anchor; make some
        teacher.head.cls.bias.add_(3.0)
    frames = open_frames(recipe.data, teacher_spec.classes, teacher_spec.grid.range_m, True)
    spec = load_spec(specs['student'])
    batch = make_batch([frames[0], frames[4]], depth_stride=spec.image.stride_px)
    torch.manual_seed(0)
    module = DistillModule(
        build_student(spec), teacher, spec, recipe.optimiser, recipe.weights
    )  # fmt: skip
    student = module.network
    assert not module.teacher.training
    assert not any(name.startswith('_frozen') for name in module.state_dict())
    output = student(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
    terms = distillation_terms(output, module.teacher(batch.points), batch, spec, recipe.weights)
    assert set(terms) == {'bev', 'depth', 'cls', 'box', 'dir'}
    for name, term in terms.items():
        gradients = torch.autograd.grad(
            term, list(student.parameters()), retain_graph=True, allow_unused=True
        )
        reached = sum(float(g.abs().sum()) for g in gradients if g is not None)
        assert np.isfinite(reached)
        assert reached > 0, name
    assert all(p.grad is None for p in module.teacher.parameters())


def test_labels_alone_teach_a_student_for_so_many_steps(specs, recipe_overrides, tmp_path):
    """No teacher: the detection loss of the labels and the depth, through head and image part."""
    bundle = load_bundle(
        distill(
            'student_r18_stage2',
            recipe_overrides(
                f'student={specs["student"]}',
                'teacher=null',
                'init=null',
                'weights.bev=0',
                'labels={cls: 1, box: 2, dir: 0.2}',
                'optimiser.epochs=null',
                'optimiser.steps=4',  # the second epoch is left in its middle
            ),
            tmp_path / 'run',
        )
    )
    assert bundle.with_head
    assert set(bundle.provenance['data']) == {'student'}
    assert {'loss/label_cls', 'loss/label_box', 'loss/label_dir', 'loss/depth', 'loss'} == set(
        bundle.provenance['metrics']
    )
    rows = list(csv.DictReader((tmp_path / 'run/logs/csv/metrics.csv').open()))
    assert len(rows) == 4


def test_one_seed_starts_both_stages_from_the_same_weights(specs):
    from cmkd_ros.training.engine.train import start_student

    states = []
    for stage in (1, 2):
        recipe = load_recipe(
            f'student_r18_stage{stage}',
            (f'student={specs["student"]}', *(['init=null'] if stage == 2 else [])),
        )
        spec = load_spec(specs['student'])
        states.append(start_student(recipe, spec, None, None, afresh=True).state_dict())
    first, second = states
    assert set(second) > set(first)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_recipes_that_teach_nothing_are_refused(specs, recipe_overrides, tmp_path):
    common = recipe_overrides(f'student={specs["student"]}', 'init=null')
    with pytest.raises(ValueError, match='nothing teaches the head of tiny'):
        distill('student_r18_stage2', (*common, 'teacher=null', 'weights.bev=0'), tmp_path / 'a')
    for override, message in (
        ('teacher=null', 'without a teacher expected stage: 2 and weights.bev: 0'),
        ('optimiser.steps=5', 'expected one of epochs and steps'),
    ):
        with pytest.raises(ValueError, match=message):
            load_recipe('student_r18_stage2', (*common, override))
    assert not (tmp_path / 'a').exists()
