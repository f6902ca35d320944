"""Recordings that cannot be used, wholly or in part: one sentence, and nothing left behind."""

import re

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import (
    CALIBRATION,
    HEIGHT,
    LIDAR_FRAME,
    MESSAGES,
    PERIOD_NS,
    START_NS,
    WIDTH,
    BagWriter,
    moved,
    picture,
    simple_bag,
    street,
)

from cmkd_ros.cli import main
from cmkd_ros.geometry import invert_se3, make_se3
from cmkd_ros.training.data.extract_folder import ExtractFolder
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_plan import plan_extraction
from cmkd_ros.training.data.extract_topics import TopicChoice

_PAGE = 4096  # bytes of sqlite3, which keeps its own numbers at the beginning of each


def bag_of(path, *, without=(), **topics):
    """One frame; the values of `topics` are names for its image, info and scan."""
    with BagWriter(path) as bag:
        if 'mount' not in without:
            bag.mount()
        for kind, write in (
            ('info', lambda topic: bag.info(START_NS, **topic)),
            ('image', lambda topic: bag.image(picture(0), START_NS, **topic)),
            ('scan', lambda topic: bag.scan(street(), START_NS, **topic)),
        ):
            for name in topics.get(kind, () if kind in without else (None,)):
                write({'topic': name} if name else {})
    return path


