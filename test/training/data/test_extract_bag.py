"""Bags with a camera and a LiDAR become frames in KITTI's layout.

Letters: H W image rows and columns, N points.
"""

import errno

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import (
    CALIBRATION,
    FX,
    HEIGHT,
    PERIOD_NS,
    START_NS,
    WIDTH,
    BagWriter,
    moved,
    picture,
    simple_bag,
    street,
)

from cmkd_ros.geometry import CameraModel, undistort_with_camera
from cmkd_ros.kitti_files import read_calibration, read_frame_list
from cmkd_ros.training.data import extract_folder
from cmkd_ros.training.data.bag import make_bag
from cmkd_ros.training.data.extract import extract_frames
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_plan import plan_extraction
from cmkd_ros.training.data.extract_pose import PoseOptions
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.scan import read_scan
from cmkd_ros.training.data.synthetic import generate_drive

MS = 1_000_000


def extract(out, *bags, progress=None, **options):
    return extract_frames(plan_extraction(bags, ExtractOptions(**options)), out, progress)


def frames_of(out):
    return read_frame_list(out / 'ImageSets' / 'train.txt')


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.*')}


def images_of(out):
    """Numbers of the `picture`s that were written."""
    known = {picture(number).tobytes(): number for number in range(20)}
    folder = KittiFolder(out / 'training')
    return [known[read_png_rgb(folder.image(frame)).tobytes()] for frame in frames_of(out)]


@pytest.fixture(scope='module')
def drive(tmp_path_factory):
    """Two small synthetic frames in KITTI's layout."""
    out = tmp_path_factory.mktemp('synthetic') / 'drive'
    return generate_drive(out, frames=2, seed=4, width=160, height=48, workers=1)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_drive_survives_the_way_through_a_bag(tmp_path, drive, storage, caplog):
    """The same pixels, points and calibration as the synthetic drive had, and its road."""
    bag = make_bag(drive, tmp_path / 'bag', storage=storage)
    caplog.set_level('INFO')
    report = extract(tmp_path / 'out', bag)
    assert report.counts == {'images': 2, 'scans': 2, 'frames': 2}
    there, back = KittiFolder(drive / 'training'), KittiFolder(tmp_path / 'out' / 'training')
    for old, new in zip(('000000', '000001'), frames_of(tmp_path / 'out'), strict=True):
        np.testing.assert_array_equal(read_png_rgb(back.image(new)), read_png_rgb(there.image(old)))
        np.testing.assert_array_equal(read_scan(back.scan(new)), read_scan(there.scan(old)))
        expected, found = read_calibration(there.calib(old)), read_calibration(back.calib(new))
        np.testing.assert_array_equal(found.P2_34, expected.P2_34)
        np.testing.assert_allclose(found.T_cam_ref, expected.T_cam_ref, atol=1e-8)
    assert 'below it, as it should' in caplog.text


def test_the_folder_is_one_to_train_from(tmp_path):
    extract(tmp_path / 'out', simple_bag(tmp_path / 'bag', 2))
    assert frames_of(tmp_path / 'out') == ['20260713_094501_000000', '20260713_094501_100000']
    frames = KittiFrames(
        tmp_path / 'out', frames_of(tmp_path / 'out'), ['Car'], labelled=False, with_depth=True
    )
    sample = frames[1]
    assert sample.image_HW3.shape == (HEIGHT, WIDTH, 3)
    assert len(sample.points_N4) > 100
    assert (tmp_path / 'out' / 'DATASET').read_text() == 'recordings\n'
    times = (tmp_path / 'out' / 'training' / 'timestamps.txt').read_text().splitlines()
    assert times == ['2026-07-13 09:45:01.000000000', '2026-07-13 09:45:01.100000000']


def test_the_folder_is_one_to_make_a_bag_from(tmp_path):
    extract(tmp_path / 'out', simple_bag(tmp_path / 'bag', 2))
    again = make_bag(tmp_path / 'out', tmp_path / 'again')
    extract(tmp_path / 'out2', again)
    there, back = (KittiFolder(tmp_path / name / 'training') for name in ('out', 'out2'))
    assert frames_of(tmp_path / 'out') == frames_of(tmp_path / 'out2')
    for frame in frames_of(tmp_path / 'out'):
        np.testing.assert_array_equal(read_scan(back.scan(frame)), read_scan(there.scan(frame)))


