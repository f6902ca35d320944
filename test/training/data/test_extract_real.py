"""Real sensors: a frame of nuScenes as its car would record it, and bags of ROS 1.

Letters: N points, B boxes.
"""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import CALIBRATION, MESSAGES, BagWriter, cloud_message, street
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from cmkd_ros.geometry import invert_se3, matrix_to_quaternion
from cmkd_ros.kitti_files import KittiCalibration, read_calibration, read_frame_list
from cmkd_ros.training.data.extract import extract_frames
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_plan import plan_extraction
from cmkd_ros.training.data.extract_pose import PoseOptions
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.scan import read_scan


@pytest.fixture(scope='module')
def samples(shared_dir):
    """Real bags and a frame of nuScenes."""
    folder = shared_dir / 'samples'
    if not folder.is_dir():
        pytest.skip(f'needs the real data in {folder}, which is absent')
    return folder


@pytest.fixture(scope='module')
def frame(samples):
    """What nuScenes says of its frame."""
    text = (samples / 'nuscenes_mini_sample' / 'info.json').read_text()
    return json.loads(text)['data_list'][0]


def nuscenes_bag(path, samples, frame, camera, with_base=True):
    """One camera and the LiDAR, whose x axis looks to the right of the car."""
    info, lidar = frame['images'][camera], frame['lidar_points']
    folder = samples / 'nuscenes_mini_sample' / 'samples'
    points_N5 = np.fromfile(folder / 'LIDAR_TOP' / lidar['lidar_path'], np.float32).reshape(-1, 5)
    names = ('x', 'y', 'z', 'intensity', 'ring')
    cloud = points_N5.view([(name, '<f4') for name in names])[:, 0]
    scan_ns, image_ns = (
        round(time * 1e6) * 1000 for time in (frame['timestamp'], info['timestamp'])
    )
    T_lidar_cam = invert_se3(np.array(info['lidar2cam']))
    with BagWriter(path) as bag:
        bag.transform('lidar_top', 'camera', T_lidar_cam, image_ns)
        if with_base:
            bag.transform('base_link', 'lidar_top', np.array(lidar['lidar2ego']), image_ns)
        P_px_34 = np.column_stack([info['cam2img'], np.zeros(3)])
        calibration = KittiCalibration(P_px_34, np.eye(3), np.array(info['lidar2cam'])[:3])
        bag.write(
            '/camera/camera_info',
            MESSAGES.camera_info(calibration, np.empty((900, 1600, 3)), image_ns),
            image_ns,
        )
        header = MESSAGES.image(np.zeros((1, 1, 3), np.uint8), image_ns).header
        kind = MESSAGES.typestore.types['sensor_msgs/msg/CompressedImage']
        data = np.fromfile(folder / camera / info['img_path'], np.uint8)
        bag.write('/camera/image/compressed', kind(header, 'jpeg', data), image_ns)
        bag.write('/points', cloud_message(cloud, scan_ns, 'lidar_top'), scan_ns)
    return path


@pytest.mark.parametrize('camera', ['CAM_FRONT', 'CAM_BACK_LEFT'])
def test_a_frame_of_nuscenes_keeps_its_geometry(samples, frame, camera, tmp_path, caplog):
    caplog.set_level('INFO')
    plan = plan_extraction([nuscenes_bag(tmp_path / 'bag', samples, frame, camera)])
    assert 'below it, as it should' in caplog.text  # the real road, by the real height
    assert plan.intensity_full == 255.0
    extract_frames(plan, tmp_path / 'out')
    folder = KittiFolder(tmp_path / 'out' / 'training')
    (name,) = read_frame_list(tmp_path / 'out' / 'ImageSets' / 'train.txt')
    info = frame['images'][camera]
    picture = samples / 'nuscenes_mini_sample' / 'samples' / camera / info['img_path']
    found_HW3 = read_png_rgb(folder.image(name))
    np.testing.assert_array_equal(found_HW3[..., ::-1], cv2.imread(str(picture)))
    calibration, ref_N4 = read_calibration(folder.calib(name)), read_scan(folder.scan(name))
    # The same points fall on the same pixels as by the numbers of nuScenes.
    path = picture.parents[1] / 'LIDAR_TOP' / frame['lidar_points']['lidar_path']
    lidar_N3 = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3]
    T_cam_lidar = np.array(info['lidar2cam'])
    expected_N3 = lidar_N3 @ T_cam_lidar[:3, :3].T + T_cam_lidar[:3, 3]
    T_cam_ref = calibration.T_cam_ref
    found_N3 = ref_N4[:, :3] @ T_cam_ref[:3, :3].T + T_cam_ref[:3, 3]
    np.testing.assert_allclose(found_N3, expected_N3, atol=1e-4)
    np.testing.assert_allclose(calibration.P2_34[:, :3], info['cam2img'])
    # The camera looks along x, level, from where students are used to look from.
    np.testing.assert_allclose(invert_se3(T_cam_ref)[:2, 3], [0.27, 0], atol=1e-9)
    assert invert_se3(T_cam_ref)[0, 2] > 0.999
    # Objects stand on the road, 1.73 m below the reference frame.
    boxes_B7 = np.array([
        entry['bbox_3d'] for entry in frame['instances']
        if entry['num_lidar_pts'] > 20 and np.hypot(*entry['bbox_3d'][:2]) < 30
    ])  # fmt: skip
    T_ref_lidar = invert_se3(T_cam_ref) @ T_cam_lidar
    centres_B3 = boxes_B7[:, :3] @ T_ref_lidar[:3, :3].T + T_ref_lidar[:3, 3]
    bottoms_B = centres_B3[:, 2] - boxes_B7[:, 5] / 2
    assert np.abs(np.median(bottoms_B) + 1.73) < 0.25


