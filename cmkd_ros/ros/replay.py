"""A bag through the real node, in lock-step: every image is answered once, on any machine.

The node runs in its own process and is talked to over DDS only, as on the robot; but the next
image is sent when the last one was answered, so that a slow computer gives the same result as a
fast one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection3DArray

from cmkd_ros.camera_info import camera_from_info, convention_of
from cmkd_ros.geometry import CameraModel, invert_se3, matrix_to_quaternion
from cmkd_ros.ros.camera_bag import BagImage, open_camera_bag
from cmkd_ros.ros.exchange import Exchange
from cmkd_ros.ros.parameters import Parameters, parse_parameters
from cmkd_ros.ros.pipeline import rectified_pose
from cmkd_ros.ros.pose import PoseChooser, ReferencePose
from cmkd_ros.transform_buffer import TransformBuffer

# The LiDAR's frame in bags of `cmkd make-bag` and ros2_dataset_bridge, and of kitti2bag.
LIDAR_FRAMES = ('velodyne', 'velo_link')


@dataclass(frozen=True, eq=False)
class ReplayedFrame:
    """One image of the bag and the node's answer.

    Attributes:
        frame_id: name of the frame in its data set.
        stamp_ns: of the image, and so of the answer.
        message: the answer; `message_cdr` the same as it came over the wire.
        camera: calibration of the image, with all of P.
        pose: that the node was given.
        T_label_ref: (4, 4), maps the reference frame to that of KITTI's labels: the rectified frame
            that P counts from, which need not be the image's.
        latency_ms: from before publishing the image to having received the answer.
    """

    frame_id: str
    stamp_ns: int
    message: Detection3DArray
    message_cdr: bytes
    camera: CameraModel
    pose: ReferencePose
    T_label_ref: np.ndarray
    latency_ms: float


def replay_bag(
    bag: Path,
    *,
    model: Path,
    device: str = 'auto',
    precision: str = 'fp32',
    backend: str = 'torch',
    parameters: Mapping[str, Any] | None = None,
    reference_frame: str = '',
    image_topic: str = '',
    info_topic: str = '',
    timeout_s: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ReplayedFrame]:
    """Send every image of a bag through the node.

    Args:
        bag: rosbag2 folder.
        model: bundle.
        device, precision, backend: as the node's parameters.
        parameters: further parameters of the node by dotted name, such as a camera mount.
        reference_frame: TF frame of the bag that is the reference frame; empty for the one of
            `LIDAR_FRAMES` that the bag has. Where it has no such transforms, the pose follows from
            `parameters`.
        image_topic, info_topic: empty for the only one in the bag.
        timeout_s: for the answer to one image.
        progress: called with (images answered, images in all).

    Returns:
        One entry an image, in order of recording.

    Raises:
        FileNotFoundError, ValueError: model or bag that cannot be used.
        FailedError: the node did not start, refused the model or ended; gives its last error.
        TimeoutError: an image was not answered; gives the node's last error.
    """
    from cmkd_ros.checkpoint import load_bundle

    bundle = load_bundle(model)
    given: dict[str, Any] = {
        'pose.tf_timeout_s': 0.0,
        'camera_info_wait_s': 10.0,  # calibration may change from image to image
    }
    given |= dict(parameters or {})
    given |= {'model.path': str(model), 'device': device}
    given |= {'precision': precision, 'backend': backend}
    parse_parameters(given)  # its faults are told before the bag is read
    with open_camera_bag(bag, image_topic, info_topic) as camera_bag:
        frame = reference_frame or _lidar_frame(camera_bag.transforms)
        given = {'pose.reference_frame': frame} | given
        settings = parse_parameters(given)
        poses = PoseChooser(bundle.reference_height_m, camera_bag.transforms)
        frames: list[ReplayedFrame] = []
        # The node is told the pose outright: transforms would arrive at their own time.
        with Exchange(given | {'pose.source': 'transform'}, timeout_s) as exchange:
            for image in camera_bag:
                pose = poses.at(settings.pose, image.camera_frame, image.stamp_ns)
                previous = frames[-1] if frames else None
                frames.append(_replay_image(exchange, image, pose, previous, settings))
                if progress:
                    progress(len(frames), len(camera_bag))
            exchange.expect_nothing_more()
    return frames


def _replay_image(
    exchange: Exchange,
    image: BagImage,
    pose: ReferencePose,
    previous: ReplayedFrame | None,
    settings: Parameters,
) -> ReplayedFrame:
    if previous is None or not np.array_equal(pose.T_cam_ref, previous.pose.T_cam_ref):
        T_ref_cam = invert_se3(pose.T_cam_ref)
        numbers = [*T_ref_cam[:3, 3], *matrix_to_quaternion(T_ref_cam[:3, :3])]
        exchange.set_parameters({'pose.transform': [float(number) for number in numbers]})
    answer_cdr, latency_ms = exchange.ask(image.image_cdr, image.info_cdr, image.stamp_ns)
    camera, T_label_ref = _label_camera(image.info, settings, pose.T_cam_ref)
    return ReplayedFrame(
        image.frame_id,
        image.stamp_ns,
        deserialize_message(answer_cdr, Detection3DArray),
        answer_cdr,
        camera,
        pose,
        T_label_ref,
        latency_ms,
    )


def _label_camera(
    info: Any, settings: Parameters, T_cam_ref: np.ndarray
) -> tuple[CameraModel, np.ndarray]:
    """The camera with all of P, and T_label_ref of `ReplayedFrame`."""
    camera = camera_from_info(info, settings.rectified, 'true')
    T_label_cam = np.eye(4)
    convention = convention_of(info, settings.rectified, settings.use_projection_offset)
    if not convention.use_projection_offset:
        # kitti2bag places the image's frame beside the one that P counts from, along x only.
        T_label_cam[0, 3] = -camera.P_px_34[0, 3] / camera.fx_px
    return camera, T_label_cam @ rectified_pose(camera, T_cam_ref)


def _lidar_frame(transforms: TransformBuffer) -> str:
    known = transforms.frames()
    return next((frame for frame in LIDAR_FRAMES if frame in known), LIDAR_FRAMES[0])
