"""An image message and a point cloud message -> one frame of KITTI.

Letters: H W image rows and columns, N points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.bag_reader import stamp_ns
from cmkd_ros.camera_info import camera_from_info, check_size
from cmkd_ros.geometry import CameraModel, Rectifier
from cmkd_ros.image_pixels import decode_compressed, decode_image
from cmkd_ros.kitti_files import KittiCalibration
from cmkd_ros.training.data.extract_check import seen_points
from cmkd_ros.training.data.extract_cloud import cloud_to_points, scale_intensity
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_pose import RigPose, rig_pose
from cmkd_ros.training.data.extract_recording import Recording


@dataclass(frozen=True, eq=False)
class ExtractedFrame:
    """What is written of a frame.

    Attributes:
        image_HW3: uint8 RGB, rectified, of the wanted width.
        points_N4: float32 x, y, z in ref, metres, and intensity 0 to 1.
        calibration: of these two.
    """

    image_HW3: NDArray[np.uint8]
    points_N4: NDArray[np.float32]
    calibration: KittiCalibration


class FrameMaker:
    """Makes the frames of one recording; keeps what depends on the camera only."""

    def __init__(
        self, recording: Recording, options: ExtractOptions, intensity_full: float
    ) -> None:
        self._recording = recording
        self._options = options
        self._full = intensity_full
        self._rectifier: tuple[CameraModel, Rectifier] | None = None

    def make(self, image: Any, cloud: Any) -> ExtractedFrame:
        """Make a frame.

        Args:
            image: a `sensor_msgs/Image` or `CompressedImage`.
            cloud: a `sensor_msgs/PointCloud2`.

        Raises:
            ValueError: pixels, points or calibration cannot be used.
        """
        header = image.header
        camera = self._camera(header)
        read = decode_compressed if self._recording.is_compressed else decode_image
        image_HW3 = read(image)
        check_size(image_HW3, camera)
        points_N4 = cloud_to_points(cloud)
        if not len(points_N4):
            raise ValueError('point cloud: no point in it')
        pose = rig_pose(
            self._options.pose,
            self._recording.transforms,
            header.frame_id,
            cloud.header.frame_id,
            stamp_ns(header),
        )
        if self._rectifier is None or self._rectifier[0] != camera:
            self._rectifier = (camera, Rectifier(camera, self._out_size(camera)))
        rectified_HW3, target = self._rectifier[1](image_HW3)
        ref_N4 = scale_intensity(pose.to_ref(points_N4), self._full)
        calibration = _calibration(camera, target, pose)
        if not len(seen_points(ref_N4, calibration, rectified_HW3.shape[:2])[1]):
            raise ValueError(
                'no point of the scan falls into the picture: calibration or transforms are wrong'
            )
        return ExtractedFrame(rectified_HW3, ref_N4, calibration)

    def _camera(self, header: Any) -> CameraModel:
        options = self._options
        info = self._recording.info_for(header.frame_id, stamp_ns(header))
        return camera_from_info(info, options.rectified, options.use_projection_offset)

    def _out_size(self, camera: CameraModel) -> tuple[int, int] | None:
        width = self._options.width
        return (width, round(camera.height * width / camera.width)) if width else None


def _calibration(source: CameraModel, target: CameraModel, pose: RigPose) -> KittiCalibration:
    rectify_33 = np.eye(3) if source.is_rectified else source.R_33
    return KittiCalibration(target.P_px_34, rectify_33, pose.T_cam_ref[:3])
