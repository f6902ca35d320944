"""Where camera and LiDAR sit in the reference frame of a recording.

Letters: N points. Frames: ref (x forward, y left, z up, a fixed height above the ground), cam
(optical, the frame of the image's header), lidar (the frame of the scan's header), base (a frame of
the robot, z up).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.geometry import invert_se3, level_camera_pose, make_se3, quaternion_to_matrix
from cmkd_ros.transform_buffer import TransformBuffer

REFERENCE_HEIGHT_M = 1.73  # of KITTI's LiDAR, for which teachers are made
# Where the road must be seen to be found: clear of the car's own bonnet, and dense.
_ROAD_X_M, _ROAD_Y_M, _ROAD_Z_M = (4.0, 25.0), (-6.0, 6.0), (-5.0, 2.0)
_BIN_M = 0.05
_FEWEST_POINTS = 200
_GROUND_TOLERANCE_M = 0.25
_LEAST_FORWARD = np.cos(np.radians(45.0))


@dataclass(frozen=True)
class PoseOptions:
    """How the reference frame is found; of the first three at most one is given.

    Attributes:
        reference_frame: TF frame that is the reference frame itself.
        lidar_height_m: the LiDAR is level and sits this high above the ground.
        base_frame: TF frame of the robot that tells the ground, as the node uses it; None: the
            frame `base_link`, where the recording has it, else the LiDAR's own frame.
        base_height_m: origin of the base frame above the ground.
        camera_pose: the camera in the LiDAR's frame, x, y, z, qx, qy, qz, qw; None: from TF.

    Raises:
        ValueError: options that exclude each other, or numbers that are no heights or no pose.
    """

    reference_frame: str | None = None
    lidar_height_m: float | None = None
    base_frame: str | None = None
    base_height_m: float = 0.0
    camera_pose: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        given = (self.reference_frame, self.lidar_height_m, self.base_frame)
        if sum(value is not None for value in given) > 1:
            raise ValueError('expected one of --reference-frame, --lidar-height and --base-frame')
        if self.base_height_m and any(value is not None for value in given[:2]):
            raise ValueError('--base-height: goes with --base-frame only')
        if not np.isfinite([self.lidar_height_m or 0.0, self.base_height_m]).all():
            raise ValueError('--lidar-height and --base-height: expected finite metres')
        if self.camera_pose is not None:
            _pose_44(self.camera_pose)


@dataclass(frozen=True, eq=False)
class RigPose:
    """Camera and LiDAR in the reference frame.

    Attributes:
        T_cam_ref: (4, 4), maps ref to the frame of the image's header.
        T_ref_lidar: (4, 4), maps the frame of the scan's header to ref.
        source: one phrase for the log.
        height: the option that says how high things are, and its value as it counted; None where
            no option does.
    """

    T_cam_ref: NDArray[np.float64]
    T_ref_lidar: NDArray[np.float64]
    source: str
    height: tuple[str, float] | None = None

    def to_ref(self, points_N4: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points of the LiDAR's frame in ref, (N, 4) float32; themselves where the two are one."""
        if np.array_equal(self.T_ref_lidar, np.eye(4)):
            return points_N4
        moved_N4 = points_N4.copy()
        R_33, t_3 = self.T_ref_lidar[:3, :3], self.T_ref_lidar[:3, 3]
        moved_N4[:, :3] = points_N4[:, :3].astype(np.float64) @ R_33.T + t_3
        return moved_N4


def rig_pose(
    options: PoseOptions,
    transforms: TransformBuffer,
    camera_frame: str,
    lidar_frame: str,
    stamp_ns: int,
) -> RigPose:
    """Find the poses at a time.

    Raises:
        ValueError: the transforms do not tell; one sentence names what is missing.
    """
    if options.camera_pose is not None:
        T_cam_lidar = invert_se3(_pose_44(options.camera_pose))
    else:
        T_cam_lidar = _lookup(transforms, camera_frame, lidar_frame, stamp_ns, '--camera-pose')
    if options.reference_frame is not None:
        frame = options.reference_frame
        T_ref_lidar = _lookup(transforms, frame, lidar_frame, stamp_ns, 'another --reference-frame')
        T_cam_ref = T_cam_lidar @ invert_se3(T_ref_lidar)
        return RigPose(T_cam_ref, T_ref_lidar, f"TF frame '{frame}'")
    if options.lidar_height_m is not None:
        height = ('--lidar-height', options.lidar_height_m)
        return _below_camera(T_cam_lidar, np.eye(4), f"level LiDAR '{lidar_frame}'", height)
    base = options.base_frame or 'base_link'
    try:
        T_base_lidar = _lookup(transforms, base, lidar_frame, stamp_ns, 'another --base-frame')
    except ValueError:
        if options.base_frame is not None or options.base_height_m:
            raise
        own = f"the LiDAR's own frame '{lidar_frame}'"
        return RigPose(T_cam_lidar, np.eye(4), own, ('--lidar-height', REFERENCE_HEIGHT_M))
    height = ('--base-height', options.base_height_m)
    return _below_camera(T_cam_lidar, T_base_lidar, f"TF frame '{base}'", height)


