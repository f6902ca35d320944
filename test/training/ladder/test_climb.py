"""A ladder of two rungs and a handful of frames, from the drives to the table."""

import json
from dataclasses import replace

import pytest
import yaml

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.training.engine.recipe import read_recipe
from cmkd_ros.training.ladder.claim import claimed
from cmkd_ros.training.ladder.curves import draw_curves
from cmkd_ros.training.ladder.recipe import load_ladder
from cmkd_ros.training.ladder.run import climb
from cmkd_ros.training.ladder.summary import collect, gains_of, print_ladder, write_summary
from cmkd_ros.training.report.run_report import write_report

OVERRIDES = (
    'seeds=[3]',
    'steps=4',
    'data.synthetic={seed: 1, labelled: 4, unlabelled: 4, evaluation: 2, frames_per_drive: 2, '
    'width: 207, height: 63}',
    'teacher.optimiser={steps: 2, batch_size: 2}',
    'student.optimiser={batch_size: 2}',
    'teachers.tenth.labels=0.5',
)


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    """ladder_tiny with its first and its last rung."""
    _, keys = read_recipe('ladder_tiny')
    keys['rungs'] = {name: keys['rungs'][name] for name in ('labels_only', 'unlabelled_tenth')}
    keys['rungs']['unlabelled_tenth']['unlabelled'] = 2  # of four
    keys['gains'] = [['labels_only', 'unlabelled_tenth']]
    path = tmp_path_factory.mktemp('recipe') / 'short.yaml'
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.fixture(scope='module')
def climbed(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp('ladder') / 'out'
    climb(recipe, OVERRIDES, out, report=write_report)
    return out


def test_every_rung_is_trained_evaluated_and_told(climbed, recipe, capsys):
    document = json.loads((climbed / 'ladder.json').read_text())
    assert (document['finished'], document['of'], document['frames']) == (2, 2, 2)
    assert set(document['runs']) == {'labels_only', 'unlabelled_tenth', 'tenth'}
    for name in ('ap_by_rung', 'precision_recall', 'losses'):
        assert (climbed / f'{name}.png').read_bytes()[:4] == b'\x89PNG'
    print_ladder(load_ladder(recipe, OVERRIDES), climbed)
    printed = capsys.readouterr().out
    assert 'labels only' in printed and 'teacher tenth' in printed
    assert 'teacher full' in printed  # asked for by no rung, so not trained
    assert set(document['by_distance']['tenth']['bev_strict']) == set(document['n_gt_by_distance'])
    assert '3D loose by distance' in printed and '0-20 m' in printed
    assert not (climbed / 'seed_3' / 'full').exists()


def test_labels_teach_half_of_the_frames_to_the_teacher_and_none_to_the_student(climbed):
    teacher = load_bundle(climbed / 'seed_3/tenth/teacher.cmkd')
    student = load_bundle(climbed / 'seed_3/unlabelled_tenth/stage_2/student.cmkd')
    assert teacher.provenance['frames']['count'] == 2
    assert student.provenance['frames']['count'] == 6
    sources = student.provenance['recipe']['data']['sources']
    assert [source['labelled'] for source in sources] == [False, False]
    assert (climbed / 'unlabelled_2.txt').read_text().split() == ['000000', '000001']


def test_what_is_missing_is_made_by_one_process_and_what_is_there_is_kept(climbed, recipe):
    note = climbed / 'seed_3/labels_only/result.json'
    bundle = note.parent / 'stage_1/student.cmkd'
    before = bundle.stat().st_mtime_ns
    note.unlink()  # as if cut off in the evaluation
    with claimed(climbed / 'seed_3/labels_only.lock'):
        climb(recipe, OVERRIDES, climbed)
        assert not note.exists()
        assert json.loads((climbed / 'ladder.json').read_text())['finished'] == 1
    climb(recipe, OVERRIDES, climbed)
    assert note.is_file()
    assert bundle.stat().st_mtime_ns == before


def test_another_ladder_or_folder_is_refused(climbed, recipe, tmp_path):
    with pytest.raises(FileExistsError, match='another recipe'):
        climb(recipe, (*OVERRIDES, 'steps=5'), climbed)
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='holds no ladder'):
        climb(recipe, OVERRIDES, tmp_path)
    with pytest.raises(ValueError, match=r'expected some of \[3\], found \[7\]'):
        climb(recipe, OVERRIDES, climbed, seeds=(7,))


def test_gains_are_counted_by_seed(climbed, recipe):
    ladder = load_ladder(recipe, OVERRIDES)
    results = collect(ladder, climbed)
    low, high = results['labels_only'][3], results['unlabelled_tenth'][3]
    better = dict(high.report.ap, strict=dict(high.report.ap['strict']))
    better['strict']['Car'] = better['strict']['Car'] | {'3d': {'R40': [0, 7.5, 0], 'R11': [0] * 3}}
    results['unlabelled_tenth'] = {3: replace(high, report=replace(high.report, ap=better))}
    (row,) = gains_of(ladder, results)
    assert row['3d_strict']['by_seed'] == [7.5 - low.numbers['3d_strict']]
    assert row['3d_strict']['every_seed_gains']


def test_a_learning_curve_is_told_and_drawn_as_far_as_it_is_finished(climbed, recipe, tmp_path):
    done = collect(load_ladder(recipe, OVERRIDES), climbed)['labels_only']
    results = {'x0': done, 'x2': done, 'full': done}
    curve = load_ladder('ladder_curve')
    write_summary(curve, results, tmp_path / 'ladder.json')
    (told,) = json.loads((tmp_path / 'ladder.json').read_text())['learning_curves']
    value = done[3].numbers['bev_loose']
    assert told['bev_loose'] == [value, None, value, None, None]
    assert told['unlabelled'] == [0, 160, 320, 800, 1600]
    pictures = draw_curves(curve, results, tmp_path)
    assert 'learning_curve.png' in [path.name for path in pictures]
    assert (tmp_path / 'learning_curve.png').read_bytes()[:4] == b'\x89PNG'


def test_the_report_of_a_run_stands_alone(climbed):
    text = (climbed / 'seed_3/unlabelled_tenth/stage_2/report.html').read_text()
    for part in ('BEV maps: the squared', 'AP by distance', 'Depth, median error', 'Loss terms'):
        assert part in text
    assert text.count('data:image/') > 6 and 'http' not in text
    labels = (climbed / 'seed_3/labels_only/stage_1/report.html').read_text()
    assert 'No teacher' in labels


def test_a_report_of_stage_1_shows_maps_without_boxes(climbed):
    text = write_report(climbed / 'seed_3/unlabelled_tenth/stage_1', count=1).read_text()
    assert 'no head yet' in text and 'frames that were held out' in text
    with pytest.raises(FileNotFoundError, match='finished `cmkd distill`'):
        write_report(climbed)
