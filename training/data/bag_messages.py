"""The ROS messages of a KITTI frame, made and serialised with rosbags: no ROS is needed.

Letters: H W image rows and columns, N points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from cmkd_ros.geometry import invert_se3, matrix_to_quaternion
from cmkd_ros.kitti_files import KittiCalibration

CAMERA_FRAME, LIDAR_FRAME = 'camera', 'velodyne'
_FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32


class BagMessages:
    """Builds messages from the type store of ROS 2 Jazzy."""

    def __init__(self) -> None:
        self.typestore = get_typestore(Stores.ROS2_JAZZY)

    def image(self, image_HW3: np.ndarray, stamp_ns: int) -> Any:
        """sensor_msgs/Image of uint8 RGB pixels."""
        height, width = image_HW3.shape[:2]
        return self._make(
            'sensor_msgs/msg/Image',
            header=self._header(CAMERA_FRAME, stamp_ns),
            height=height,
            width=width,
            encoding='rgb8',
            is_bigendian=0,
            step=3 * width,
            data=np.ascontiguousarray(image_HW3).reshape(-1),
        )

    def camera_info(
        self, calibration: KittiCalibration, image_HW3: np.ndarray, stamp_ns: int
    ) -> Any:
        """sensor_msgs/CameraInfo of the rectified image: P = P2, K = P[:, :3], no distortion."""
        height, width = image_HW3.shape[:2]
        P_px_34 = calibration.P2_34
        return self._make(
            'sensor_msgs/msg/CameraInfo',
            header=self._header(CAMERA_FRAME, stamp_ns),
            height=height,
            width=width,
            distortion_model='plumb_bob',
            d=np.zeros(5),
            k=P_px_34[:, :3].reshape(-1).copy(),
            r=np.eye(3).reshape(-1),
            p=P_px_34.reshape(-1).copy(),
            binning_x=0,
            binning_y=0,
            roi=self._make(
                'sensor_msgs/msg/RegionOfInterest',
                x_offset=0,
                y_offset=0,
                height=0,
                width=0,
                do_rectify=False,
            ),
        )

    def points(self, scan_N4: np.ndarray, stamp_ns: int) -> Any:
        """sensor_msgs/PointCloud2 of float32 x, y, z, intensity."""
        fields = [
            self._make(
                'sensor_msgs/msg/PointField',
                name=name,
                offset=4 * index,
                datatype=_FLOAT32,
                count=1,
            )
            for index, name in enumerate(('x', 'y', 'z', 'intensity'))
        ]
        return self._make(
            'sensor_msgs/msg/PointCloud2',
            header=self._header(LIDAR_FRAME, stamp_ns),
            height=1,
            width=len(scan_N4),
            fields=fields,
            is_bigendian=False,
            point_step=16,
            row_step=16 * len(scan_N4),
            data=np.frombuffer(np.ascontiguousarray(scan_N4, '<f4').tobytes(), np.uint8),
            is_dense=True,
        )

    def transform(self, calibration: KittiCalibration, stamp_ns: int) -> Any:
        """tf2_msgs/TFMessage: the camera in the LiDAR's frame."""
        T_lidar_cam = invert_se3(calibration.T_cam_ref)
        quaternion = [float(q) for q in matrix_to_quaternion(T_lidar_cam[:3, :3])]
        transform = self._make(
            'geometry_msgs/msg/Transform',
            translation=self._make(
                'geometry_msgs/msg/Vector3',
                **dict(zip('xyz', map(float, T_lidar_cam[:3, 3]), strict=True)),
            ),
            rotation=self._make(
                'geometry_msgs/msg/Quaternion', **dict(zip('xyzw', quaternion, strict=True))
            ),
        )
        stamped = self._make(
            'geometry_msgs/msg/TransformStamped',
            header=self._header(LIDAR_FRAME, stamp_ns),
            child_frame_id=CAMERA_FRAME,
            transform=transform,
        )
        return self._make('tf2_msgs/msg/TFMessage', transforms=[stamped])

    def string(self, text: str) -> Any:
        """std_msgs/String."""
        return self._make('std_msgs/msg/String', data=text)

    def _header(self, frame: str, stamp_ns: int) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = self._make('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
        return self._make('std_msgs/msg/Header', stamp=stamp, frame_id=frame)

    def _make(self, kind: str, /, **fields: Any) -> Any:
        return self.typestore.types[kind](**fields)
