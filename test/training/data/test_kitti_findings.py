"""`cmkd prepare-kitti`: what it prints, writes, and how it ends."""

import pytest

from cmkd_ros.cli import main
from cmkd_ros.training.data.kitti_index import load_index

LINE = '2011_09_26 2011_09_26_drive_{drive:04d}_sync 0000000000'


@pytest.fixture
def run(capsys):
    """Function from arguments to exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main(['prepare-kitti', *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_whole_tree_is_summed_up(made_kitti, tmp_path, run):
    mapping = tmp_path / 'elsewhere'
    mapping.mkdir()
    lines = [LINE.format(drive=n // 2) for n in range(6)]
    (mapping / 'train_mapping.txt').write_text('\n'.join(lines))
    (mapping / 'train_rand.txt').write_text('1,2,3,4,5,6')
    for name, numbers in (('a', (0, 2)), ('b', (3,)), ('ab', (0, 2, 3))):
        (tmp_path / f'{name}.txt').write_text(''.join(f'{n:06d}\n' for n in numbers))
    lists = [part for name in ('a', 'b', 'ab') for part in ('--list', tmp_path / f'{name}.txt')]
    code, out, err = run(made_kitti.root, '--mapping', mapping, *lists)
    assert (code, err) == (0, '')
    assert 'training: 6 whole frames; images ' in out
    assert '18 labelled objects; 3 drives known for 6 frames' in out
    assert 'list ab: 3 of 3 frames usable' in out
    assert 'lists a and b share 1 drives: 2011_09_26_drive_0001' in out
    assert 'lists a and ab' not in out  # one holds the other: no accident
    index = load_index(made_kitti.root / 'cmkd_index.safetensors')
    assert index.drives['training/000005'] == '2011_09_26_drive_0002'
    # Without the mapping the index keeps the drives it knows, and nothing is read again.
    code, out, _ = run(made_kitti.root)
    assert (code, '0 frames read, 6 unchanged' in out) == (0, True)
    assert load_index(made_kitti.root / 'cmkd_index.safetensors').drives == index.drives


def test_broken_files_are_listed_and_the_command_fails(made_kitti, run):
    training = made_kitti.root / 'training'
    (training / 'velodyne/000001.bin').write_bytes(b'12345')
    (training / 'label_2/000004.txt').write_text('Car 1 2 3\n')
    code, out, err = run(made_kitti.root, '--workers', 1)
    assert code == 2
    assert [line for line in out.splitlines() if 'training/' in line][:2] == [
        f'{training}/label_2/000004.txt:1: a label line has 15 fields (type ... rotation_y), '
        'found 4',
        f'{training}/velodyne/000001.bin: expected a positive multiple of 16 bytes '
        '(x, y, z, intensity), found 5',
    ]
    assert 'training: 4 whole frames' in out
    assert 'drives unknown' in out
    assert err == (
        f'cmkd: {made_kitti.root}: 2 broken files, listed above; their frames are left out of the '
        'index\n'
    )


def test_what_is_no_tree_is_one_sentence(tmp_path, made_kitti, run):
    code, out, err = run(tmp_path / 'nowhere')
    assert (code, out) == (2, '')
    assert err.startswith(f'cmkd: {tmp_path}/nowhere: no such folder')
    code, _, err = run(made_kitti.root, '--mapping', tmp_path)
    assert code == 2
    assert f'{tmp_path}/train_mapping.txt: no such file' in err
