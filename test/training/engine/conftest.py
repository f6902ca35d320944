"""A few small synthetic frames, and specs of networks small enough to train in a second."""

from pathlib import Path

import pytest
import yaml

from cmkd_ros.model.spec import load_spec
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.teacher.spec import load_teacher_spec

RANGE_M = [2.0, -20.48, -3.0, 42.96, 20.48, 1.0]
BEV = {'layers': [1], 'strides': [1], 'filters': [16], 'up_strides': [1], 'up_filters': [16]}


@pytest.fixture(scope='session')
def drive(tmp_path_factory) -> Path:
    """Six frames of two drives in KITTI layout, 320 x 96 pixels."""
    out = tmp_path_factory.mktemp('synthetic') / 'drive'
    return generate_drive(out, frames=6, seed=3, width=320, height=96, frames_per_drive=3)


@pytest.fixture(scope='session')
def specs(tmp_path_factory) -> dict[str, Path]:
    """YAML files of a tiny student and of a tiny teacher that fits it."""
    folder = tmp_path_factory.mktemp('specs')
    student = load_spec('r18').model_dump(mode='json')
    student |= {'name': 'tiny', 'bev_channels': 16, 'adaptation_blocks': 1, 'bev': BEV}
    student['grid'] = {'range_m': RANGE_M, 'voxel_m': [1.28, 1.28, 0.8]}
    student['image'] |= {'layer4_channels': 32, 'depth_channels': 16, 'reduce_channels': 8}
    student['depth'] |= {'bins': 24}
    teacher = load_teacher_spec('pointpillars_r18').model_dump(mode='json')
    teacher |= {'name': 'tiny_teacher', 'bev': BEV}
    teacher['grid'] = {'range_m': RANGE_M, 'voxel_m': [0.64, 0.64, 4.0]}
    teacher['encoder'] |= {'channels': 16, 'conv_strides': [2]}
    paths = {}
    for name, spec in (('student', student), ('teacher', teacher)):
        paths[name] = folder / f'{name}.yaml'
        paths[name].write_text(yaml.safe_dump(spec))
    return paths


@pytest.fixture(scope='session')
def recipe_overrides(drive):
    """Overrides that point a recipe at the small drive and make it short."""

    def make(*more: str) -> tuple[str, ...]:
        return (
            f'data.sources=[{{root: "{drive}"}}]',
            'data.held_out=[]',
            'data.workers=0',
            'optimiser.epochs=2',
            'optimiser.batch_size=2',
            'optimiser.precision=fp32',
            'device=cpu',
            *more,
        )

    return make


@pytest.fixture(scope='session')
def trained(tmp_path_factory, specs, recipe_overrides) -> dict[str, Path]:
    """Bundles of a tiny teacher and of both stages of a tiny student, each trained for moments."""
    from cmkd_ros.training.engine.train import distill, train_teacher

    folder = tmp_path_factory.mktemp('runs')
    teacher = train_teacher(
        'teacher_pointpillars_r18',
        recipe_overrides(f'teacher={specs["teacher"]}'),
        folder / 'teacher',
    )
    common = (f'student={specs["student"]}', f'teacher={teacher}')
    stage_1 = distill('student_r18_stage1', recipe_overrides(*common), folder / 'stage1')
    stage_2 = distill(
        'student_r18_stage2', recipe_overrides(*common, f'init={stage_1}'), folder / 'stage2'
    )
    return {'teacher': teacher, 'stage1': stage_1, 'stage2': stage_2}
