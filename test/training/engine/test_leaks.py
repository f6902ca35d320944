"""Nothing is evaluated that was learned from, unless it is allowed, and then it is on record."""

import json
import logging

import pytest

from cmkd_ros.bundle_info import describe_bundle
from cmkd_ros.checkpoint import Bundle, load_bundle
from cmkd_ros.cli import main
from cmkd_ros.evaluation.report import read_report
from cmkd_ros.training.data.used_data import FrameIdentity, UsedData
from cmkd_ros.training.engine.leaks import check_leaks, lineage, student_lineage
from cmkd_ros.training.engine.train import distill, train_teacher
from cmkd_ros.training.evaluate import evaluate_bundle


def split(drive, name):
    return drive / 'ImageSets' / f'{name}.txt'


def overrides(drive, specs, *more, frames='train'):
    """A training of one epoch on one of the two drives."""
    return (
        f'data.sources=[{{root: "{drive}", frames: ImageSets/{frames}.txt}}]',
        f'teacher={specs["teacher"]}', 'data.workers=0', 'optimiser.epochs=1',
        'optimiser.batch_size=2', 'optimiser.precision=fp32', 'device=cpu', *more,
    )  # fmt: skip


@pytest.fixture(scope='module')
def teacher(drive, specs, tmp_path_factory):
    """Learned from the drive that ImageSets/train.txt lists."""
    out = tmp_path_factory.mktemp('clean') / 'teacher'
    return train_teacher('teacher_pointpillars_r18', overrides(drive, specs), out)


def test_a_clean_run_says_what_it_learned_from(teacher, drive):
    bundle = load_bundle(teacher)
    used = lineage(bundle)['teacher']
    assert (len(used.frames), len(used.drives)) == (3, 1)
    assert bundle.provenance['leak_check'] == {
        'held_out': 3, 'allowed': False, 'leaks': {}, 'unknown': [],
    }  # fmt: skip
    report = evaluate_bundle(teacher, drive, split(drive, 'val'), device='cpu')
    assert report.extra['leak_check']['leaks'] == {}


def test_training_on_held_out_drives_is_refused(drive, specs, tmp_path, capsys):
    changes = overrides(drive, specs, frames='val')
    run = ['train-teacher', 'teacher_pointpillars_r18', *changes, '--out', str(tmp_path / 'run')]
    assert main(run) == 2
    message = capsys.readouterr().err
    assert 'recipe teacher_pointpillars_r18: frames kept for evaluation' in message
    assert 'teacher: 3 frames (drives synthetic' in message
    assert message.rstrip().endswith('or go on with --allow-leak')
    assert message.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_other_frames_can_be_held_out(drive, specs, tmp_path):
    """One frame of a drive stands for all of them."""
    (tmp_path / 'one.txt').write_text('000001\n')
    held_out = f'data.held_out=[{{root: "{drive}", frames: "{tmp_path}/one.txt"}}]'
    with pytest.raises(ValueError, match=r'teacher: 1 frames \(drives synthetic .*2020_09_13'):
        train_teacher(
            'teacher_pointpillars_r18', overrides(drive, specs, held_out), tmp_path / 'run'
        )


def test_evaluating_on_training_drives_is_refused(teacher, drive, tmp_path, capsys, caplog):
    common = ['evaluate', '--model', str(teacher), '--data', str(drive), '--device', 'cpu']
    common += ['--split', str(split(drive, 'train')), '--out', str(tmp_path / 'out')]
    assert main(common) == 2
    assert f'cmkd: {teacher}: frames kept for evaluation, or' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
    with caplog.at_level(logging.WARNING, 'cmkd.data'):
        assert main([*common, '--allow-leak']) == 0
    assert 'as allowed: teacher: 3 frames (drives ' in caplog.text
    assert 'the teacher learned from 3 of these frames' in capsys.readouterr().out
    found = read_report(tmp_path / 'out/ap.json').extra['leak_check']
    assert (found['allowed'], found['leaks']['teacher']['frames']) == (True, 3)
    pictures = [path.name for path in (tmp_path / 'out/pictures').glob('*.png')]
    assert len(pictures) == 6  # three frames, two pictures each
    assert len(list((tmp_path / 'out/results').glob('*.txt'))) == 3
    assert main([*common, '--allow-leak']) == 2  # the folder is not empty
    assert main([*common[:-1], str(tmp_path / 'two'), '--allow-leak', '--pictures', '-1']) == 2


