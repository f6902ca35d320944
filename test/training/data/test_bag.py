"""KITTI frames as a rosbag2, read back without ROS."""

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from rosbags.highlevel import AnyReader

from cmkd_ros.geometry import invert_se3, make_se3, quaternion_to_matrix
from cmkd_ros.kitti_files import KittiCalibration, read_calibration, write_calibration
from cmkd_ros.training.data.bag import make_bag

SIZES = {'000003': (96, 320), '000005': (90, 310), '000010': (96, 320)}


def calibration(tilt: float) -> KittiCalibration:
    P2 = np.array([[190.0, 0, 158, 11], [0, 190, 44, 0.05], [0, 0, 1, 0.003]])
    cos, sin = np.cos(tilt), np.sin(tilt)
    to_optical = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    tilted = np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ to_optical
    return KittiCalibration(P2, np.eye(3), np.column_stack([tilted, [0.01, -0.07, -0.27]]))


@pytest.fixture
def kitti(tmp_path):
    """Three frames of two image sizes; the middle one may get another calibration."""
    root = tmp_path / 'kitti'
    rng = np.random.default_rng(0)
    for name in ('image_2', 'calib', 'velodyne'):
        (root / name).mkdir(parents=True)
    for frame, (height, width) in SIZES.items():
        picture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(root / 'image_2' / f'{frame}.png'), picture)
        write_calibration(root / 'calib' / f'{frame}.txt', calibration(0.01))
        rng.normal(size=(50, 4)).astype('<f4').tofile(root / 'velodyne' / f'{frame}.bin')
    return root


def read(bag):
    """{topic: [(time, message)]} in order."""
    found = {}
    with AnyReader([bag]) as reader:
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


def stamps(entries):
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for _, m in entries]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_pixels_calibration_and_points_survive(kitti, tmp_path, storage):
    bag = make_bag(kitti, tmp_path / 'out' / 'drive', storage=storage)
    topics = read(bag)
    images, infos, points = (
        topics[name] for name in ('/camera/image', '/camera/camera_info', '/points')
    )
    assert [message.data for _, message in topics['/frame_id']] == list(SIZES)
    assert stamps(images) == stamps(infos) == stamps(points)
    assert [time for time, _ in images] == stamps(images)
    assert np.diff(stamps(images)).tolist() == [10**8, 10**8]
    for frame, (_, image), (_, info), (_, cloud) in zip(SIZES, images, infos, points, strict=True):
        original = cv2.imread(str(kitti / 'image_2' / f'{frame}.png'))[..., ::-1]
        assert (image.encoding, image.header.frame_id) == ('rgb8', 'camera')
        np.testing.assert_array_equal(image.data.reshape(original.shape), original)
        assert (info.height, info.width) == original.shape[:2]
        own = read_calibration(kitti / 'calib' / f'{frame}.txt')
        np.testing.assert_array_equal(info.p.reshape(3, 4), own.P2_34)
        np.testing.assert_array_equal(info.k.reshape(3, 3), own.P2_34[:, :3])
        assert not info.d.any()
        scan = np.fromfile(kitti / 'velodyne' / f'{frame}.bin', '<f4').reshape(-1, 4)
        np.testing.assert_array_equal(cloud.data.view('<f4').reshape(-1, 4), scan)
        assert [field.name for field in cloud.fields] == ['x', 'y', 'z', 'intensity']
        assert cloud.header.frame_id == 'velodyne'


def pose_of(transform):
    t, q = transform.transform.translation, transform.transform.rotation
    return make_se3(quaternion_to_matrix([q.x, q.y, q.z, q.w]), np.array([t.x, t.y, t.z]))


def test_one_calibration_is_a_static_transform(kitti, tmp_path):
    topics = read(make_bag(kitti, tmp_path / 'drive'))
    assert '/tf' not in topics
    ((_, message),) = topics['/tf_static']
    (transform,) = message.transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ('velodyne', 'camera')
    expected = invert_se3(calibration(0.01).T_cam_ref)
    np.testing.assert_allclose(pose_of(transform), expected, atol=1e-9)


