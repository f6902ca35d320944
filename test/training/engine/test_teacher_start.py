"""A teacher that starts from another network's weights instead of fresh ones."""

import pytest
import torch

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.training.engine.train import train_teacher

STILL = ('optimiser.lr_max=1e-12', 'optimiser.weight_decay=0', 'optimiser.epochs=1', 'seed=5')


def started(from_bundle, specs, recipe_overrides, out):
    """The tensors and the provenance of a teacher whose training moved nothing."""
    overrides = recipe_overrides(f'teacher={specs["teacher"]}', f'init={from_bundle}', *STILL)
    bundle = load_bundle(train_teacher('teacher_pointpillars_r18', overrides, out))
    return bundle.tensors, bundle.provenance


def moved(tensors, of_start, part):
    """Largest change of a weight under `part`; running statistics of batches do not count."""
    names = [name for name in tensors if name.startswith(part) and name.endswith('weight')]
    assert names
    return max(float((tensors[name] - of_start[name]).abs().max()) for name in names)


def test_from_a_teacher_it_takes_every_weight(trained, specs, recipe_overrides, tmp_path):
    tensors, provenance = started(trained['teacher'], specs, recipe_overrides, tmp_path / 'run')
    assert moved(tensors, load_bundle(trained['teacher']).tensors, '') < 1e-6
    assert set(provenance['data']) == {'teacher', 'initial teacher'}


def test_from_a_student_it_takes_backbone_and_head(trained, specs, recipe_overrides, tmp_path):
    tensors, provenance = started(trained['stage2'], specs, recipe_overrides, tmp_path / 'run')
    student = load_bundle(trained['stage2']).tensors
    assert moved(tensors, student, 'bev_backbone.') < 1e-6
    assert moved(tensors, student, 'head.') < 1e-6
    of_teacher = load_bundle(trained['teacher']).tensors
    assert moved(tensors, of_teacher, 'convs.') > 1e-3  # fresh: of another seed
    assert {'teacher', 'initial student'} <= set(provenance['data'])


def test_what_has_no_head_is_refused(trained, specs, recipe_overrides, tmp_path):
    with pytest.raises(ValueError, match='cannot start from it, it has no bev_backbone'):
        started(trained['stage1'], specs, recipe_overrides, tmp_path / 'run')


def test_a_resumed_run_does_not_start_again(trained, specs, recipe_overrides, tmp_path):
    overrides = recipe_overrides(
        f'teacher={specs["teacher"]}', f'init={trained["teacher"]}', 'seed=5'
    )
    first = load_bundle(train_teacher('teacher_pointpillars_r18', overrides, tmp_path / 'run'))
    again = train_teacher('teacher_pointpillars_r18', overrides, tmp_path / 'run', resume=True)
    for name, tensor in load_bundle(again).tensors.items():
        assert torch.equal(tensor, first.tensors[name]), name
