"""A bag through the node in its own process gives what the detector gives, frame by frame."""

import os
import re
import shutil

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')
pytest.importorskip('rosbags', reason='needs rosbags')

from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from cmkd_ros import Detector
from cmkd_ros.cli import main
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.geometry import camera_mount_pose, wrap_angle
from cmkd_ros.kitti_files import (
    KittiCalibration,
    KittiObjects,
    read_calibration,
    read_results,
    write_calibration,
    write_labels,
)
from cmkd_ros.ros.camera_bag import open_camera_bag
from cmkd_ros.ros.detection_messages import detections_from_message
from cmkd_ros.ros.eval_bag import evaluate_bag
from cmkd_ros.ros.replay import replay_bag
from cmkd_ros.training.data.bag import make_bag

FRAMES = {'000007': 0.0, '000001': 0.04, '000004': 0.0}  # camera pitch of each


@pytest.fixture(scope='module')
def kitti(tmp_path_factory, picture, small_P_px_34):
    """Frames of two image sizes and two calibrations, and a label each."""
    root = tmp_path_factory.mktemp('kitti')
    for name in ('image_2', 'calib', 'label_2'):
        (root / name).mkdir()
    for index, (frame, pitch) in enumerate(FRAMES.items()):
        pixels = picture(index, 96 - 2 * (index == 1), 320 - 6 * (index == 1))
        cv2.imwrite(str(root / 'image_2' / f'{frame}.png'), pixels[..., ::-1])
        pose = camera_mount_pose(1.65, pitch)
        calibration = KittiCalibration(small_P_px_34 * [[1 + pitch], [1], [1]], np.eye(3), pose[:3])
        write_calibration(root / 'calib' / f'{frame}.txt', calibration)
        label = KittiObjects(
            ('Car',),
            [0.0],
            [0],
            [0.0],
            [[100, 40, 160, 80]],
            [[1.5, 1.6, 4]],
            [[1, 1.6, 12]],
            [0.0],
        )
        write_labels(root / 'label_2' / f'{frame}.txt', label)
    return root


@pytest.fixture(scope='module')
def bag(kitti, tmp_path_factory):
    return make_bag(kitti, tmp_path_factory.mktemp('bag') / 'drive', frames=list(FRAMES))


@pytest.fixture(scope='module')
def evaluated(bag, kitti, small_model, tmp_path_factory):
    out = tmp_path_factory.mktemp('evaluated') / 'new' / 'out'
    seen = []
    report = evaluate_bag(
        bag,
        small_model,
        kitti / 'label_2',
        out=out,
        device='cpu',
        progress=lambda *p: seen.append(p),
    )
    return out, report, seen


def direct(kitti, frame, small_model):
    """What the detector alone makes of a KITTI frame."""
    image = cv2.imread(str(kitti / 'image_2' / f'{frame}.png'))[..., ::-1]
    calibration = read_calibration(kitti / 'calib' / f'{frame}.txt')
    camera = calibration.camera(image.shape[1], image.shape[0])
    found = Detector.from_file(small_model)(image, camera, calibration.T_cam_ref)
    return found, camera, calibration.T_cam_ref


def test_every_frame_is_answered_once_and_result_files_equal_the_direct_ones(
    evaluated, kitti, small_model
):
    """Calibration, size and pose change within the bag: each image must get its own."""
    out, report, seen = evaluated
    assert sorted(path.stem for path in (out / 'results').iterdir()) == sorted(FRAMES)
    total = 0
    for frame in FRAMES:
        found, camera, pose = direct(kitti, frame, small_model)
        expected = to_kitti_results(found.boxes, found.scores_N, found.class_names, camera, pose)
        results = read_results(out / 'results' / f'{frame}.txt')
        assert results.names == expected.names
        for name in ('boxes_px_N4', 'dimensions_N3', 'locations_N3', 'scores_N'):
            np.testing.assert_allclose(
                getattr(results, name), getattr(expected, name), rtol=2e-5, atol=2e-3, err_msg=name
            )
        turned = wrap_angle(results.rotations_y_N - expected.rotations_y_N)
        np.testing.assert_allclose(turned, 0.0, atol=1e-3)
        total += len(results)
    assert total > 0
    assert seen == [(1, 3), (2, 3), (3, 3)]
    replay = report.extra['replay']
    assert (replay['images'], replay['answered'], replay['dropped']) == (3, 3, 0)
    assert replay['latency_ms']['p99'] >= replay['latency_ms']['p50'] > 0
    assert replay['pose_sources'] == ["TF between 'velodyne' and 'camera'"]


