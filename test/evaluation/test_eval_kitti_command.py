"""`cmkd eval-kitti` on good, tolerated and wrong input: one sentence, and never a wrong number."""

import json
import re

import pytest

from cmkd_ros.cli import main

CAR = 'Car 0.00 0 -1.57 100.00 150.00 200.00 250.00 1.50 1.60 3.90 0.00 1.65 20.00 -1.57'
FRAMES = tuple(f'{n:06d}' for n in range(42))


@pytest.fixture
def folders(tmp_path):
    """42 frames with one car each, all found: every AP of cars is 100."""
    for name, line in (('labels', CAR), ('results', f'{CAR} 0.9')):
        (tmp_path / name).mkdir()
        for frame in FRAMES:
            (tmp_path / name / f'{frame}.txt').write_text(f'{line}\n')
    return tmp_path


@pytest.fixture
def run(folders, capsys):
    """Function from more arguments to (exit code, output, errors)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        common = ['--labels', str(folders / 'labels'), '--results', str(folders / 'results')]
        code = main(['eval-kitti', *common, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def cars_3d(path):
    return json.loads(path.read_text())['ap']['strict']['Car']['3d']['R40']


@pytest.mark.parametrize(
    ('file', 'content'),
    [
        ('labels/000003.txt', f'{CAR}\r\n'),
        ('results/000003.txt', f'{CAR} 0.9\r\n'),
        ('labels/000003.txt', CAR),
        ('results/000003.txt', f'{CAR} 0.9'),
        ('labels/000003.txt', CAR.lower()),
        ('results/000003.txt', f'{CAR} 0.9'.upper()),
        ('results/000003.txt', f'{CAR} -3.5e-2\n'),
    ],
    ids=['label CRLF', 'result CRLF', 'label end', 'result end', 'lower', 'upper', 'score'],
)
def test_tolerated_forms_give_the_same_number(folders, run, file, content):
    (folders / file).write_bytes(content.encode())
    code, out, err = run('--json', folders / 'ap.json')
    assert (code, err) == (0, '')
    assert cars_3d(folders / 'ap.json') == [100.0] * 3
    assert '100.00' in out


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('labels/000003.txt', CAR.rsplit(' ', 1)[0], '000003.txt:1: a label line has 15 fields'),
        ('results/000003.txt', CAR.rsplit(' ', 1)[0], '000003.txt:1: a result line has 16 fields'),
        ('results/000003.txt', CAR, '000003.txt:1: a result line has 16 fields'),
        (
            'results/000003.txt',
            f'{CAR} nan',
            '000003.txt:1: score must be a finite number',
        ),
        ('labels/000003.txt', CAR.replace(' 0 ', ' 0.00 ', 1), "as an integer, found '0.00'"),
        ('results/000003.txt', f'{CAR} 1'.replace(' 0 ', ' 0.00 ', 1), "integer, found '0.00'"),
        ('results/000099.txt', f'{CAR} 0.9', '000099.txt: missing label file of a frame'),
    ],
    ids=['14', '14 of 16', 'no score', 'nan', 'label 0.00', 'result 0.00', 'one side'],
)
def test_wrong_files_are_one_sentence_and_no_number(folders, run, file, content, message):
    (folders / file).write_text(content + '\n')
    code, out, err = run('--json', folders / 'ap.json', '--plots', folders / 'plots')
    assert (code, out) == (2, '')
    assert message in err
    assert (err.startswith('cmkd: '), err.count('\n')) == (True, 1)
    assert not (folders / 'ap.json').exists()
    assert not (folders / 'plots').exists()


def test_empty_files_are_frames_without_objects(folders, run):
    (folders / 'labels/000003.txt').write_text('')  # its detection is now a false one
    (folders / 'results/000004.txt').write_text('\n')
    assert run('--json', folders / 'ap.json')[0] == 0
    document = json.loads((folders / 'ap.json').read_text())
    assert document['n_gt']['Car'] == [41] * 3
    assert all(0 < ap < 100 for ap in cars_3d(folders / 'ap.json'))


def test_a_listed_frame_needs_its_result_file(folders, run):
    (folders / 'val.txt').write_text('000003\n000004\n')
    (folders / 'results/000004.txt').unlink()
    code, _, err = run('--frames', folders / 'val.txt')
    assert code == 2
    assert 'results/000004.txt: missing result file of a frame listed in' in err
    code, out, _ = run()  # without a list it is left out, and told
    assert code == 0
    assert '1 labelled frames have no result file' in out


def test_an_earlier_report_is_compared(folders, run):
    assert run('--json', folders / 'old.json')[0] == 0
    for frame in FRAMES[:10]:
        (folders / f'results/{frame}.txt').write_text('')
    code, out, _ = run('--compare', folders / 'old.json')
    assert code == 0
    assert re.search(
        r'Change of AP R40, in points.*3D +0.7 strict +-25.00 +-25.00 +-25.00', out, re.S
    )
    assert max(map(len, out.splitlines())) <= 80
    assert 'Change of AP R11' in run('--compare', folders / 'old.json', '--recall', '11')[1]


def test_a_report_with_r11_for_r40_is_refused(folders, run):
    run('--json', folders / 'old.json')
    for frame in FRAMES[:10]:  # else both are 100
        (folders / f'results/{frame}.txt').write_text('')
    run('--json', folders / 'old.json')
    document = json.loads((folders / 'old.json').read_text())
    averages = document['ap']['strict']['Car']['3d']
    averages['R40'] = averages['R11']
    (folders / 'old.json').write_text(json.dumps(document))
    code, out, err = run('--compare', folders / 'old.json', '--json', folders / 'new.json')
    assert (code, out) == (2, '')
    assert 'old.json: ap.strict.Car.3d: R40: its curve gives' in err
    assert 'which is R11' in err
    assert not (folders / 'new.json').exists()


def test_a_report_of_other_labels_is_refused(folders, run):
    run('--json', folders / 'old.json')
    (folders / 'val.txt').write_text('000003\n')
    code, _, err = run('--frames', folders / 'val.txt', '--compare', folders / 'old.json')
    assert code == 2
    assert 'frames: expected 1 in the earlier report too, found 42' in err


def test_overrides_may_stand_behind_options(capsys):
    from cmkd_ros.cli_arguments import parse_arguments

    options = parse_arguments(['distill', 'r', 'a=1', '--out', 'x', 'b=[2]', 'c={d: 3}'])
    assert options.overrides == ['a=1', 'b=[2]', 'c={d: 3}']
    for wrong in (['distill', 'r', '--out', 'x', '--b=1'], ['info', 'x', 'a=1']):
        with pytest.raises(SystemExit) as end:
            parse_arguments(wrong)
        assert end.value.code == 2
        assert 'unrecognized arguments' in capsys.readouterr().err