def test_images_and_scans_of_other_rates_and_stamps_are_paired(tmp_path):
    """Images at 30 Hz, scans at 10 Hz that arrive later than they were taken."""
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        for number in range(9):
            bag.image(picture(number), START_NS + number * 33 * MS)
        for number in range(3):
            bag.scan(street(number), START_NS + (number * 100 + 5) * MS)
    report = extract(tmp_path / 'out', tmp_path / 'bag')
    assert images_of(tmp_path / 'out') == [0, 3, 6]
    assert report.counts == {'images': 9, 'scans': 3, 'frames': 3}
    report = extract(tmp_path / 'near', tmp_path / 'bag', max_gap_s=0.006)
    assert images_of(tmp_path / 'near') == [0, 3]
    assert report.counts['scans left out: no image near enough'] == 1


@pytest.mark.parametrize(
    ('options', 'kept'),
    [
        ({'every': 3}, [0, 3, 6]),
        ({'rate_hz': 5.0}, [0, 2, 4, 6]),
        ({'least_change': 2.0}, [*range(8)]),
    ],
)
def test_fewer_frames_may_be_taken(tmp_path, options, kept):
    report = extract(tmp_path / 'out', simple_bag(tmp_path / 'bag', 8), **options)
    assert images_of(tmp_path / 'out') == kept
    assert report.counts['frames'] == len(kept)
    assert report.counts.get('pairs left out: thinned out', 0) == 8 - len(kept)


def test_a_robot_that_stands_still_shows_nothing_new(tmp_path):
    rng = np.random.default_rng(0)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        for number, scene in enumerate([0, 0, 0, 1, 1, 2]):
            stamp_ns = START_NS + number * PERIOD_NS
            noise = rng.integers(-2, 3, (HEIGHT, WIDTH, 3))
            image_HW3 = np.clip(picture(scene) + noise, 0, 255).astype(np.uint8)
            if number in (0, 3, 5):
                image_HW3 = picture(scene)
            bag.info(stamp_ns)
            bag.image(image_HW3, stamp_ns)
            bag.scan(street(number), stamp_ns)
    report = extract(tmp_path / 'out', tmp_path / 'bag', least_change=2.0)
    assert images_of(tmp_path / 'out') == [0, 1, 2]
    assert report.counts['pairs left out: the image shows nothing new'] == 3