def test_calibrations_that_differ_are_transforms_at_each_stamp(kitti, tmp_path):
    write_calibration(kitti / 'calib' / '000005.txt', calibration(0.05))
    topics = read(make_bag(kitti, tmp_path / 'drive'))
    assert '/tf_static' not in topics
    found = [message.transforms[0] for _, message in topics['/tf']]
    assert [t.header.stamp.nanosec for t in found] == [
        m.header.stamp.nanosec for _, m in topics['/camera/image']
    ]
    for transform, tilt in zip(found, (0.01, 0.05, 0.01), strict=True):
        expected = invert_se3(calibration(tilt).T_cam_ref)
        np.testing.assert_allclose(pose_of(transform), expected, atol=1e-9)


def test_static_transforms_are_offered_to_late_joiners(kitti, tmp_path):
    with AnyReader([make_bag(kitti, tmp_path / 'drive')]) as reader:
        offered = {
            c.topic: c.ext.offered_qos_profiles[0].durability.name for c in reader.connections
        }
    assert offered['/tf_static'] == 'TRANSIENT_LOCAL'
    assert offered['/camera/image'] == 'VOLATILE'


def test_frames_may_be_chosen_and_points_left_out(kitti, tmp_path):
    listed = tmp_path / 'frames.txt'
    listed.write_text('000010\n000003\n')
    topics = read(make_bag(kitti, tmp_path / 'drive', frames=listed, points=False))
    assert [message.data for _, message in topics['/frame_id']] == ['000010', '000003']
    assert '/points' not in topics


def test_recorded_times_are_taken(kitti, tmp_path):
    lines = [f'2011-09-26 13:04:32.{ns}' for ns in ('345808896', '449188864', '552435968')]
    (kitti / 'image_2' / 'timestamps.txt').write_text('\n'.join(lines) + '\n')
    topics = read(make_bag(kitti, tmp_path / 'drive', frames=['000005', '000010']))
    assert stamps(topics['/camera/image']) == [1317042272449188864, 1317042272552435968]


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('2011-09-26 13:04:32.3\n', 'one line for each of 3 images, found 1'),
        (
            '2011-09-26 13:04:32.3\nyesterday\n2011-09-26 13:04:33\n',
            r'timestamps.txt:2: .*yesterday',
        ),
        (
            '2011-09-26 13:04:32.3\n2011-09-26 13:04:32.2\n2011-09-26 13:04:33\n',
            'frame 000005 is not later than frame 000003',
        ),
    ],
)
def test_impossible_times_are_refused(kitti, tmp_path, text, words):
    (kitti / 'timestamps.txt').write_text(text)
    with pytest.raises(ValueError, match=words):
        make_bag(kitti, tmp_path / 'drive')


@pytest.mark.parametrize(
    'missing', ['image_2/000005.png', 'calib/000005.txt', 'velodyne/000005.bin']
)
def test_a_missing_file_is_named_and_nothing_is_left(kitti, tmp_path, missing):
    (kitti / missing).unlink()
    out = tmp_path / 'bags' / 'drive'
    with pytest.raises(FileNotFoundError, match=missing):
        make_bag(kitti, out, frames=list(SIZES))
    assert not out.exists()


def test_damage_found_while_writing_leaves_nothing(kitti, tmp_path):
    """The picture's frame is whole but its pixels are not: seen only when it is decoded."""
    path = kitti / 'image_2' / '000010.png'
    data = bytearray(path.read_bytes())
    data[60:-60] = bytes(len(data) - 120)
    path.write_bytes(data)
    out = tmp_path / 'bags' / 'drive'
    with pytest.raises(ValueError, match=r'000010\.png'):
        make_bag(kitti, out)
    assert list(out.parent.iterdir()) == []


def test_an_existing_bag_is_not_touched(kitti, tmp_path):
    (tmp_path / 'drive').mkdir()
    with pytest.raises(FileExistsError, match='drive: exists already'):
        make_bag(kitti, tmp_path / 'drive')


def test_a_folder_without_pictures_is_no_drive(tmp_path):
    with pytest.raises(FileNotFoundError, match='expected image_2 or training/image_2'):
        make_bag(tmp_path, tmp_path / 'drive')