@pytest.mark.parametrize(
    ('bag', 'words'),
    [
        ({'without': ['scan']}, r'no point cloud topic in it \(sensor_msgs/PointCloud2\)'),
        ({'without': ['image']}, r'no image topic in it \(sensor_msgs/Image or CompressedImage\)'),
        ({'without': ['info']}, 'no camera_info topic in it'),
        ({'scan': ['/top', '/low']}, '2 point cloud topics: /low, /top; choose one with --points'),
        ({'image': ['/a/image', '/b/image']}, '2 image topics: /a/image, /b/image; .* --image'),
        ({'info': ['/l/camera_info', '/r/camera_info']}, '2 camera_info topics: .*--camera-info'),
        ({'without': ['mount']}, "no transforms connect 'velodyne' and 'camera'.*--camera-pose"),
    ],
)
def test_what_a_recording_lacks_is_one_sentence(tmp_path, capsys, bag, words):
    out = tmp_path / 'out'
    code = main(['extract-bag', str(bag_of(tmp_path / 'bag', **bag)), '--out', str(out)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith('cmkd: ')]
    assert code == 2
    assert re.search(f'/bag: {words}', line)
    assert not out.exists()


def test_topics_that_are_chosen_are_taken(tmp_path):
    bag = bag_of(tmp_path / 'bag', scan=['/top', '/low'], image=['/a/image', '/b/image'])
    plan = plan_extraction(
        [bag], ExtractOptions(topics=TopicChoice(image='/b/image', points='/low'))
    )
    assert plan.counts == {'images': 1, 'scans': 1}
    with pytest.raises(ValueError, match='--points /roof: no such point cloud topic.*: /low, /top'):
        plan_extraction([bag], ExtractOptions(topics=TopicChoice('/b/image', points='/roof')))


def test_of_an_image_and_its_compressed_copy_the_image_is_taken(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        bag.image(picture(0), START_NS)
        for topic in ('/camera/image/compressed', '/camera/image/compressedDepth'):
            bag.compressed(picture(1), START_NS + 1, topic=topic)
        bag.scan(street(), START_NS)
    assert plan_extraction([tmp_path / 'bag']).counts['images'] == 1


def test_the_camera_info_beside_the_image_is_its_own(tmp_path):
    info = ['/l/camera_info', '/r/camera_info']
    bag = bag_of(tmp_path / 'bag', info=info, image=['/l/image', '/r/image'])
    for side in 'lr':
        plan_extraction([bag], ExtractOptions(topics=TopicChoice(f'/{side}/image')))


def test_a_camera_info_of_another_frame_must_be_asked_for(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS, frame='left')
        bag.image(picture(0), START_NS)
        bag.scan(street(), START_NS)
    with pytest.raises(ValueError, match="in frame 'camera', but .* 'left'; .*--camera-info /cam"):
        plan_extraction([tmp_path / 'bag'])
    choice = TopicChoice(camera_info='/camera/camera_info')
    assert plan_extraction([tmp_path / 'bag'], ExtractOptions(topics=choice)).frames == 1


def test_clocks_that_disagree_are_told_with_their_gap(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        for number in range(3):
            bag.image(picture(number), START_NS + number * PERIOD_NS)
            bag.scan(street(number), START_NS + 10**10 + number * PERIOD_NS)
    with pytest.raises(ValueError, match=r'no scan .* 50 ms \(--max-gap\).* it is 9800\.0 ms'):
        plan_extraction([tmp_path / 'bag'])


def test_a_camera_without_calibration_is_told(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        message = MESSAGES.camera_info(CALIBRATION, picture(0), START_NS)
        message.k, message.p = np.zeros(9), np.zeros(12)
        bag.write('/camera/camera_info', message, START_NS)
        bag.image(picture(0), START_NS)
        bag.scan(street(), START_NS)
    with pytest.raises(ValueError, match='bag: camera_info of .*: the camera is not calibrated'):
        plan_extraction([tmp_path / 'bag'])


def test_a_camera_that_looks_back_is_told_before_anything_is_written(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.transform('turned', LIDAR_FRAME, moved(yaw_rad=np.pi))
        bag.info(START_NS)
        bag.image(picture(0), START_NS)
        bag.scan(street() * np.float32([-1, -1, 1, 1]), START_NS, frame='turned')
    with pytest.raises(ValueError, match='the camera looks 180 degrees away from the x axis'):
        plan_extraction([tmp_path / 'bag'])


def test_frames_that_cannot_be_used_are_left_out_and_counted(tmp_path, capsys, caplog):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS)
        for number in range(6):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.image(picture(number, height=HEIGHT - 2 * (number == 1)), stamp_ns)
            points_N4 = street(number)[: 0 if number == 3 else None]
            if number == 4:
                points_N4[:, 0] *= -1  # all behind the camera
            bag.scan(points_N4, stamp_ns)
    out = tmp_path / 'out'
    assert main(['extract-bag', str(tmp_path / 'bag'), '--out', str(out)]) == 0
    assert caplog.text.count('left out:') == 1
    assert f'image is {WIDTH}x62 pixels, but camera_info describes {WIDTH}x64' in caplog.text
    printed = capsys.readouterr().out
    assert '3 pairs left out: image, calibration or scan cannot be used' in printed
    assert len((out / 'ImageSets' / 'train.txt').read_text().splitlines()) == 3


def test_a_recording_without_a_usable_frame_leaves_nothing(tmp_path, capsys):
    with BagWriter(tmp_path / 'bag') as bag:
        bag.mount()
        bag.info(START_NS, size=(WIDTH, 2 * HEIGHT))
        bag.image(picture(0), START_NS)
        bag.scan(street(), START_NS)
    assert main(['extract-bag', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 2
    assert 'no frame can be used: image is 160x64' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_folder_without_frames_goes_and_files_of_others_stay(tmp_path):
    folder = ExtractFolder(tmp_path / 'out', {})
    note = tmp_path / 'out' / 'training' / 'calib' / 'note.txt'
    note.write_text('mine')
    folder.discard()
    assert [path for path in (tmp_path / 'out').rglob('*') if path.is_file()] == [note]


def test_a_camera_that_sees_no_point_is_told(tmp_path, capsys):
    """Its transform says that it looks into the sky."""
    up_33 = np.array([[1.0, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    T_up_cam = make_se3(up_33, np.zeros(3))
    with BagWriter(tmp_path / 'bag') as bag:
        bag.transform(LIDAR_FRAME, 'camera', invert_se3(CALIBRATION.T_cam_ref) @ T_up_cam)
        bag.info(START_NS)
        bag.image(picture(0), START_NS)
        bag.scan(street()[:800], START_NS)
    assert main(['extract-bag', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 2
    assert 'no point of the scan falls into the picture' in capsys.readouterr().err


def test_bags_of_one_time_or_one_name_are_refused(tmp_path):
    """As a simulator makes them, whose clock starts at 0 for every run."""
    first, second = (simple_bag(tmp_path / name, 2, 10**9) for name in ('a', 'b'))
    with pytest.raises(ValueError, match='b: another bag has frames of the same times; .*--name'):
        plan_extraction([first, second])
    with pytest.raises(ValueError, match='bags of different names, found a, a'):
        plan_extraction([first, first])


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path, capsys):
    bag, out = simple_bag(tmp_path / 'bag', 2), tmp_path / 'out'
    command = ['extract-bag', str(bag), '--out', str(out)]
    out.mkdir()
    (out / 'thesis.tex').write_text('mine')
    assert main(command) == 2
    assert 'exists and holds no unfinished extraction' in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ['thesis.tex']
    (out / 'thesis.tex').unlink()
    assert main(command) == 0
    assert main(command) == 2
    assert 'is complete already' in capsys.readouterr().err
    (out / 'MANIFEST.tsv').unlink()
    assert main([*command, '--every', '2']) == 2
    assert 'other bags or options (extract.json tells which)' in capsys.readouterr().err
    assert main(command) == 0


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('share', [0.99, 0.4, 0.0])
def test_a_truncated_bag_is_told_with_a_way_out(tmp_path, storage, share):
    bag = simple_bag(tmp_path / 'bag', 3, storage=storage)
    (file,) = [path for path in bag.iterdir() if path.suffix != '.yaml']
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ValueError, match='bag: damaged, or not a bag: .*mcap recover'):
        plan_extraction([bag])


@pytest.mark.parametrize(
    ('storage', 'places'),
    [
        ('mcap', lambda data: [data.index(b'\x28\xb5\x2f\xfd')]),  # the first compressed chunk
        ('sqlite3', lambda data: range(8 * _PAGE, 12 * _PAGE, _PAGE)),  # pages of a message
    ],
)
def test_damage_inside_a_bag_is_told(tmp_path, storage, places):
    """What the index says is right, what it points to is not."""
    bag = simple_bag(tmp_path / 'bag', 3, storage=storage)
    (file,) = [path for path in bag.iterdir() if path.suffix != '.yaml']
    data = bytearray(file.read_bytes())
    for place in places(bytes(data)):
        data[place : place + 12] = b'\xee' * 12
    file.write_bytes(data)
    with pytest.raises(ValueError, match='bag: damaged, or not a bag: .*mcap recover'):
        plan_extraction([bag])


def test_what_is_no_bag_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere: no such bag'):
        plan_extraction([tmp_path / 'nowhere'])
    with pytest.raises(ValueError, match=r'without metadata\.yaml; .*ros2 bag reindex'):
        plan_extraction([tmp_path])


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'every': 0}, '--every: expected 1 or more, found 0'),
        ({'rate_hz': -1.0}, '--rate: expected 0 or more'),
        ({'max_gap_s': np.nan}, '--max-gap: expected 0 or more, found nan'),
        ({'least_change': np.inf}, '--min-change: expected 0 or more, found inf'),
        ({'intensity_full': 0.0}, '--intensity-max: expected a positive number'),
        ({'width': 3}, '--width: expected 64 or more, found 3'),
        ({'dataset': 'a/b'}, '--name: expected one line without /'),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ExtractOptions(**options)


def test_a_moving_transform_may_start_late(tmp_path):
    """Its first message comes after the first image, and one broken message is ignored."""
    bag = BagWriter(tmp_path / 'bag')
    with bag:
        for number in range(4):
            stamp_ns = START_NS + number * PERIOD_NS
            bag.info(stamp_ns)
            bag.image(picture(number), stamp_ns)
            bag.scan(street(number), stamp_ns)
            if number:
                message = MESSAGES.transform(CALIBRATION, stamp_ns)
                message.transforms[0].transform.rotation.w *= np.nan if number == 1 else 1.0
                bag.write('/tf', message, stamp_ns)
    assert plan_extraction([tmp_path / 'bag']).frames == 4