@pytest.mark.parametrize('ending', ['png', 'jpg'])
def test_compressed_images(tmp_path, ending):
    y_HW, x_HW = np.mgrid[:HEIGHT, :WIDTH]
    smooth_HW3 = np.stack([x_HW, y_HW, x_HW // 2 + y_HW], -1).astype(np.uint8)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        bag.compressed(smooth_HW3, START_NS, ending)
        bag.scan(street(), START_NS)
    extract(tmp_path / 'out', tmp_path / 'bag')
    (frame,) = frames_of(tmp_path / 'out')
    found = read_png_rgb(KittiFolder(tmp_path / 'out' / 'training').image(frame))
    np.testing.assert_allclose(found.astype(int), smooth_HW3, atol=0 if ending == 'png' else 12)


def test_a_raw_image_is_rectified(tmp_path):
    """And its pose is turned with it: R belongs to the pixels of P, transforms to the lens."""
    distortion, K_px_33 = (-0.3, 0.1, 0.001, 0.0, 0.0), [[125, 0, 78], [0, 124, 30], [0, 0, 1]]
    R_33 = moved(yaw_rad=0.02)[:3, :3]  # about the optical axis
    image_HW3 = cv2.GaussianBlur(picture(0), (5, 5), 0)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS, distortion=distortion, K_px_33=K_px_33, R_33=R_33)
        bag.image(image_HW3, START_NS)
        bag.scan(street(), START_NS)
    P_px_34 = CALIBRATION.P2_34
    camera = CameraModel(WIDTH, HEIGHT, K_px_33, P_px_34, R_33, distortion, 'plumb_bob')
    for rectified, turned_33, expected in (
        ('auto', R_33, undistort_with_camera(image_HW3, camera)[0]),
        ('true', np.eye(3), image_HW3),
    ):
        out = tmp_path / rectified
        extract(out, tmp_path / 'bag', rectified=rectified)
        folder, (frame,) = KittiFolder(out / 'training'), frames_of(out)
        np.testing.assert_array_equal(read_png_rgb(folder.image(frame)), expected)
        calibration = read_calibration(folder.calib(frame))
        np.testing.assert_array_equal(calibration.P2_34, P_px_34)
        pose_34 = turned_33 @ CALIBRATION.T_cam_ref[:3]
        np.testing.assert_allclose(calibration.T_cam_ref[:3], pose_34, atol=1e-9)


def test_a_width_scales_pixels_and_calibration(tmp_path, caplog):
    bag = simple_bag(tmp_path / 'bag', 1)
    caplog.set_level('INFO')
    extract(tmp_path / 'out', bag, width=80)
    assert 'images of 80 x 32 pixels, focal length 60 pixels' in caplog.text
    folder, (frame,) = KittiFolder(tmp_path / 'out' / 'training'), frames_of(tmp_path / 'out')
    assert read_png_rgb(folder.image(frame)).shape == (HEIGHT // 2, 80, 3)
    P2_34 = read_calibration(folder.calib(frame)).P2_34
    assert P2_34[0, 0] == P2_34[1, 1] == FX / 2
    # The middle of the picture stays the middle of the picture.
    assert P2_34[0, 2] == (CALIBRATION.P2_34[0, 2] + 0.5) / 2 - 0.5


def test_several_bags_are_drives_of_their_own(tmp_path):
    bags = [
        simple_bag(tmp_path / name, 2, START_NS + minutes * 60_000 * MS)
        for name, minutes in (('first', 0), ('second', 7))
    ]
    extract(tmp_path / 'out', *bags, dataset='van')
    rows = (tmp_path / 'out' / 'MANIFEST.tsv').read_text().splitlines()[1:]
    columns = [row.split('\t') for row in rows]
    assert [(row[1], row[4]) for row in columns] == [
        ('2026_07_13_drive_0945_sync', 'first'), ('2026_07_13_drive_0945_sync', 'first'),
        ('2026_07_13_drive_0952_sync', 'second'), ('2026_07_13_drive_0952_sync', 'second'),
    ]  # fmt: skip
    assert (tmp_path / 'out' / 'DATASET').read_text() == 'van\n'


@pytest.mark.parametrize(('storage', 'ending'), [('mcap', 'mcap'), ('sqlite3', 'db3')])
def test_the_file_of_a_bag_will_do(tmp_path, storage, ending):
    (file,) = simple_bag(tmp_path / 'bag', 2, storage=storage).glob(f'*.{ending}')
    assert plan_extraction([file]).frames == 2


def test_frames_that_two_bags_share_are_taken_once(tmp_path):
    first = simple_bag(tmp_path / 'first', 3)
    second = simple_bag(tmp_path / 'second', 3, START_NS + 2 * PERIOD_NS)
    report = extract(tmp_path / 'out', first, second)
    assert report.counts['frames'] == 5
    assert report.counts['pairs left out: of a time that another bag has'] == 1


@pytest.mark.parametrize('least_change', [0.0, 2.0])
def test_an_interrupted_extraction_goes_on(tmp_path, least_change):
    """The files are those of an undisturbed one; what is there is not written again."""
    bags = [
        simple_bag(tmp_path / name, 3, START_NS + index * 10**10) for index, name in enumerate('ab')
    ]
    extract(tmp_path / 'whole', *bags, least_change=least_change)

    def stop(done, _):
        if done == 4:
            raise KeyboardInterrupt

    out = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        extract(out, *bags, progress=stop, least_change=least_change)
    first = KittiFolder(out / 'training').image('20260713_094501_000000')
    written = first.stat().st_mtime_ns
    assert not (out / 'MANIFEST.tsv').exists()
    report = extract(out, *bags, least_change=least_change)
    assert report.counts['frames'] == 6
    assert contents(out) == contents(tmp_path / 'whole')
    assert first.stat().st_mtime_ns == written


def test_a_disk_that_fills_up_is_told_and_the_rest_follows(tmp_path, monkeypatch):
    bag, out = simple_bag(tmp_path / 'bag', 4), tmp_path / 'out'
    extract(tmp_path / 'whole', bag)
    written, write = [], extract_folder.write_bytes_atomically

    def full_after_five(path, content):
        if len(written) == 5:
            raise OSError(errno.ENOSPC, 'No space left on device')
        written.append(path)
        write(path, content)

    monkeypatch.setattr(extract_folder, 'write_bytes_atomically', full_after_five)
    with pytest.raises(OSError, match='no space left: 2 of 4 frames are written; free space'):
        extract(out, bag)
    monkeypatch.undo()
    (out / 'training' / 'image_2' / '.cut.png.tmp').write_bytes(b'half')  # as a power cut leaves it
    extract(out, bag)
    assert contents(out) == contents(tmp_path / 'whole')


def test_each_image_has_the_camera_info_of_its_time(tmp_path):
    """A camera whose resolution changes during the drive."""
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        for number in range(4):
            stamp_ns, height = START_NS + number * PERIOD_NS, HEIGHT - 16 * (number // 2)
            if number % 2 == 0:
                bag.info(stamp_ns, size=(WIDTH, height))
            bag.image(picture(number, height), stamp_ns + 3)
            bag.scan(street(number), stamp_ns)
    assert extract(tmp_path / 'out', tmp_path / 'bag').counts['frames'] == 4


def test_brightness_is_brought_to_kittis(tmp_path):
    points_N4 = street()
    points_N4[:, 3] = np.round(points_N4[:, 3] * 200)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        bag.image(picture(0), START_NS)
        bag.scan(points_N4, START_NS)
    for out, options, full in (('out', {}, 255), ('told', {'intensity_full': 100.0}, 100)):
        extract(tmp_path / out, tmp_path / 'bag', **options)
        folder, (frame,) = KittiFolder(tmp_path / out / 'training'), frames_of(tmp_path / out)
        expected_N = np.minimum(points_N4[:, 3] / full, 1)
        np.testing.assert_allclose(read_scan(folder.scan(frame))[:, 3], expected_N, rtol=1e-6)


def test_a_lidar_lower_than_kittis_is_lifted(tmp_path, caplog):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        bag.image(picture(0), START_NS)
        bag.scan(street(lidar_height_m=0.7), START_NS)
    caplog.set_level('INFO')
    extract(tmp_path / 'low', tmp_path / 'bag')
    assert 'made for 1.73 m; by the scans, --lidar-height is 0.7' in caplog.text
    caplog.clear()
    extract(tmp_path / 'out', tmp_path / 'bag', pose=PoseOptions(lidar_height_m=0.7))
    assert 'as it should' in caplog.text
    folder, (frame,) = KittiFolder(tmp_path / 'out' / 'training'), frames_of(tmp_path / 'out')
    assert read_scan(folder.scan(frame))[:, 2].min() == pytest.approx(-1.73, abs=0.01)
    # Where a point is seen in the picture does not depend on the reference frame.
    pixels = []
    for name in ('low', 'out'):
        folder = KittiFolder(tmp_path / name / 'training')
        points_N3 = read_scan(folder.scan(frame))[:, :3].astype(float)
        calibration = read_calibration(folder.calib(frame))
        T_44 = calibration.T_cam_ref
        seen_N3 = (points_N3 @ T_44[:3, :3].T + T_44[:3, 3]) @ calibration.P2_34[:, :3].T
        pixels.append(seen_N3[:, :2] / seen_N3[:, 2:])
    np.testing.assert_allclose(pixels[0], pixels[1], atol=1e-3)
