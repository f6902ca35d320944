"""Broken KITTI folders: every fault is named, nothing else is blamed."""

import numpy as np
import pytest

from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.png import read_png_rgb, read_png_size
from cmkd_ros.training.data.scan import read_scan

CLASSES = ('Car',)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


FAULTS = {
    'no image': ('image_2/000002.png', lambda path: path.unlink(), FileNotFoundError, 'no such'),
    'short image': ('image_2/000002.png', lambda path: cut(path, 900), ValueError, 'truncated'),
    'empty image': ('image_2/000002.png', lambda path: cut(path, 0), ValueError, '0 bytes'),
    'no scan': ('velodyne/000002.bin', lambda path: path.unlink(), FileNotFoundError, 'no such'),
    'short scan': ('velodyne/000002.bin', lambda path: cut(path, 31), ValueError, '31'),
    'empty scan': ('velodyne/000002.bin', lambda path: cut(path, 0), ValueError, 'found 0'),
    'no calib': ('calib/000002.txt', lambda path: path.unlink(), FileNotFoundError, 'no such'),
    'short calib': ('calib/000002.txt', lambda path: cut(path, 100), ValueError, 'P0|P2|missing'),
    'no label': ('label_2/000002.txt', lambda path: path.unlink(), FileNotFoundError, 'no such'),
    'short label': ('label_2/000002.txt', lambda path: cut(path, 60), ValueError, '15 fields'),
}


@pytest.mark.parametrize('name', list(FAULTS))
def test_a_fault_is_found_at_opening_and_named(made_kitti, name):
    file, damage, kind, words = FAULTS[name]
    damage(made_kitti.root / 'training' / file)
    with pytest.raises(kind, match=words) as caught:
        KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)
    assert file in str(caught.value)
    assert '\n' not in str(caught.value)
    others = [f'{frame}.' for frame in made_kitti.frames if frame != '000002']
    assert not any(other in str(caught.value) for other in others)
    KittiFrames(made_kitti.root, made_kitti.frames[:2], CLASSES)


def test_several_faults_come_in_one_message(made_kitti):
    (made_kitti.root / 'training/image_2/000001.png').unlink()
    (made_kitti.root / 'training/calib/000003.txt').unlink()
    with pytest.raises(FileNotFoundError, match='2 faulty files') as caught:
        KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)
    assert 'image_2/000001.png' in str(caught.value)
    assert 'calib/000003.txt' in str(caught.value)
    cut(made_kitti.root / 'training/velodyne/000005.bin', 5)
    with pytest.raises(ValueError, match='3 faulty files'):
        KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)


def test_many_faults_are_cut_short(made_kitti):
    frames = [f'{number:06d}' for number in range(100, 200)]
    with pytest.raises(FileNotFoundError, match='400 faulty files, the first 10') as caught:
        KittiFrames(made_kitti.root, frames, CLASSES)
    assert len(str(caught.value)) < 2000


def test_damaged_pixels_are_found_when_read(made_kitti):
    path = made_kitti.root / 'training/image_2/000001.png'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    frames = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)
    assert frames[0].frame_id == '000000'
    with pytest.raises(ValueError, match=r'image_2/000001.png: damaged'):
        frames[1]


def test_numbers_that_are_not_finite_are_found_when_read(made_kitti):
    path = made_kitti.root / 'training/velodyne/000001.bin'
    points_N4 = np.fromfile(path, dtype=np.float32).reshape(-1, 4)
    points_N4[7, 1] = np.nan
    points_N4.tofile(path)
    with pytest.raises(ValueError, match=r'velodyne/000001.bin.*point 7'):
        read_scan(path)


def test_other_files_are_no_pictures(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'GIF89a' + bytes(100))
    for read in (read_png_size, read_png_rgb):
        with pytest.raises(ValueError, match='expected a PNG'):
            read(path)
        with pytest.raises(FileNotFoundError):
            read(tmp_path / 'b.png')


@pytest.mark.parametrize(
    ('frames', 'classes', 'folder', 'kind', 'words'),
    [
        ([], CLASSES, 'training', ValueError, 'empty list'),
        (['000000'], (), 'training', ValueError, 'class names'),
        (['000000'], CLASSES, 'testing', FileNotFoundError, 'testing: no such folder'),
    ],
)
def test_impossible_requests(made_kitti, frames, classes, folder, kind, words):
    with pytest.raises(kind, match=words):
        KittiFrames(made_kitti.root, frames, classes, split_folder=folder)
