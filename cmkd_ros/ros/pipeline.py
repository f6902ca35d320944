"""One image message -> detections: pixels, calibration, pose, network. Runs in the worker thread.

What cannot be used raises `ValueError` (the input is wrong), what is not there yet `LookupError`
(something is missing); both in one sentence for the log. Nothing here publishes.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from cmkd_ros.camera_info import camera_from_info, check_size, convention_of
from cmkd_ros.geometry import CameraModel, camera_mount_pose
from cmkd_ros.image_pixels import decode_compressed
from cmkd_ros.ros.conversions import image_to_rgb, info_key
from cmkd_ros.ros.pairing import CameraInfos, stamp_ns
from cmkd_ros.ros.parameters import Parameters
from cmkd_ros.ros.pose import PoseChooser, ReferencePose
from cmkd_ros.ros.raw_image import RawImage

if TYPE_CHECKING:
    from cmkd_ros.detector import Detections, Detector
    from cmkd_ros.model.spec import PostSpec

LARGEST_SCALE = 8.0
LARGEST_IMAGE_PX = 1e8
LARGEST_NUMBER = 1e6  # of K and P, pixels
# Size and focal length of KITTI's camera, to warm up with as long as none is known.
_WARM_UP_P_PX_34 = np.array(
    [[721.5, 0.0, 609.6, 0.0], [0.0, 721.5, 172.9, 0.0], [0.0, 0.0, 1.0, 0.0]]
)


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """Everything about one processed image.

    Attributes:
        image_HW3: uint8 RGB, as received.
        camera: calibration of these pixels.
        pose: of the frame in the image's header.
        detections: in the reference frame.
        header: of the results: the image's own, or the same in `target_frame`.
        T_header_ref: (4, 4), maps the reference frame to the frame of that header.
    """

    image_HW3: np.ndarray
    camera: CameraModel
    pose: ReferencePose
    detections: Detections
    header: Header
    T_header_ref: np.ndarray


class Pipeline:
    """Turns image messages into detections; keeps what depends on camera and parameters."""

    def __init__(
        self,
        detector: Detector,
        infos: CameraInfos,
        poses: PoseChooser,
        decided: Callable[[str, str, str], None],
    ) -> None:
        """Take the parts.

        Args:
            detector: loaded network.
            infos: camera_infos received so far.
            poses: source of the camera's pose.
            decided: called with (subject, decision, doubt) whenever a calibration or pose is used
                that differs from the one before: for the log and diagnostics. The doubt is empty
                when there is none.
        """
        self._detector = detector
        self._own_post = detector.post
        self._infos = infos
        self._poses = poses
        self._decided = decided
        self._camera: tuple[tuple, CameraModel] | None = None
        self._pose_source = ''

    def process(
        self, message: Image | RawImage | CompressedImage, parameters: Parameters
    ) -> SeenFrame:
        """Detect objects in one image.

        Raises:
            ValueError: image or calibration cannot be used.
            LookupError: camera_info or pose is missing.
        """
        header = message.header
        if isinstance(message, CompressedImage):
            image_HW3 = decode_compressed(message)
        else:
            image_HW3 = image_to_rgb(message, parameters.assume_encoding)
        camera = self._camera_for(header.frame_id, header.stamp, parameters)
        check_size(image_HW3, camera)
        pose = self._poses.at(parameters.pose, header.frame_id, stamp_ns(header.stamp))
        if pose.source != self._pose_source:
            self._pose_source = pose.source
            self._decided('camera pose', pose.source, '')
        result_header, T_header_ref = self._result_frame(header, pose, parameters.target_frame)
        self._detector.post = self.post(parameters)
        self._detector.class_thresholds = {
            name: least for name, least in parameters.post.class_thresholds.items() if least >= 0
        }
        found = self._detector(image_HW3, camera, rectified_pose(camera, pose.T_cam_ref))
        return SeenFrame(image_HW3, camera, pose, found, result_header, T_header_ref)

    def post(self, parameters: Parameters) -> PostSpec:
        """The model's own post-processing with the thresholds that the parameters give."""
        given = {
            name: value
            for name, value in (
                ('score_threshold', parameters.post.score_threshold),
                ('nms_iou', parameters.post.nms_iou),
            )
            if value >= 0
        }
        return self._own_post.model_copy(update=given)

    def warm_up(self, parameters: Parameters) -> None:
        """Run the network once on a black image, of the camera's size if a sound camera_info is
        here already.

        Raises:
            RuntimeError, MemoryError: the network does not run on this device.
        """
        sizes = [CameraModel.from_projection(_WARM_UP_P_PX_34, 1242, 375)]
        info = self._infos.latest()
        if info is not None:
            choices = parameters.rectified, parameters.use_projection_offset
            with contextlib.suppress(ValueError):  # told when an image asks for it
                camera = camera_from_info(info, *choices)
                self._refuse_absurd(camera)
                sizes.insert(0, camera)
        for camera in sizes:
            black_HW3 = np.zeros((camera.height, camera.width, 3), np.uint8)
            # Nothing may hinder the start that an image of that size would be refused for.
            with contextlib.suppress(ValueError):
                self._detector(black_HW3, camera, camera_mount_pose(1.65))
                return

    def give_memory_back(self) -> None:
        """Return what torch keeps for later to the device: after it ran out, the next image may
        need other sizes of it."""
        gc.collect()
        if self._detector.device.type == 'cuda':
            import torch

            torch.cuda.empty_cache()

    def _result_frame(
        self, header: Header, pose: ReferencePose, target_frame: str
    ) -> tuple[Header, np.ndarray]:
        if target_frame in ('', header.frame_id):
            return header, pose.T_cam_ref
        T_target_cam = self._poses.between(target_frame, header.frame_id, stamp_ns(header.stamp))
        return Header(stamp=header.stamp, frame_id=target_frame), T_target_cam @ pose.T_cam_ref

    def _camera_for(self, frame_id: str, stamp: object, parameters: Parameters) -> CameraModel:
        info = self._infos.find(frame_id, stamp, parameters.camera_info_wait_s)
        if info is None:
            others = ', '.join(f"'{frame}'" for frame in self._infos.frames())
            raise LookupError(
                f"no camera_info of the image's frame '{frame_id}' yet"
                + (f', only of {others}' if others else '')
            )
        choices = (parameters.rectified, parameters.use_projection_offset)
        key = (frame_id, choices, info_key(info))
        if self._camera is None or self._camera[0] != key:
            camera = camera_from_info(info, *choices)
            self._refuse_absurd(camera)
            self._camera = (key, camera)
            note = convention_of(info, *choices).note
            self._decided('calibration', self._describe(camera, info, note), self._doubt(camera))
        return self._camera[1]

    def _describe(self, camera: CameraModel, info: CameraInfo, note: str) -> str:
        state = 'used as it is'
        if not camera.is_rectified:
            model = camera.distortion_model or 'no distortion'
            state = f'undistorted here ({model}, {len(camera.D)} coefficients)'
        scale = self._detector.focal_scale(camera)
        resized = '' if scale == 1.0 else f", resized by {scale:.3f} to the model's focal length"
        beside_m = -camera.P_px_34[0, 3] / camera.fx_px
        offset = f', camera {beside_m:.3f} m along x from that frame' if beside_m else ''
        return (
            f"frame '{info.header.frame_id}': {camera.width}x{camera.height}, "
            f'fx {camera.fx_px:.1f} px, {state}{resized}{offset}' + (f'; {note}' if note else '')
        )

    def _refuse_absurd(self, camera: CameraModel) -> None:
        """Refuse what no camera has, though it be finite: a focal length near zero would blow the
        image up to gigabytes, a huge number would turn into infinity in the network."""
        scale = self._detector.focal_scale(camera)
        if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
            raise ValueError(
                f'camera_info: focal length {camera.fx_px:g} px would resize the image by '
                f'{scale:g}; the most is {LARGEST_SCALE:g} either way'
            )
        if camera.width * camera.height > LARGEST_IMAGE_PX:
            raise ValueError(
                f'camera_info: {camera.width}x{camera.height} pixels, expected at most '
                f'{LARGEST_IMAGE_PX:.0e} in all'
            )
        fx, fy = camera.fx_px, float(camera.P_px_34[1, 1])
        if not 1 / LARGEST_SCALE <= fy / fx <= LARGEST_SCALE:
            raise ValueError(f'camera_info: P has focal lengths {fx:g} and {fy:g} px, far apart')
        largest = max(np.abs(camera.P_px_34).max(), np.abs(camera.K_px_33).max())
        if largest > LARGEST_NUMBER:
            raise ValueError(f'camera_info: K or P has the number {largest:g}, which no camera has')

    def _doubt(self, camera: CameraModel) -> str:
        from cmkd_ros.detector import FX_WORKING_RANGE

        scale = self._detector.focal_scale(camera)
        low, high = FX_WORKING_RANGE
        if low <= scale <= high:
            return ''
        return (
            f"focal length {camera.fx_px:.0f} px is far from the training camera's "
            f'{self._detector.train_fx_px:.0f} px: the image is resized by {scale:.2f}, outside '
            f'the working range {low:g} to {high:g}; expect worse detections'
        )


def rectified_pose(camera: CameraModel, T_cam_ref: np.ndarray) -> np.ndarray:
    """Pose of the camera whose pixels the network sees: turned by camera_info's R where the image
    is rectified here.

    Args:
        camera: calibration of the image as received.
        T_cam_ref: (4, 4), maps the reference frame to the frame in the image's header.

    Returns:
        (4, 4) float64, maps the reference frame to the rectified camera frame.
    """
    if camera.is_rectified:
        return T_cam_ref
    rectify_44 = np.eye(4)
    rectify_44[:3, :3] = camera.R_33
    return rectify_44 @ T_cam_ref
