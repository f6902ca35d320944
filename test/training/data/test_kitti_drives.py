"""Drives of frames, from a manifest, a list, or KITTI's own mapping."""

from collections import Counter

import pytest

from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.drives import read_drives, read_kitti_mapping


def test_drives_of_kitti_mini(shared_dir):
    root = shared_dir / 'kitti_mini'
    drives = read_drives(root)
    assert set(drives) == set(read_frame_list(root / 'ImageSets/train.txt'))
    counts = Counter(drives.values())
    assert counts['2011_09_26_drive_0005'] == 10
    assert counts['2011_09_26_drive_0052'] == 4
    assert read_drives(root / 'MANIFEST.tsv', 'unlabeled') == {
        '105020': '2011_09_26_drive_0005',
        '152050': '2011_09_26_drive_0052',
    }


def test_drives_of_a_list(tmp_path):
    path = tmp_path / 'drives.txt'
    path.write_text(
        '000001 2011_09_26_drive_0005_sync/0000000109\n\n'
        '000002 2011_09_26 2011_09_26_drive_0052_sync 0000000007\n'
    )
    assert read_drives(path) == {
        '000001': '2011_09_26_drive_0005',
        '000002': '2011_09_26_drive_0052',
    }
    path.write_text('000001 2011_09_26_drive_0005_sync\n000002 somewhere\n')
    with pytest.raises(ValueError, match=r"drives.txt:2: expected a drive.*'somewhere'"):
        read_drives(path)
    path.write_text('000001 2011_09_26_drive_0005\n000001 2011_09_26_drive_0006\n')
    with pytest.raises(ValueError, match='txt:2: frame 000001 in .*0006 and in .*0005'):
        read_drives(path)


def test_manifests_need_their_columns(tmp_path):
    (tmp_path / 'MANIFEST.tsv').write_text('file\tsha256\n')
    with pytest.raises(ValueError, match="column 'kitti_raw'"):
        read_drives(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'nowhere/MANIFEST.tsv|nowhere'):
        read_drives(tmp_path / 'nowhere')


def test_kittis_own_mapping(tmp_path):
    mapping, permutation = tmp_path / 'train_mapping.txt', tmp_path / 'train_rand.txt'
    mapping.write_text(
        '2011_09_26 2011_09_26_drive_0005_sync 0000000109\n'
        '2011_09_26 2011_09_26_drive_0009_sync 0000000001\n'
        '2011_09_28 2011_09_28_drive_0106_sync 0000000138\n'
    )
    permutation.write_text('3,1,2')
    assert read_kitti_mapping(mapping, permutation) == {
        '000000': '2011_09_28_drive_0106',
        '000001': '2011_09_26_drive_0005',
        '000002': '2011_09_26_drive_0009',
    }
    permutation.write_text('3,1,4')
    with pytest.raises(ValueError, match="lines? numbers? 1 to 3.*'4' for frame 000002"):
        read_kitti_mapping(mapping, permutation)
    with pytest.raises(FileNotFoundError, match='absent'):
        read_kitti_mapping(mapping, tmp_path / 'absent')