def test_the_answers_are_a_bag_with_the_official_type(evaluated, bag):
    out, _, _ = evaluated
    with AnyReader([out / 'detections']) as reader:
        (connection,) = reader.connections
        assert connection.topic == '/detections'
        assert connection.digest == (
            'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'
        )
        arrays = [reader.deserialize(raw, connection.msgtype) for *_, raw in reader.messages()]
    with open_camera_bag(bag) as camera_bag:
        images = list(camera_bag)
    stamps = [a.header.stamp.sec * 10**9 + a.header.stamp.nanosec for a in arrays]
    assert stamps == [image.stamp_ns for image in images]
    assert [image.frame_id for image in images] == list(FRAMES)
    assert {a.header.frame_id for a in arrays} == {'camera'}


def test_a_bag_without_transforms_takes_the_declared_mount(kitti, small_model, tmp_path):
    bag = make_bag(kitti, tmp_path / 'drive', frames=['000001'])
    parameters = {'pose.source': 'mount', 'pose.camera_pitch_rad': 0.04}
    (frame,) = replay_bag(bag, model=small_model, device='cpu', parameters=parameters)
    found, *_ = direct(kitti, '000001', small_model)
    back = detections_from_message(frame.message, camera_mount_pose(1.65, 0.04))
    np.testing.assert_allclose(
        back.boxes.array_N7[:, :6], found.boxes.array_N7[:, :6], rtol=1e-4, atol=1e-3
    )


def test_an_image_that_the_node_cannot_use_is_an_error_with_its_reason(bag, small_model):
    with pytest.raises(
        TimeoutError,
        match='did not answer image .* within 2 s; it last said: .*'
        'a row of 320 pixels rgba8 has 1280',
    ):
        # A wrong word for the encoding stands for a camera that the node does not know.
        parameters = {'assume_encoding': 'rgba8'}
        replay_bag(bag, model=small_model, device='cpu', parameters=parameters, timeout_s=2.0)


def damage(path, folder, how):
    """A copy of a bag folder, damaged."""
    copy = folder / path.name
    shutil.copytree(path, copy)
    (data,) = copy.glob('*.mcap')
    if how == 'truncated':
        os.truncate(data, data.stat().st_size // 2)
    elif how == 'no metadata':
        (copy / 'metadata.yaml').unlink()
    elif how == 'no data':
        data.unlink()
    elif how == 'one message':  # the index says that all is well
        content = bytearray(data.read_bytes())
        place = content.index(b'\x28\xb5\x2f\xfd')  # a compressed chunk
        content[place : place + 12] = b'\xee' * 12
        data.write_bytes(content)
    return copy


@pytest.mark.parametrize('how', ['truncated', 'no metadata', 'no data', 'one message'])
def test_a_damaged_bag_is_named_before_anything_starts(bag, small_model, tmp_path, how):
    broken = damage(bag, tmp_path, how)
    with pytest.raises(ValueError, match=f'^{re.escape(str(broken))}: .*not a bag.*mcap recover'):
        replay_bag(broken, model=small_model)


def test_a_bag_of_ros_1_is_refused_with_a_way_out(tmp_path):
    typestore = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / 'one.bag') as writer:
        writer.add_connection('/camera/image', 'sensor_msgs/msg/Image', typestore=typestore)
    with (
        pytest.raises(ValueError, match=r'one\.bag: a bag of ROS 1, .*`rosbags-convert'),
        open_camera_bag(tmp_path / 'one.bag'),
    ):
        pass


