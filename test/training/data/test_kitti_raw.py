"""KITTI raw recordings: the same samples as object frames, lazily, and clear about faults."""

import shutil

import cv2
import numpy as np
import pytest

from cmkd_ros.kitti_files import read_calibration
from cmkd_ros.training.data.augment import flip_sample
from cmkd_ros.training.data.frames import ConcatFrames
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_raw import KittiRawFrames, read_raw_list
from cmkd_ros.training.data.kitti_raw_calib import read_raw_calibration
from cmkd_ros.training.data.loader import make_loader

DATE = '2011_09_26'
DRIVE = f'{DATE}/{DATE}_drive_0005_sync'
FRAMES = tuple(f'{DRIVE}/image_02/data/00000000{number}' for number in (40, 80))
RANGE = (2, -30.08, -3, 46.8, 30.08, 1)
FIELDS = ('image_HW3', 'cam_to_img_34', 'ref_to_cam_44', 'points_N4', 'depth_HW')


@pytest.fixture()
def raw(shared_dir, tmp_path):
    """A writable copy of the two real frames."""
    root = tmp_path / 'raw'
    # Without the modes: the originals may be read-only.
    shutil.copytree(
        shared_dir / 'samples/kitti_raw', root, copy_function=shutil.copyfile, dirs_exist_ok=True
    )
    for path in root.rglob('*'):
        path.chmod(0o755 if path.is_dir() else 0o644)
    root.chmod(0o755)
    return root


def test_calibration_equals_that_of_object_frames_of_the_date(shared_dir):
    raw = read_raw_calibration(shared_dir / 'samples/kitti_raw' / DATE)
    assert raw.image_size == (375, 1242)
    for frame in ('000310', '007414'):
        expected = read_calibration(shared_dir / f'kitti_mini/training/calib/{frame}.txt')
        for name in ('P2_34', 'R0_33', 'Tr_velo_to_cam_34'):
            difference = getattr(raw.calibration, name) - getattr(expected, name)
            assert np.abs(difference).max() <= 1e-6


def test_samples_equal_those_of_the_object_layout(shared_dir, tmp_path):
    root = shared_dir / 'samples/kitti_raw'
    folder = tmp_path / 'training'
    for name in ('image_2', 'velodyne', 'calib'):
        (folder / name).mkdir(parents=True)
    for index, frame in enumerate(FRAMES):
        number = frame[-10:]
        (folder / f'image_2/{index:06d}.png').symlink_to(root / f'{frame}.png')
        scan = root / DRIVE / f'velodyne_points/data/{number}.bin'
        (folder / f'velodyne/{index:06d}.bin').symlink_to(scan)
        calib = shared_dir / 'kitti_mini/training/calib/000310.txt'
        (folder / f'calib/{index:06d}.txt').symlink_to(calib)
    options = {'range_m': RANGE, 'with_depth': True}
    objects = KittiFrames(tmp_path, ['000000', '000001'], ('Car',), labelled=False, **options)
    raw = KittiRawFrames(root, FRAMES, **options)
    for index, frame in enumerate(FRAMES):
        for augment in (None, flip_sample):
            first, second = (frames.sample(index, augment) for frames in (objects, raw))
            for name in FIELDS:
                assert np.array_equal(getattr(first, name), getattr(second, name)), name
            assert second.frame_id == frame
            assert not second.labelled
            assert second.boxes_M7.shape == (0, 7)


def test_whole_drives_and_lists_name_the_same_frames(shared_dir, tmp_path):
    root = shared_dir / 'samples/kitti_raw'
    for entries in ([DRIVE], [f'{DRIVE}/image_02'], [f'{frame}.png' for frame in FRAMES]):
        assert KittiRawFrames(root, entries).frame_ids == FRAMES
    assert KittiRawFrames(root, [FRAMES[1], DRIVE]).frame_ids == FRAMES[::-1]
    path = tmp_path / 'frames.txt'
    path.write_text(f'# two frames\r\n{FRAMES[1]}\r\n\r\n{FRAMES[0]}')
    assert read_raw_list(path) == list(FRAMES[::-1])


def test_right_camera_has_its_own_projection(raw):
    shutil.move(raw / DRIVE / 'image_02', raw / DRIVE / 'image_03')
    frames = KittiRawFrames(raw, [f'{DRIVE}/image_03'])
    assert frames.frame_ids[0].endswith('image_03/data/0000000040')
    # P_rect_03 of the sample: half a metre to the right of camera 2.
    assert frames[0].cam_to_img_34[0, 3] == pytest.approx(-339.5242)


def test_frames_without_a_scan_are_left_out_and_counted(raw, caplog):
    (raw / DRIVE / 'velodyne_points/data/0000000040.bin').unlink()
    frames = KittiRawFrames(raw, FRAMES)
    assert frames.frame_ids == FRAMES[1:]
    assert frames.left_out == FRAMES[:1]
    assert '1 of 2 frames have no scan' in caplog.text
    assert KittiRawFrames(raw, FRAMES, with_points=False).frame_ids == FRAMES
    (raw / DRIVE / 'velodyne_points/data/0000000080.bin').unlink()
    with pytest.raises(ValueError, match='2 images have no scan'):
        KittiRawFrames(raw, [DRIVE])


def test_given_depth_maps_come_before_the_lidar(raw, tmp_path):
    depth = tmp_path / 'depth/val' / DRIVE.split('/')[1] / 'proj_depth/groundtruth/image_02'
    depth.mkdir(parents=True)
    cv2.imwrite(str(depth / '0000000040.png'), np.full((375, 1242), 2560, dtype=np.uint16))
    frames = KittiRawFrames(raw, FRAMES, with_depth=True, depth_root=tmp_path / 'depth')
    assert (frames[0].depth_HW == 10.0).all()
    from_lidar = KittiRawFrames(raw, FRAMES, with_depth=True)[1].depth_HW
    assert np.array_equal(frames[1].depth_HW, from_lidar)
    assert 0.01 < (from_lidar > 0).mean() < 0.1


