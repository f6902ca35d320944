"""Where the camera sits in the reference frame: from TF, or from declared parameters.

The reference frame (x forward, y left, z up) is where the training LiDAR sat, at a fixed height
above the ground that the bundle states.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from cmkd_ros.geometry import (
    camera_mount_pose,
    invert_se3,
    level_camera_pose,
    make_se3,
    quaternion_to_matrix,
)
from cmkd_ros.ros.parameters import PoseParameters
from cmkd_ros.transform_buffer import TransformBuffer


@dataclass(frozen=True, eq=False)
class ReferencePose:
    """A pose and where it came from.

    Attributes:
        T_cam_ref: (4, 4) float64, maps the reference frame to the optical camera frame, metres.
        source: one phrase for the log and diagnostics.
    """

    T_cam_ref: np.ndarray
    source: str


def mount_pose(parameters: PoseParameters, reference_height_m: float) -> ReferencePose:
    """Pose of a camera that looks forward, from its height, pitch and roll."""
    p = parameters
    T_cam_ref = camera_mount_pose(
        p.camera_height, p.camera_pitch_rad, p.camera_roll_rad, p.camera_forward, reference_height_m
    )
    return ReferencePose(
        T_cam_ref,
        f'parameters pose.camera_*: {p.camera_height:g} m above the ground, pitch '
        f'{np.degrees(p.camera_pitch_rad):.1f} deg down, roll {np.degrees(p.camera_roll_rad):.1f} '
        'deg',
    )


def transform_pose(parameters: PoseParameters) -> ReferencePose:
    """Pose from `pose.transform`, the camera in the reference frame."""
    x, y, z, *xyzw = parameters.transform
    T_ref_cam = make_se3(quaternion_to_matrix(xyzw), np.array([x, y, z]))
    return ReferencePose(
        invert_se3(T_ref_cam), f'parameter pose.transform: camera at ({x:.3f}, {y:.3f}, {z:.3f}) m'
    )


def base_pose(
    T_base_cam: np.ndarray, parameters: PoseParameters, reference_height_m: float
) -> np.ndarray:
    """Pose of the camera in a reference frame that the robot's base frame gives the ground to.

    The base tells height, pitch and roll, the camera itself place and heading.

    Args:
        T_base_cam: (4, 4), the camera in the base frame (x forward, z up).
        parameters: `base_height` and `camera_forward` are used.
        reference_height_m: height of the reference frame above the ground.

    Returns:
        T_cam_ref (4, 4) float64.
    """
    return level_camera_pose(
        T_base_cam, parameters.base_height, parameters.camera_forward, reference_height_m
    )


class PoseChooser:
    """Answers with the pose for an image, from the source that the parameters ask for."""

    def __init__(self, reference_height_m: float, transforms: TransformBuffer | None) -> None:
        """Start; the time that `auto` waits for TF begins with the first question.

        Args:
            reference_height_m: height of the reference frame above the ground, from the bundle.
            transforms: what /tf and /tf_static told; None where TF cannot be read.
        """
        self._reference_height_m = reference_height_m
        self._transforms = transforms
        self._waiting_since: float | None = None

    def at(self, parameters: PoseParameters, frame_id: str, stamp_ns: int) -> ReferencePose:
        """Return the pose of camera frame `frame_id` at `stamp_ns`.

        Raises:
            LookupError: TF is wanted and does not (yet) know the camera; one sentence why.
        """
        if parameters.source == 'transform':
            return transform_pose(parameters)
        mount = mount_pose(parameters, self._reference_height_m)
        if parameters.source == 'mount':
            return mount
        try:
            return self._from_tf(parameters, frame_id, stamp_ns)
        except LookupError as error:
            if parameters.source == 'tf' or self._is_early(parameters.tf_timeout_s):
                raise
            return ReferencePose(mount.T_cam_ref, f'{mount.source} (no TF: {error})')

    def between(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Return T_target_source (4, 4) from TF.

        Raises:
            LookupError: TF does not (yet) connect the two; one sentence why.
        """
        if self._transforms is None:
            raise LookupError('the package tf2_msgs is not installed')
        return self._transforms.lookup(target, source, stamp_ns)

    def _from_tf(self, parameters: PoseParameters, frame_id: str, stamp_ns: int) -> ReferencePose:
        if parameters.reference_frame:
            frame = parameters.reference_frame
            T_cam_ref = self.between(frame_id, frame, stamp_ns)
        else:
            frame = parameters.base_frame
            T_base_cam = self.between(frame, frame_id, stamp_ns)
            T_cam_ref = base_pose(T_base_cam, parameters, self._reference_height_m)
        return ReferencePose(T_cam_ref, f"TF between '{frame}' and '{frame_id}'")

    def _is_early(self, timeout_s: float) -> bool:
        if self._transforms is None:
            return False
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        return time.monotonic() - self._waiting_since < timeout_s