def test_a_student_answers_for_its_teacher(teacher, drive, specs, tmp_path):
    """Neither does a student learn from a leaking teacher, nor is one evaluated on its frames."""
    more = (f'student={specs["student"]}', f'teacher={teacher}')
    swapped = f'data.held_out=[{{root: "{drive}", frames: ImageSets/train.txt}}]'
    on_val = overrides(drive, specs, *more, swapped, frames='val')
    with pytest.raises(ValueError, match=r'among those learned from: teacher: 3 frames'):
        distill('student_r18_stage1', on_val, tmp_path / 'refused')
    student = distill('student_r18_stage1', on_val, tmp_path / 'run', allow_leak=True)
    bundle = load_bundle(student)
    assert bundle.provenance['leak_check']['allowed'] is True
    assert bundle.provenance['leak_check']['leaks']['teacher']['frames'] == 3
    assert list(lineage(bundle)) == ['student', 'teacher']
    assert 'data' not in bundle.provenance['teacher']
    for name, role in (('train', 'teacher'), ('val', 'student')):
        with pytest.raises(ValueError, match=f'among those learned from: {role}: 3 frames'):
            evaluate_bundle(student, drive, split(drive, name), device='cpu')


def bundle_of(kind, **roles):
    data = {role: used and used.to_json() for role, used in roles.items()}
    return Bundle(kind, {}, {}, provenance={'data': data}, source='x.cmkd')


def used_data(*names):
    return UsedData.of([FrameIdentity(name, name) for name in names])


def test_stage_2_remembers_what_stage_1_learned_from():
    teacher = bundle_of('teacher', teacher=used_data('a'))
    stage_1 = bundle_of('student', student=used_data('b'), teacher=used_data('a'))
    assert student_lineage(used_data('c'), teacher, stage_1) == {
        'student': used_data('c'),
        'teacher': used_data('a'),
        'stage-1 student': used_data('b'),
    }
    assert list(student_lineage(used_data('b'), teacher, stage_1)) == ['student', 'teacher']


def test_what_is_not_known_is_told(caplog):
    official = Bundle('student', {}, {}, provenance={'official': {}})
    roles = lineage(official)
    assert roles == {'student': None, 'teacher': None}
    with caplog.at_level(logging.WARNING, 'cmkd.data'):
        found = check_leaks('official.cmkd', roles, [FrameIdentity('a', 'a')], False, '')
    assert found['unknown'] == ['student', 'teacher']
    assert 'not known which frames the student, teacher learned from' in caplog.text


def test_sets_that_only_look_alike_are_told_how_to_differ():
    """Without drives two recordings of one rig cannot be told apart."""
    roles = {'teacher': used_data('a')}
    with pytest.raises(ValueError, match=r'teacher: 1 frames \(frames a\); .* a file DATASET'):
        check_leaks('x.cmkd', roles, [FrameIdentity('a', 'a')], False, 'take others')
    seen = {'teacher': UsedData.of([FrameIdentity('a', 'a', 'd')])}
    with pytest.raises(ValueError, match='take others, or go on with --allow-leak'):
        check_leaks('x.cmkd', seen, [FrameIdentity('b', 'b', 'd')], False, 'take others')


@pytest.mark.parametrize('data', [[], 'x', {'teacher': 3}, {'teacher': {'frames': '!'}}])
def test_malformed_provenance_is_named(data):
    with pytest.raises(ValueError, match='y.cmkd: provenance.data'):
        lineage(Bundle('teacher', {}, {}, provenance={'data': data}, source='y.cmkd'))


def test_info_spares_the_reader_the_hashes(teacher):
    assert 'teacher' in describe_bundle(teacher)['provenance']['data']
    long = Bundle('teacher', {}, {}, provenance={'data': {'frames': 'A' * 5000}})
    from cmkd_ros.bundle_info import _shortened

    assert _shortened(long.provenance)['data']['frames'].endswith('(5000 characters)')
    assert json.dumps(describe_bundle(teacher))
