"""Teacher specs: the named ones fit their students, and faults are named."""

import pytest
import yaml

from cmkd_ros.model.spec import config_folder, load_spec
from cmkd_ros.training.teacher.spec import load_teacher_spec


@pytest.mark.parametrize(
    ('teacher', 'student'),
    [
        ('pointpillars_scd', 'pp_r50'),
        ('pointpillars_scd', 'scd_r50'),
        ('pointpillars_r18', 'r18'),
        ('second_scd', 'scd_r50'),
        ('centerpoint_ctp', 'ctp_r50'),
    ],
)
def test_teacher_and_student_share_map_backbone_and_head(teacher, student):
    teacher, student = load_teacher_spec(teacher), load_spec(student)
    assert teacher.grid.range_m == student.grid.range_m
    x, y, _ = student.grid.cells_xyz
    assert teacher.bev_shape == (student.bev_channels, y, x)
    assert teacher.bev == student.bev
    assert teacher.head == student.head
    assert teacher.classes == student.classes
    assert teacher.post == student.post


def test_every_named_spec_carries_its_name():
    names = [path.stem for path in (config_folder() / 'teachers').glob('*.yaml')]
    assert 'pointpillars' in names
    assert [load_teacher_spec(name).name for name in names] == names


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        FileNotFoundError, match=r"no teacher named 'pointpilars'.*pointpillars_r18"
    ):
        load_teacher_spec('pointpilars')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'max_points_per_voxel': 0}, 'max_points_per_voxel = 0'),
        ({'max_voxel_train': 5}, 'max_voxel_train = 5: unknown key'),
        ({'classes': ['Car', 'Pedestrian']}, '2 classes but 3 anchors'),
        ({'classes': ['Car', 'Car', 'Cyclist']}, 'named once'),
        (
            {'grid': {'range_m': [2, -30.08, -3, 46.8, 30.08, 1], 'voxel_m': [0.32, 0.32, 2]}},
            'expected 1 voxel along z, found 2',
        ),
        (
            {'encoder': {'kind': 'voxels', 'channels': 64, 'conv_strides': [2]}},
            "encoder.*'pillars', 'sparse'",
        ),
        ({'encoder': {'kind': 'sparse', 'widths': [16, 32, 64]}}, 'encoder.sparse.widths.3'),
        ({'encoder': {'kind': 'sparse', 'widths': [16, 32, 64, 64]}}, 'nothing is left'),
    ],
)
def test_faults_are_named_with_the_file(tmp_path, change, message):
    data = load_teacher_spec('pointpillars_r18').model_dump(mode='json') | change
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ValueError, match=f'mine.yaml.*{message}'):
        load_teacher_spec(path)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text('grid: {range_m: [1, 2')
    with pytest.raises(ValueError, match='mine.yaml: not valid YAML'):
        load_teacher_spec(path)
    with pytest.raises(FileNotFoundError, match='other.yaml'):
        load_teacher_spec(tmp_path / 'other.yaml')
