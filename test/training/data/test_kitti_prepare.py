"""Checking a KITTI tree: the index is whole, runs are resumable, changes are noticed."""

import json
import shutil

import cv2
import numpy as np
import pytest

from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.kitti_index import load_index, save_index
from cmkd_ros.training.data.kitti_prepare import prepare_kitti


def test_kitti_mini_is_whole(shared_dir, tmp_path):
    root = shared_dir / 'kitti_mini'
    steps = []
    prepared = prepare_kitti(
        root,
        index_path=tmp_path / 'index',
        workers=2,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert prepared.faults == ()
    assert steps == [(done, 38) for done in range(39)]
    index = load_index(tmp_path / 'index')
    assert index == prepared.index
    assert len(index) == 38
    by_key = {f'{record.folder}/{record.frame}': record for record in index.records}
    record = by_key['training/000002']
    # sha256, size and drive as MANIFEST.tsv gives them for the official files.
    stamp = record.files['image']
    assert stamp.sha256 == '5c23307c68d2372fdd34c8a9f71e49ba41c8a998adf784f6d0892f414bc7fbef'
    assert stamp.size == 767111
    assert record.points == 2030256 // 16
    assert record.image_size == (375, 1242)
    assert record.objects == 2
    assert index.drives['training/000002'] == '2011_09_26_drive_0086'
    assert index.drives['unlabeled/105020'] == '2011_09_26_drive_0005'
    assert 'unlabeled/000002' not in index.drives
    assert by_key['unlabeled/000000'].objects == -1
    assert {record.image_size for record in index.records} >= {(375, 1242), (374, 1238)}
    assert index.lists['train'].folder == 'training'
    assert list(index.lists['train'].frames) == read_frame_list(root / 'ImageSets/train.txt')
    assert index.lists['unlabeled'].folder == 'unlabeled'
    again = prepare_kitti(root, index_path=tmp_path / 'index')
    assert (again.checked, again.reused) == (0, 38)
    assert again.index == index


def test_several_damages_at_once(made_kitti):
    training = made_kitti.root / 'training'
    (training / 'image_2/000001.png').unlink()
    (training / 'calib/000001.txt').write_text('P2: 1 2 3\n')
    (training / 'velodyne/000004.bin').write_bytes(b'12345')
    # A stray scan is a frame without picture, calibration and labels.
    (training / 'velodyne/000009.bin').write_bytes((training / 'velodyne/000000.bin').read_bytes())
    prepared = prepare_kitti(made_kitti.root)
    assert {fault.path.relative_to(training).as_posix() for fault in prepared.faults} == {
        'calib/000001.txt', 'calib/000009.txt', 'image_2/000001.png', 'image_2/000009.png',
        'label_2/000009.txt', 'velodyne/000004.bin',
    }  # fmt: skip
    assert len(prepared.index) == 4


def test_training_needs_labels_and_testing_does_not(made_kitti):
    (made_kitti.root / 'training').rename(made_kitti.root / 'testing')
    for path in (made_kitti.root / 'testing/label_2').iterdir():
        path.unlink()
    (made_kitti.root / 'testing/label_2').rmdir()
    assert prepare_kitti(made_kitti.root).faults == ()
    (made_kitti.root / 'testing').rename(made_kitti.root / 'training')
    faults = prepare_kitti(made_kitti.root).faults
    assert {fault.path.parent.name for fault in faults} == {'label_2'}
    assert len(faults) == 6


def test_extracted_recordings_need_no_labels(made_kitti):
    shutil.rmtree(made_kitti.root / 'training' / 'label_2')
    assert prepare_kitti(made_kitti.root).faults
    (made_kitti.root / 'extract.json').write_text('{}')
    prepared = prepare_kitti(made_kitti.root)
    assert prepared.faults == ()
    training = [record for record in prepared.index.records if record.folder == 'training']
    assert training
    assert {record.objects for record in training} == {-1}


def test_empty_label_files_and_crlf_are_tolerated(made_kitti):
    labels = made_kitti.root / 'training/label_2'
    (labels / '000001.txt').write_bytes(b'')
    text = (labels / '000002.txt').read_text()
    (labels / '000002.txt').write_bytes(text.strip().replace('\n', '\r\n').encode())
    prepared = prepare_kitti(made_kitti.root)
    assert prepared.faults == ()
    assert [record.objects for record in prepared.index.records][:3] == [3, 0, 3]


def test_depth_maps_are_checked_where_there_are_any(made_kitti):
    depth = made_kitti.root / 'training/depth_2'
    depth.mkdir()
    for frame in made_kitti.frames:
        size = cv2.imread(str(made_kitti.root / f'training/image_2/{frame}.png')).shape[:2]
        cv2.imwrite(str(depth / f'{frame}.png'), np.full(size, 1280, dtype=np.uint16))
    assert prepare_kitti(made_kitti.root).faults == ()
    cv2.imwrite(str(depth / '000002.png'), np.zeros((9, 9), dtype=np.uint16))
    (depth / '000004.png').unlink()
    faults = prepare_kitti(made_kitti.root).faults
    assert [fault.path.name for fault in faults] == ['000002.png', '000004.png']


def test_a_cut_run_goes_on_where_it_was(made_kitti):
    class CutError(Exception):
        pass

    def cut_after_three(done, total):
        if done == 3:
            raise CutError

    with pytest.raises(CutError):
        prepare_kitti(made_kitti.root, workers=1, progress=cut_after_three)
    index = made_kitti.root / 'cmkd_index.safetensors'
    journal = index.with_name(f'{index.name}.partial')
    assert not index.exists()
    # As a power cut would leave it: the last line is torn.
    lines = journal.read_text().splitlines()
    assert len(lines) == 4
    journal.write_text('\n'.join([*lines[:3], lines[3][:50]]))
    resumed = prepare_kitti(made_kitti.root)
    assert (resumed.checked, resumed.reused) == (4, 2)
    assert len(load_index(index)) == 6
    assert not journal.exists()


def test_a_torn_line_costs_only_its_own_frame(made_kitti):
    prepared = prepare_kitti(made_kitti.root)
    prepared.path.unlink()
    journal = prepared.path.with_name(f'{prepared.path.name}.partial')
    journal.write_text('{"folder": "tra')

    def cut_at_the_end(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_kitti(made_kitti.root, workers=1, progress=cut_at_the_end)
    assert prepare_kitti(made_kitti.root).reused == 6


def test_changed_files_are_checked_again(made_kitti):
    prepare_kitti(made_kitti.root)
    label = made_kitti.root / 'training/label_2/000002.txt'
    label.write_text(label.read_text().splitlines()[0] + '\n')
    (made_kitti.root / 'training/image_2/000004.png').write_bytes(b'')
    again = prepare_kitti(made_kitti.root)
    assert (again.checked, again.reused) == (2, 4)
    assert [fault.path.name for fault in again.faults] == ['000004.png']
    assert {r.frame: r.objects for r in again.index.records}['000002'] == 1


@pytest.mark.parametrize('damage', ('byte', 'cut', 'noise'))
def test_a_damaged_index_is_an_error_and_made_anew(made_kitti, damage):
    prepared = prepare_kitti(made_kitti.root)
    content = bytearray(prepared.path.read_bytes())
    if damage == 'byte':
        content[-40] ^= 1
    elif damage == 'cut':
        content = content[:-40]
    else:
        content = bytearray(b'no index')
    prepared.path.write_bytes(content)
    with pytest.raises(ValueError, match=r'cmkd_index.safetensors: damaged'):
        load_index(prepared.path)
    assert prepare_kitti(made_kitti.root).checked == 6
    assert load_index(prepared.path) == prepared.index


def test_foreign_safetensors_are_no_index(tmp_path):
    from safetensors.numpy import save_file

    save_file({'a': np.zeros(3)}, tmp_path / 'x')
    with pytest.raises(ValueError, match="expected the format 'cmkd kitti index 1', found None"):
        load_index(tmp_path / 'x')
    with pytest.raises(FileNotFoundError):
        load_index(tmp_path / 'y')


def test_an_index_may_be_empty_of_extras(made_kitti, tmp_path):
    index = prepare_kitti(made_kitti.root).index
    assert (index.drives, index.lists) == ({}, {})
    save_index(tmp_path / 'copy', index)
    assert load_index(tmp_path / 'copy') == index


def test_lists_are_read_and_checked(made_kitti, tmp_path):
    sets = made_kitti.root / 'ImageSets'
    sets.mkdir()
    (sets / 'train.txt').write_text('000000\n000001\n')
    (sets / 'val.txt').write_text('000002\n000077\n000078\n')
    (sets / 'test.txt').write_text('000000\n')
    (sets / 'broken.txt').write_text('000001 000002\n')
    mine = tmp_path / 'mine.txt'
    mine.write_text('000005\n')
    prepared = prepare_kitti(made_kitti.root, lists=[mine])
    assert {name: entry.frames for name, entry in prepared.index.lists.items()} == {
        'train': ('000000', '000001'),
        'val': ('000002', '000077', '000078'),
        'mine': ('000005',),
    }
    reasons = {fault.path.name: fault.reason for fault in prepared.faults}
    assert set(reasons) == {'val.txt', 'broken.txt'}
    assert '2 of 3 not in training/: 000077, 000078' in reasons['val.txt']
    with pytest.raises(FileNotFoundError, match='absent.txt'):
        prepare_kitti(made_kitti.root, lists=[tmp_path / 'absent.txt'])


def test_kittis_mapping_gives_the_drives(made_kitti):
    folder = made_kitti.root / 'mapping'
    folder.mkdir()
    lines = [f'2011_09_26 2011_09_26_drive_{n:04d}_sync 0000000000' for n in range(6)]
    (folder / 'train_mapping.txt').write_text('\n'.join(lines))
    (folder / 'train_rand.txt').write_text('6,5,4,3,2,1')
    assert prepare_kitti(made_kitti.root).index.drives == {
        f'training/{n:06d}': f'2011_09_26_drive_{5 - n:04d}' for n in range(6)
    }
    given = {'training/000001': '2011_10_03_drive_0027', 'training/000099': 'x'}
    index = prepare_kitti(made_kitti.root, drives=given).index
    assert index.drives == {'training/000001': '2011_10_03_drive_0027'}


def test_the_journal_is_plain_json(made_kitti):
    journal = made_kitti.root / 'cmkd_index.safetensors.partial'
    seen = []

    def look(done, total):
        if done == total:
            seen.extend(json.loads(entry) for entry in journal.read_text().splitlines()[1:])

    prepare_kitti(made_kitti.root, progress=look)
    assert sorted(entry['frame'] for entry in seen) == list(made_kitti.frames)


def test_folders_that_are_no_kitti_tree(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        prepare_kitti(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='expected training/ or testing/'):
        prepare_kitti(tmp_path)