def test_raw_frames_share_a_batch_with_labelled_ones(shared_dir):
    raw = KittiRawFrames(shared_dir / 'samples/kitti_raw', [DRIVE], range_m=RANGE)
    labelled = KittiFrames(shared_dir / 'goldens', ['000000'], ('Car',), split_folder='frames')
    loader = make_loader(ConcatFrames([labelled, raw]), 3, 0, workers=1)
    (batch,) = list(loader)
    assert sorted(batch.labelled_B.tolist()) == [False, False, True]
    assert batch.image_B3HW.shape == (3, 3, 375, 1242)


def test_opening_lists_folders_and_reads_no_frame(shared_dir, tmp_path):
    """1000 frames of nothing open at once: a file of zero bytes is only found when it is read."""
    frames = []
    for drive in range(4):
        name = f'{DATE}/{DATE}_drive_{drive:04d}_sync'
        for folder, ending in (('image_02', 'png'), ('velodyne_points', 'bin')):
            (tmp_path / name / folder / 'data').mkdir(parents=True)
            for frame in range(250):
                (tmp_path / name / folder / f'data/{frame:010d}.{ending}').touch()
        frames += [f'{name}/image_02/data/{frame:010d}' for frame in range(250)]
    for name in ('calib_cam_to_cam.txt', 'calib_velo_to_cam.txt'):
        calib = shared_dir / 'samples/kitti_raw' / DATE / name
        (tmp_path / DATE / name).write_bytes(calib.read_bytes())
    opened = KittiRawFrames(tmp_path, frames)
    assert opened.frame_ids == tuple(frames)
    with pytest.raises(ValueError, match=r'drive_0003_sync/image_02/data/0000000007.png'):
        opened[3 * 250 + 7]


@pytest.mark.parametrize(
    ('entry', 'words'),
    [
        ('2011_09_26', 'expected DATE/DRIVE_sync'),
        (f'{DATE}/{DATE}_drive_0005_extract', 'expected DATE/DRIVE_sync'),
        (f'2011_09_28/{DATE}_drive_0005_sync', 'expected DATE/DRIVE_sync'),
        (f'{DRIVE}/image_00/data/0000000040', 'expected DATE/DRIVE_sync'),
        (f'{DRIVE}/image_02/data/40', 'expected DATE/DRIVE_sync'),
        ('', 'expected DATE/DRIVE_sync'),
    ],
)
def test_entries_of_another_form(shared_dir, tmp_path, entry, words):
    with pytest.raises(ValueError, match=words):
        KittiRawFrames(shared_dir / 'samples/kitti_raw', [entry])
    path = tmp_path / 'list.txt'
    path.write_text(f'{DRIVE}\n{entry}\n')
    if entry:
        with pytest.raises(ValueError, match=f'list.txt:2: {words}'):
            read_raw_list(path)


def test_missing_things_are_named(raw, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        KittiRawFrames(tmp_path / 'nowhere', [DRIVE])
    with pytest.raises(FileNotFoundError, match='drive_0006_sync/image_02/data: no such folder'):
        KittiRawFrames(raw, [DRIVE.replace('0005', '0006')])
    with pytest.raises(FileNotFoundError, match='1 of 3 listed images are missing.*0000000041'):
        KittiRawFrames(raw, [*FRAMES, FRAMES[0][:-2] + '41'])
    with pytest.raises(FileNotFoundError, match='depths: no such folder'):
        KittiRawFrames(raw, FRAMES, depth_root=tmp_path / 'depths')
    with pytest.raises(ValueError, match='0 entries give no frame'):
        KittiRawFrames(raw, [])
    (raw / DATE / 'calib_velo_to_cam.txt').unlink()
    with pytest.raises(FileNotFoundError, match='calib_velo_to_cam.txt'):
        KittiRawFrames(raw, FRAMES)
    (tmp_path / 'empty.txt').write_text('\n# nothing\n')
    with pytest.raises(ValueError, match='empty.txt: expected frames'):
        read_raw_list(tmp_path / 'empty.txt')
    with pytest.raises(FileNotFoundError, match='absent.txt'):
        read_raw_list(tmp_path / 'absent.txt')


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'words'),
    [
        ('cam_to_cam', 'P_rect_02:', 'P_rect_2:', "expected a line 'P_rect_02'"),
        ('cam_to_cam', 'R_rect_00: 9.999239e-01', 'R_rect_00: ', 'R_rect_00: expected 9 finite'),
        ('cam_to_cam', 'S_rect_02: 1.242000e+03', 'S_rect_02: wide', "S_rect_02: .*'wide'"),
        ('velo_to_cam', 'R: 7.533745e-03', 'R: 7.533745e-01', 'expected a rotation'),
        ('velo_to_cam', 'T: -4.069766e-03', 'T: nan', 'T: expected 3 finite numbers'),
    ],
)
def test_damaged_calibrations_are_named(raw, file, old, new, words):
    path = raw / DATE / f'calib_{file}.txt'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=words) as caught:
        KittiRawFrames(raw, FRAMES)
    assert path.name in str(caught.value)


def test_pictures_of_another_size_are_named(raw):
    path = raw / f'{FRAMES[0]}.png'
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (621, 188)))
    with pytest.raises(ValueError, match=r'0000000040.png: expected \(375, 1242\).*\(188, 621\)'):
        KittiRawFrames(raw, FRAMES)[0]
    with pytest.raises(ValueError, match="'image_01'"):
        read_raw_calibration(raw / DATE, 'image_01')