def test_without_a_base_the_lidars_height_does(samples, frame, tmp_path, caplog):
    bag = nuscenes_bag(tmp_path / 'bag', samples, frame, 'CAM_FRONT', with_base=False)
    with pytest.raises(ValueError, match=r'looks \d+ degrees away from the x .*--lidar-height'):
        plan_extraction([bag])
    caplog.set_level('INFO')
    plan_extraction([bag], ExtractOptions(pose=PoseOptions(lidar_height_m=1.84)))
    assert 'below it, as it should' in caplog.text


def with_scan(bag, out):
    """A bag of ROS 1 with a scan beside its first image."""
    store = get_typestore(Stores.ROS1_NOETIC)
    store_types = store.types
    with AnyReader([bag]) as reader, Writer1(out) as writer:
        known = {}
        for connection, time_ns, raw in reader.messages():
            kind = connection.msgtype
            if connection.topic not in known:
                known[connection.topic] = writer.add_connection(
                    connection.topic, kind, typestore=store
                )
            writer.write(known[connection.topic], time_ns, raw)
            if not kind.endswith('CompressedImage'):
                continue
            stamp = reader.deserialize(raw, kind).header.stamp
            cloud = cloud_message(street().view([(name, '<f4') for name in 'xyzi'])[:, 0])
            header = store_types['std_msgs/msg/Header'](0, stamp, 'lidar')
            fields = [
                store_types['sensor_msgs/msg/PointField'](f.name, f.offset, f.datatype, f.count)
                for f in cloud.fields
            ]
            kind = 'sensor_msgs/msg/PointCloud2'
            message = store_types[kind](
                header, cloud.height, cloud.width, fields, cloud.is_bigendian, cloud.point_step,
                cloud.row_step, cloud.data, True,
            )  # fmt: skip
            points = writer.add_connection('/points', kind, typestore=store)
            writer.write(points, time_ns, store.serialize_ros1(message, kind))
    return out


@pytest.mark.parametrize('name', ['aruco_images', 'fiducial_board_611'])
def test_a_bag_of_ros_1_is_read(samples, name, tmp_path):
    """Real JPEG pictures of a lens with distortion; the scan is made up."""
    path = samples / 'rosbag1_camera' / f'{name}.bag'
    with pytest.raises(ValueError, match=f'{name}.bag: no point cloud topic in it'):
        plan_extraction([path])
    T_lidar_cam = invert_se3(CALIBRATION.T_cam_ref)
    numbers = (*T_lidar_cam[:3, 3], *matrix_to_quaternion(T_lidar_cam[:3, :3]))
    pose = PoseOptions(camera_pose=tuple(float(number) for number in numbers))
    plan = plan_extraction([with_scan(path, tmp_path / 'a.bag')], ExtractOptions(pose=pose))
    extract_frames(plan, tmp_path / 'out')
    folder = KittiFolder(tmp_path / 'out' / 'training')
    (frame,) = read_frame_list(tmp_path / 'out' / 'ImageSets' / 'train.txt')
    np.testing.assert_array_equal(read_scan(folder.scan(frame)), street())
    with AnyReader([path]) as reader:
        raw = next(raw for c, _, raw in reader.messages() if c.msgtype.endswith('CompressedImage'))
        image = reader.deserialize(raw, 'sensor_msgs/msg/CompressedImage')
    distorted_HW3 = cv2.imdecode(image.data, cv2.IMREAD_COLOR)[..., ::-1]
    rectified_HW3 = read_png_rgb(folder.image(frame))
    assert rectified_HW3.shape == distorted_HW3.shape
    assert not np.array_equal(rectified_HW3, distorted_HW3)


def test_a_recording_of_other_messages_is_told(samples):
    """Foxglove's own messages in an mcap."""
    path = samples / 'mcap_foxglove_camera' / 'custom-camera-model.mcap'
    with pytest.raises(ValueError, match='custom-camera-model.mcap: .*Profile is not ros2'):
        plan_extraction([path])
