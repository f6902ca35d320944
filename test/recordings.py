"""Bags as robots record them, written message by message: used by the tests of `extract-bag`.

Letters: H W image rows and columns, N points.
"""

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from cmkd_ros.geometry import make_se3
from cmkd_ros.kitti_files import KittiCalibration
from cmkd_ros.training.data.bag_messages import CAMERA_FRAME, LIDAR_FRAME, BagMessages

START_NS = 1_783_935_901_000_000_000  # 2026-07-13 09:45:01 UTC
PERIOD_NS = 100_000_000
WIDTH, HEIGHT = 160, 64
FX = 120.0
# Level camera 0.2 m before and 0.08 m below the LiDAR.
CALIBRATION = KittiCalibration(
    np.array([[FX, 0, 80, 0], [0, FX, 24, 0], [0, 0, 1, 0]]),
    np.eye(3),
    np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.2]]),
)
DATATYPES = {'i1': 1, 'u1': 2, 'i2': 3, 'u2': 4, 'i4': 5, 'u4': 6, 'f4': 7, 'f8': 8}
MESSAGES = BagMessages()


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8 RGB noise, another one for each number."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def street(number: int = 0, lidar_height_m: float = 1.73) -> np.ndarray:
    """(N, 4) float32 points of a flat road and a wall beside it, in the frame of a level LiDAR."""
    rng = np.random.default_rng(number)
    road_N3 = rng.uniform((2, -8, 0), (40, 8, 0), (800, 3)) - (0, 0, lidar_height_m)
    wall_N3 = rng.uniform((2, 8, 0), (40, 8, 4), (200, 3)) - (0, 0, lidar_height_m)
    places_N3 = np.concatenate([road_N3, wall_N3])
    return np.column_stack([places_N3, rng.uniform(0, 1, 1000)]).astype(np.float32)


def cloud_message(points: np.ndarray, stamp_ns: int = START_NS, frame: str = LIDAR_FRAME):
    """sensor_msgs/PointCloud2 of a structured array (N,) or (H, W), laid out as it is in memory."""
    message = MESSAGES.points(np.zeros((0, 4), np.float32), stamp_ns)
    point_field = type(message.fields[0])
    fields = points.dtype.fields
    message.header.frame_id = frame
    message.height, message.width = points.shape if points.ndim == 2 else (1, len(points))
    message.fields = [
        point_field(name=name, offset=offset, datatype=DATATYPES[kind.str[1:]], count=1)
        for name, (kind, offset) in fields.items()
    ]
    message.is_bigendian = any(kind.byteorder == '>' for kind, _ in fields.values())
    message.point_step = points.dtype.itemsize
    message.row_step = points.dtype.itemsize * message.width
    message.data = np.frombuffer(points.tobytes(), np.uint8)
    return message


class BagWriter:
    """A rosbag2 of a camera and a LiDAR, in a `with` block.

    Args:
        path: folder of the bag.
        storage: 'mcap' or 'sqlite3'.
    """

    def __init__(self, path: Path, storage: str = 'mcap') -> None:
        self.path = path
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        if storage == 'mcap':
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._connections = {}

    def __enter__(self) -> 'BagWriter':
        self._writer.open()
        return self

    def __exit__(self, *_) -> None:
        self._writer.close()

    def write(self, topic: str, message, time_ns: int) -> None:
        """Record any message."""
        kind, store = message.__msgtype__, MESSAGES.typestore
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, kind, typestore=store)
        self._writer.write(self._connections[topic], time_ns, store.serialize_cdr(message, kind))

    def image(self, image_HW3, stamp_ns, topic='/camera/image', frame=CAMERA_FRAME) -> None:
        """An rgb8 image."""
        message = MESSAGES.image(image_HW3, stamp_ns)
        message.header.frame_id = frame
        self.write(topic, message, stamp_ns)

    def compressed(self, image_HW3, stamp_ns, ending='png', topic='/camera/image/compressed'):
        """The same, compressed without loss or as JPEG."""
        header = MESSAGES.image(image_HW3, stamp_ns).header
        data = cv2.imencode(f'.{ending}', image_HW3[..., ::-1])[1]
        kind = MESSAGES.typestore.types['sensor_msgs/msg/CompressedImage']
        message = kind(header=header, format=ending, data=data.reshape(-1))
        self.write(topic, message, stamp_ns)

    def info(
        self, stamp_ns, topic='/camera/camera_info', frame=CAMERA_FRAME, size=(WIDTH, HEIGHT),
        distortion=(), K_px_33=None, R_33=None,
    ) -> None:  # fmt: skip
        """The calibration: P of `CALIBRATION`, K like it and R nothing unless given."""
        width, height = size
        message = MESSAGES.camera_info(CALIBRATION, np.empty((height, width, 3)), stamp_ns)
        message.header.frame_id = frame
        if distortion:
            message.d = np.array(distortion)
        if K_px_33 is not None:
            message.k = np.asarray(K_px_33, np.float64).reshape(-1)
        if R_33 is not None:
            message.r = R_33.reshape(-1)
        self.write(topic, message, stamp_ns)

    def scan(self, points_N4, stamp_ns, topic='/points', frame=LIDAR_FRAME) -> None:
        """A plain float32 cloud."""
        message = MESSAGES.points(points_N4, stamp_ns)
        message.header.frame_id = frame
        self.write(topic, message, stamp_ns)

    def transform(self, parent: str, child: str, T_parent_child, stamp_ns=START_NS) -> None:
        """A static transform."""
        to_parent_34 = np.linalg.inv(T_parent_child)[:3]
        message = MESSAGES.transform(
            KittiCalibration(CALIBRATION.P2_34, np.eye(3), to_parent_34), stamp_ns
        )
        message.transforms[0].header.frame_id = parent
        message.transforms[0].child_frame_id = child
        self.write('/tf_static', message, stamp_ns)

    def mount(self, stamp_ns=START_NS) -> None:
        """The camera on the LiDAR as `CALIBRATION` has it."""
        self.transform(LIDAR_FRAME, CAMERA_FRAME, np.linalg.inv(CALIBRATION.T_cam_ref), stamp_ns)


def simple_bag(
    path: Path, frames: int = 4, start_ns: int = START_NS, storage: str = 'mcap'
) -> Path:
    """A bag with everything that is needed: frame n has `picture(n)` and `street(n)`."""
    with BagWriter(path, storage) as bag:
        bag.mount(start_ns)
        for number in range(frames):
            stamp_ns = start_ns + number * PERIOD_NS
            bag.info(stamp_ns)
            bag.image(picture(number), stamp_ns)
            bag.scan(street(number), stamp_ns)
    return path


def moved(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_rad: float = 0.0) -> np.ndarray:
    """(4, 4) pose of a frame that is shifted and turned about z."""
    cos, sin = np.cos(yaw_rad), np.sin(yaw_rad)
    return make_se3(np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]), np.array([x, y, z]))
