"""Bags as the public KITTI converters write them, played into the node: the boxes are true.

kitti2bag, raw data: rectified pixels, camera_info with K, D and R of the raw images; every camera
has a frame at its own place, and P still has the fourth column that is counted from camera 0.
kitti2bag, odometry: only P is set. ros2_dataset_bridge: BGR pixels called 8UC3, image and
camera_info stamped one after the other, P without its fourth column.
"""

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')
pytest.importorskip('rosbags', reason='needs rosbags')

from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, Image

from cmkd_ros import Detector
from cmkd_ros.camera_info import camera_from_info
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.geometry import invert_se3, matrix_to_quaternion, transform_points
from cmkd_ros.kitti_files import read_calibration, read_results
from cmkd_ros.ros.detection_messages import detections_from_message
from cmkd_ros.ros.eval_bag import write_kitti_results
from cmkd_ros.ros.replay import replay_bag

FRAMES = ('000007', '000003')  # of one day: one calibration
# The published calibration of the raw left colour camera of that day, sensor of 1392 x 512.
RAW_K = (959.791, 0.0, 696.0217, 0.0, 956.9251, 224.1806, 0.0, 0.0, 1.0)
RAW_D = (-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.0677070)
RAW_R = (0.9998817, 0.01511453, -0.002841595, -0.01511724, 0.9998853, -0.000933851, 0.002827154,
         0.0009766976, 0.9999955)  # fmt: skip
TYPES = {
    'image': 'sensor_msgs/msg/Image',
    'camera_info': 'sensor_msgs/msg/CameraInfo',
    '/tf_static': 'tf2_msgs/msg/TFMessage',
}
STYLES = {
    'kitti2bag raw': {'frame': 'camera_color_left', 'lidar': 'velo_link', 'encoding': 'bgr8'},
    'kitti2bag odometry': {'frame': 'camera_color_left', 'lidar': '', 'encoding': 'bgr8'},
    'ros2_dataset_bridge': {'frame': 'left_camera', 'lidar': 'velodyne', 'encoding': '8UC3'},
}