def test_wrong_models_bags_and_folders_are_named(bag, kitti, small_model, tmp_path):
    labels = kitti / 'label_2'
    with pytest.raises(FileNotFoundError, match=r'no\.cmkd: no such model file'):
        evaluate_bag(bag, tmp_path / 'no.cmkd', labels, out=tmp_path / 'a')
    with pytest.raises(FileNotFoundError, match='nobag: no such bag'):
        evaluate_bag(tmp_path / 'nobag', small_model, labels)
    with pytest.raises(FileNotFoundError, match='nolabels: no such folder'):
        evaluate_bag(bag, small_model, tmp_path / 'nolabels')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    with pytest.raises(FileExistsError, match='full: the folder exists and is not empty'):
        evaluate_bag(bag, small_model, labels, out=tmp_path / 'full')
    with (
        pytest.raises(ValueError, match='no topic /left of .*Image; there are: /camera/image'),
        open_camera_bag(bag, image_topic='/left'),
    ):
        pass


def test_the_command_hands_parameters_to_the_node(bag, kitti, small_model, capsys):
    files = ['--bag', str(bag), '--model', str(small_model), '--labels', str(kitti / 'label_2')]
    assert main(['eval-bag', *files, '--param', 'rectified=maybe']) == 2
    assert "parameter rectified = 'maybe'" in capsys.readouterr().err
    assert main(['eval-bag', *files, '--param', 'pose.camera_height=-1']) == 2
    assert 'parameter pose.camera_height = -1' in capsys.readouterr().err
    assert main(['eval-bag', *files, '--image', '/left']) == 2
    assert 'no topic /left' in capsys.readouterr().err


def test_a_node_that_refuses_to_start_is_told_in_one_line(bag, kitti, small_model, capsys):
    files = ['--bag', str(bag), '--model', str(small_model), '--labels', str(kitti / 'label_2')]
    assert main(['eval-bag', *files, '--precision', 'int8', '--device', 'cpu']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('cmkd: the node cannot start: ')
    assert 'precision int8 needs backend openvino' in line


def test_real_frames_give_the_same_ap_through_the_network_and_through_the_node(
    shared_dir, small_model, tmp_path
):
    """Frames of two calibrations and sizes in one bag; other thresholds than the bundle's."""
    from cmkd_ros.training.evaluate import evaluate_bundle

    kitti = shared_dir / 'kitti_mini' / 'training'
    frames = tmp_path / 'frames.txt'
    frames.write_text('000076\n000007\n')
    bag = make_bag(kitti, tmp_path / 'drive', frames=frames, points=False)
    by_network = evaluate_bundle(
        small_model, kitti, frames, out=tmp_path / 'network', device='cpu', pictures=0
    )
    by_node = evaluate_bag(bag, small_model, kitti / 'label_2', out=tmp_path / 'node', device='cpu')
    for frame in ('000076', '000007'):
        one, other = (
            read_results(tmp_path / way / 'results' / f'{frame}.txt') for way in ('network', 'node')
        )
        assert one.names == other.names
        assert len(one) > 0
        np.testing.assert_allclose(other.scores_N, one.scores_N, rtol=1e-3)
        np.testing.assert_allclose(other.locations_N3, one.locations_N3, rtol=1e-3, atol=5e-3)
    assert by_network.n_gt == by_node.n_gt
    for level, classes in by_network.ap.items():
        for name, metrics in classes.items():
            for metric, ap in metrics.items():
                np.testing.assert_allclose(
                    by_node.ap[level][name][metric]['R40'], ap['R40'], atol=0.1
                )