def check_heading(pose: RigPose) -> None:
    """Check that the camera looks where teachers and students look, along x of ref.

    Raises:
        ValueError: it looks more than 45 degrees aside.
    """
    forward = float(invert_se3(pose.T_cam_ref)[0, 2])
    if forward < _LEAST_FORWARD:
        aside_deg = np.degrees(np.arccos(max(forward, -1.0)))
        raise ValueError(
            f'the camera looks {aside_deg:.0f} degrees away from the x axis '
            f'of the reference frame ({pose.source}), along which teachers and students look; give '
            '--lidar-height, --base-frame or another --reference-frame'
        )


def ground_below_ref_m(points_N4: NDArray[np.float32]) -> float | None:
    """How far below the reference frame the road before the car lies, metres.

    The height that most points have, of those 4 to 25 m ahead; None where too few are there.
    """
    x_N, y_N, z_N = points_N4[:, 0], points_N4[:, 1], points_N4[:, 2]
    ahead_N = (
        (x_N > _ROAD_X_M[0]) & (x_N < _ROAD_X_M[1])
        & (y_N > _ROAD_Y_M[0]) & (y_N < _ROAD_Y_M[1])
    )  # fmt: skip
    z_N = z_N[ahead_N & (z_N > _ROAD_Z_M[0]) & (z_N < _ROAD_Z_M[1])]
    if len(z_N) < _FEWEST_POINTS:
        return None
    edges = np.arange(_ROAD_Z_M[0], _ROAD_Z_M[1] + _BIN_M, _BIN_M)
    counts = np.histogram(z_N, edges)[0]
    # Three bins together: the road is rarely even, and may lie on an edge.
    middle = int(np.convolve(counts, np.ones(3), 'same').argmax())
    low_m, high_m = edges[middle] - _BIN_M, edges[middle] + 2 * _BIN_M
    return -float(np.median(z_N[(z_N >= low_m) & (z_N <= high_m)]))


def judge_ground(pose: RigPose, ground_m: float | None) -> str | None:
    """What is wrong with the height of the reference frame; None where it is right.

    Args:
        pose: of the recording.
        ground_m: how far below ref the road lies (`ground_below_ref_m`); None where not seen.
    """
    if ground_m is None:
        return 'no road found in the scans: check the height of the reference frame yourself'
    excess_m = ground_m - REFERENCE_HEIGHT_M
    if abs(excess_m) <= _GROUND_TOLERANCE_M:
        return None
    text = (
        f'the road lies {ground_m:.2f} m below the reference frame ({pose.source}), but teachers '
        f'and students are made for {REFERENCE_HEIGHT_M:.2f} m'
    )
    if pose.height is None:
        return text
    option, height_m = pose.height
    return f'{text}; by the scans, {option} is {height_m + excess_m:.2f}'


def _below_camera(
    T_cam_lidar: NDArray[np.float64],
    T_base_lidar: NDArray[np.float64],
    base: str,
    height: tuple[str, float],
) -> RigPose:
    """The reference frame that the node finds, too, from a frame that knows the ground."""
    T_cam_ref = level_camera_pose(
        T_base_lidar @ invert_se3(T_cam_lidar), height[1], reference_height_m=REFERENCE_HEIGHT_M
    )
    source = f'below the camera, the ground from the {base}'
    return RigPose(T_cam_ref, invert_se3(T_cam_ref) @ T_cam_lidar, source, height)


def _lookup(
    transforms: TransformBuffer, target: str, source: str, stamp_ns: int, instead: str
) -> NDArray[np.float64]:
    try:
        return transforms.lookup(target, source, stamp_ns)
    except LookupError as error:
        raise ValueError(f'{error}; record /tf_static, or give {instead}') from None


def _pose_44(numbers: tuple[float, ...]) -> NDArray[np.float64]:
    try:
        x, y, z, *xyzw = numbers
        return make_se3(quaternion_to_matrix(xyzw), np.array([x, y, z]))
    except ValueError as error:
        raise ValueError(
            f'--camera-pose: expected x y z qx qy qz qw, found {numbers}: {error}'
        ) from None