class ConverterBag:
    """Frames of KITTI in one converter's style."""

    def __init__(self, kitti, style: str) -> None:
        self.style, self.kitti = style, kitti
        self.calibration = read_calibration(kitti / 'calib' / f'{FRAMES[0]}.txt')
        shift_44 = np.eye(4)
        shift_44[0, 3] = self.calibration.P2_34[0, 3] / self.calibration.P2_34[0, 0]
        # All three know the camera's own place only along x.
        self.T_header_ref = shift_44 @ self.calibration.T_cam_ref
        self._store = get_typestore(Stores.ROS2_JAZZY)

    def make(self, name: str, **fields):
        return self._store.types[name](**fields)

    def header(self, frame: str, stamp_ns: int):
        time = self.make(
            'builtin_interfaces/msg/Time', sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        return self.make('std_msgs/msg/Header', stamp=time, frame_id=frame)

    def pixels(self, frame: str) -> np.ndarray:
        return cv2.imread(str(self.kitti / 'image_2' / f'{frame}.png'))

    def image(self, bgr_HW3: np.ndarray, stamp_ns: int):
        height, width = bgr_HW3.shape[:2]
        header = self.header(STYLES[self.style]['frame'], stamp_ns)
        encoding = STYLES[self.style]['encoding']
        return self.make(
            TYPES['image'], header=header, height=height, width=width, encoding=encoding,
            is_bigendian=0, step=3 * width, data=bgr_HW3.reshape(-1),
        )  # fmt: skip

    def info(self, bgr_HW3: np.ndarray, stamp_ns: int):
        height, width = bgr_HW3.shape[:2]
        P = self.calibration.P2_34
        numbers = {'d': np.zeros(0), 'k': np.zeros(9), 'r': np.zeros(9), 'p': P.reshape(-1)}
        model = ''
        if self.style == 'kitti2bag raw':
            model = 'plumb_bob'
            numbers |= {'d': np.array(RAW_D), 'k': np.array(RAW_K), 'r': np.array(RAW_R)}
        elif self.style == 'ros2_dataset_bridge':
            stamp_ns += 3_000_000
            plain_34 = np.column_stack([P[:, :3], np.zeros(3)])
            numbers |= {'d': np.zeros(5), 'k': P[:, :3].reshape(-1), 'p': plain_34.reshape(-1)}
        roi = self.make(
            'sensor_msgs/msg/RegionOfInterest',
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False,
        )  # fmt: skip
        header = self.header(STYLES[self.style]['frame'], stamp_ns)
        return self.make(
            TYPES['camera_info'], header=header, height=height, width=width, binning_x=0,
            binning_y=0, roi=roi, distortion_model=model, **numbers,
        )  # fmt: skip

    def transforms(self):
        T_lidar_camera = invert_se3(self.T_header_ref)
        t, q = T_lidar_camera[:3, 3], matrix_to_quaternion(T_lidar_camera[:3, :3])
        transform = self.make(
            'geometry_msgs/msg/Transform',
            translation=self.make('geometry_msgs/msg/Vector3', x=t[0], y=t[1], z=t[2]),
            rotation=self.make('geometry_msgs/msg/Quaternion', x=q[0], y=q[1], z=q[2], w=q[3]),
        )
        stamped = self.make(
            'geometry_msgs/msg/TransformStamped', header=self.header(self.lidar, 0),
            child_frame_id=STYLES[self.style]['frame'], transform=transform,
        )  # fmt: skip
        return self.make(TYPES['/tf_static'], transforms=[stamped])

    @property
    def lidar(self) -> str:
        return STYLES[self.style]['lidar']

    def write(self, path):
        with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            topics = {
                topic: writer.add_connection(topic, kind, typestore=self._store)
                for topic, kind in TYPES.items()
            }

            def record(topic, message, time_ns):
                data = self._store.serialize_cdr(message, TYPES[topic])
                writer.write(topics[topic], time_ns, data)

            if self.lidar:
                record('/tf_static', self.transforms(), 0)
            for second, frame in enumerate(FRAMES, 1):
                bgr_HW3, stamp_ns = self.pixels(frame), second * 10**9
                record('camera_info', self.info(bgr_HW3, stamp_ns), stamp_ns)
                record('image', self.image(bgr_HW3, stamp_ns), stamp_ns + 1)
        return path

    def node_parameters(self) -> dict:
        """Where the camera is: TF where the bag has one, else told by hand."""
        if self.lidar:
            return {'pose__source': 'tf', 'pose__reference_frame': self.lidar}
        T_ref_header = invert_se3(self.T_header_ref)
        numbers = [*T_ref_header[:3, 3], *matrix_to_quaternion(T_ref_header[:3, :3])]
        return {'pose__source': 'transform', 'pose__transform': [float(n) for n in numbers]}


@pytest.fixture(scope='module')
def converter_bag(shared_dir):
    return lambda style: ConverterBag(shared_dir / 'kitti_mini' / 'training', style)


def played(bench, path) -> list:
    """Publish a bag's messages as they are, lock-step; the node's answers in order."""
    from tf2_msgs.msg import TFMessage

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publishers = {
        'image': bench.images,
        'camera_info': bench.infos,
        '/tf_static': bench.peer.create_publisher(TFMessage, '/tf_static', latched),
    }
    answers = []
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            publishers[connection.topic].publish(raw)
            if connection.topic != 'image':
                continue
            stamp = deserialize_message(raw, Image).header.stamp
            counts = bench.node.counts
            for _ in range(50):  # transforms may still be on their way
                waiting = counts['waiting']
                bench.wait(
                    lambda s=stamp, w=waiting: bench.answers(s) or bench.node.counts['waiting'] > w
                )
                if bench.answers(stamp):
                    break
                counts = bench.node.counts
                bench.images.publish(raw)
            answers.append(bench.answers(stamp)[0])
    return answers


@pytest.mark.parametrize('style', STYLES)
def test_the_boxes_are_those_of_the_direct_run(
    style, converter_bag, make_bench, small_model, tmp_path
):
    bag = converter_bag(style)
    path = bag.write(tmp_path / 'bag')
    bench = make_bench(model__path=str(small_model), device='cpu', **bag.node_parameters())
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    detector = Detector.from_file(small_model, precision='auto')
    total = 0
    for frame, answer in zip(FRAMES, played(bench, path), strict=True):
        rgb_HW3 = np.ascontiguousarray(bag.pixels(frame)[..., ::-1])
        camera = bag.calibration.camera(rgb_HW3.shape[1], rgb_HW3.shape[0])
        expected = detector(rgb_HW3, camera, bag.calibration.T_cam_ref)
        found = detections_from_message(answer, bag.T_header_ref)
        assert found.class_names == expected.class_names
        apart_NN = np.linalg.norm(
            found.boxes.centers_N3[:, None] - expected.boxes.centers_N3[None], axis=2
        )
        assert apart_NN.min(axis=1).max() < 0.05
        assert apart_NN.min(axis=0).max() < 0.05
        total += len(found)
    assert total > 5


@pytest.mark.parametrize('style', ['kitti2bag raw', 'kitti2bag odometry'])
def test_an_evaluation_writes_results_in_the_frame_of_the_labels(
    style, converter_bag, small_model, tmp_path
):
    """The image's frame is six centimetres beside it."""
    bag = converter_bag(style)
    given = {} if bag.lidar else bag.node_parameters()
    frames = replay_bag(
        bag.write(tmp_path / 'bag'),
        model=small_model,
        device='cpu',
        parameters={name.replace('__', '.'): value for name, value in given.items()},
    )
    write_kitti_results(tmp_path, frames)
    detector = Detector.from_file(small_model)
    apart_m = []
    for index, frame in enumerate(FRAMES):
        rgb_HW3 = np.ascontiguousarray(bag.pixels(frame)[..., ::-1])
        camera = bag.calibration.camera(rgb_HW3.shape[1], rgb_HW3.shape[0])
        pose = bag.calibration.T_cam_ref
        seen = detector(rgb_HW3, camera, pose)
        expected = to_kitti_results(seen.boxes, seen.scores_N, seen.class_names, camera, pose)
        found = read_results(tmp_path / f'{index:06d}.txt')
        assert found.names == expected.names
        for one_3 in found.locations_N3:
            gaps_N3 = one_3 - expected.locations_N3
            apart_m.append(gaps_N3[np.linalg.norm(gaps_N3, axis=1).argmin()])
    assert len(apart_m) > 5
    np.testing.assert_allclose(np.median(apart_m, axis=0), 0.0, atol=0.01)


def beside_m(bag: ConverterBag, **choices: str) -> np.ndarray:
    """By how much points of the world are believed beside their place, 8 to 40 m ahead."""
    info = CameraInfo()
    made = bag.info(bag.pixels(FRAMES[0]), 10**9)
    info.header.frame_id, info.distortion_model = made.header.frame_id, made.distortion_model
    info.width, info.height = made.width, made.height
    info.k, info.p, info.r, info.d = made.k, made.p, made.r, made.d.tolist()
    camera = camera_from_info(info, **choices)
    points_K3 = np.array([[x, y, -1.0] for x in (8.0, 20.0, 40.0) for y in (-2.0, 0.0, 2.0)])

    def columns_K(P_px_34, T_cam_ref):
        seen_K3 = transform_points(T_cam_ref, points_K3) @ P_px_34[:, :3].T + P_px_34[:, 3]
        return seen_K3[:, 0] / seen_K3[:, 2]

    true_K = columns_K(bag.calibration.P2_34, bag.calibration.T_cam_ref)
    believed_K = columns_K(camera.P_px_34, bag.T_header_ref)
    return (believed_K - true_K) * points_K3[:, 0] / camera.fx_px


@pytest.mark.parametrize('style', STYLES)
def test_points_are_believed_where_they_are(style, converter_bag):
    assert np.abs(beside_m(converter_bag(style))).max() < 0.01


@pytest.mark.parametrize('style', ['kitti2bag raw', 'kitti2bag odometry'])
def test_without_the_rule_for_kitti2bag_everything_is_six_centimetres_aside(style, converter_bag):
    bias_K = beside_m(converter_bag(style), rectified='true', use_projection_offset='true')
    np.testing.assert_allclose(bias_K, 0.062, atol=0.006)


def test_without_the_rule_rectified_pixels_would_be_undistorted_again(converter_bag):
    bag = converter_bag('kitti2bag raw')
    info = CameraInfo(width=1242, height=375, distortion_model='plumb_bob', d=list(RAW_D))
    info.k, info.r = RAW_K, RAW_R
    info.p = bag.calibration.P2_34.reshape(-1)
    assert not camera_from_info(info).is_rectified  # a frame of any other name
    info.header.frame_id = 'camera_color_left'
    assert camera_from_info(info).is_rectified
    assert not camera_from_info(info, rectified='false').is_rectified
