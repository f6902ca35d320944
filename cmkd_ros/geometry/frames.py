"""Rigid transforms, frame conventions, rotations and covariances.

Letters: N points; 3 axes; 4 homogeneous (matrices) or x, y, z, w (quaternions); 6 = position and
rotation, as in geometry_msgs/PoseWithCovariance.
All arrays are float64. FLU is x forward, y left, z up; optical is x right, y down, z forward.
"""

import numpy as np
from numpy.typing import ArrayLike

# Maps a vector given in a FLU body frame to the optical frame that looks along the body's x axis.
OPTICAL_FROM_FLU = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
OPTICAL_FROM_FLU.setflags(write=False)

# Calibration files print 6 to 12 digits, so their rotations are orthonormal only about this far.
_ROTATION_TOLERANCE = 1e-3


def make_se3(R_33: ArrayLike, t_3: ArrayLike) -> np.ndarray:
    """Join a rotation and a translation into a homogeneous transform.

    Args:
        R_33: rotation matrix.
        t_3: translation, metres.

    Returns:
        (4, 4) float64.

    Raises:
        ValueError: wrong shape, non-finite value, or R_33 is no rotation.
    """
    R_33 = _rotation(R_33, 'R_33')
    t_3 = np.asarray(t_3, dtype=np.float64)
    if t_3.shape != (3,) or not np.isfinite(t_3).all():
        raise ValueError(f't_3: expected 3 finite numbers, found {t_3!r}')
    T_44 = np.eye(4)
    T_44[:3, :3] = R_33
    T_44[:3, 3] = t_3
    return T_44


def invert_se3(T_44: ArrayLike) -> np.ndarray:
    """Invert a rigid transform.

    The rotation is inverted as a general matrix: the transposed one would be off by the rounding of
    the calibration file (1e-7 relative), which is micrometres at 50 m and breaks exact round trips.

    Args:
        T_44: homogeneous transform.

    Returns:
        (4, 4) float64 with `invert_se3(T) @ T = I` to float64 rounding.

    Raises:
        ValueError: wrong shape, non-finite value, last row not (0, 0, 0, 1), or no rotation inside.
    """
    T_44 = np.asarray(T_44, dtype=np.float64)
    if T_44.shape != (4, 4):
        raise ValueError(f'T_44: expected shape (4, 4), found {T_44.shape}')
    if not np.array_equal(T_44[3], (0.0, 0.0, 0.0, 1.0)):
        raise ValueError(f'T_44: expected last row (0, 0, 0, 1), found {T_44[3]}')
    R_33 = np.linalg.inv(_rotation(T_44[:3, :3], 'T_44'))
    return make_se3(R_33, -R_33 @ T_44[:3, 3])


def transform_points(T_44: ArrayLike, points_N3: ArrayLike) -> np.ndarray:
    """Map points through a homogeneous transform.

    Args:
        T_44: transform to the new frame from the points' frame.
        points_N3: points, metres; any number of leading axes.

    Returns:
        Points in the new frame, same shape, float64.

    Raises:
        ValueError: wrong shapes.
    """
    T_44 = np.asarray(T_44, dtype=np.float64)
    points_N3 = np.asarray(points_N3, dtype=np.float64)
    if T_44.shape != (4, 4) or points_N3.shape[-1:] != (3,):
        raise ValueError(
            f'expected a (4, 4) transform and (..., 3) points, '
            f'found {T_44.shape} and {points_N3.shape}'
        )
    return points_N3 @ T_44[:3, :3].T + T_44[:3, 3]


def wrap_angle(angle_rad: ArrayLike) -> np.ndarray:
    """Wrap angles to [-pi, pi).

    Args:
        angle_rad: angle or array of angles.

    Returns:
        Same shape, float64.
    """
    wrapped = np.mod(np.asarray(angle_rad, dtype=np.float64) + np.pi, 2 * np.pi) - np.pi
    # np.mod rounds tiny negative numbers up to the period itself.
    return np.where(wrapped >= np.pi, wrapped - 2 * np.pi, wrapped)


def yaw_to_quaternion(yaw_rad: ArrayLike) -> np.ndarray:
    """Quaternion of a rotation about +z.

    Args:
        yaw_rad: angle or array of angles.

    Returns:
        (..., 4) float64, unit, order x, y, z, w.
    """
    half = np.asarray(yaw_rad, dtype=np.float64) / 2
    zero = np.zeros_like(half)
    return np.stack([zero, zero, np.sin(half), np.cos(half)], axis=-1)


def quaternion_to_matrix(xyzw: ArrayLike) -> np.ndarray:
    """Rotation matrix of a quaternion, which need not be of unit length.

    Args:
        xyzw: (..., 4), order x, y, z, w.

    Returns:
        (..., 3, 3) float64.

    Raises:
        ValueError: wrong shape, zero length or non-finite.
    """
    quaternion = np.asarray(xyzw, dtype=np.float64)
    if quaternion.shape[-1:] != (4,):
        raise ValueError(f'quaternion: expected (..., 4) as x, y, z, w, found {quaternion.shape}')
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not np.isfinite(norm).all() or (norm < 1e-6).any():
        raise ValueError(f'quaternion: expected finite and non-zero, found {quaternion}')
    x, y, z, w = np.moveaxis(quaternion / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(R_33: ArrayLike) -> np.ndarray:
    """Quaternion of a rotation matrix, with w >= 0.

    Args:
        R_33: rotation matrix.

    Returns:
        (4,) float64, unit, order x, y, z, w.

    Raises:
        ValueError: not a rotation.
    """
    R_33 = _rotation(R_33, 'R_33')
    # 4 q q^T, exactly: its row with the largest diagonal entry is q up to a scale of at least 1.
    outer_44 = np.empty((4, 4))
    outer_44[:3, :3] = R_33 + R_33.T + (1 - np.trace(R_33)) * np.eye(3)
    outer_44[:3, 3] = outer_44[3, :3] = (
        R_33[2, 1] - R_33[1, 2],
        R_33[0, 2] - R_33[2, 0],
        R_33[1, 0] - R_33[0, 1],
    )
    outer_44[3, 3] = 1 + np.trace(R_33)
    quaternion = outer_44[np.argmax(np.diag(outer_44))]
    quaternion = quaternion / np.linalg.norm(quaternion)
    return -quaternion if quaternion[3] < 0 else quaternion


def rotate_covariance(cov_66: ArrayLike, R_33: ArrayLike) -> np.ndarray:
    """Express a pose covariance in another frame.

    Args:
        cov_66: covariance in the old frame, metres and radians; x, y, z, about x, about y, about z.
        R_33: rotation that maps old-frame vectors to the new frame.

    Returns:
        (6, 6) float64 in the new frame.

    Raises:
        ValueError: wrong shape or R_33 is no rotation.
    """
    cov_66 = np.asarray(cov_66, dtype=np.float64)
    if cov_66.shape != (6, 6):
        raise ValueError(f'cov_66: expected shape (6, 6), found {cov_66.shape}')
    R_66 = np.kron(np.eye(2), _rotation(R_33, 'R_33'))
    return R_66 @ cov_66 @ R_66.T


def camera_mount_pose(
    height_m: float,
    pitch_rad: float = 0.0,
    roll_rad: float = 0.0,
    forward_m: float = 0.27,
    reference_height_m: float = 1.73,
) -> np.ndarray:
    """Pose of a camera that looks along the robot's forward axis, from what a tape measure gives.

    Args:
        height_m: optical centre above the ground.
        pitch_rad: positive looks down.
        roll_rad: about the optical axis, positive turns the camera clockwise seen from behind.
        forward_m: optical centre before the origin of the reference frame.
        reference_height_m: origin of the reference frame above the ground (KITTI's LiDAR: 1.73 m).

    Returns:
        T_cam_ref (4, 4) float64: maps the reference frame (FLU) to the optical camera frame.
    """
    cos_p, sin_p = np.cos(pitch_rad), np.sin(pitch_rad)
    cos_r, sin_r = np.cos(roll_rad), np.sin(roll_rad)
    pitch_33 = np.array([[cos_p, 0.0, sin_p], [0.0, 1.0, 0.0], [-sin_p, 0.0, cos_p]])
    roll_33 = np.array([[1.0, 0.0, 0.0], [0.0, cos_r, -sin_r], [0.0, sin_r, cos_r]])
    R_cam_ref = OPTICAL_FROM_FLU @ (pitch_33 @ roll_33).T
    position_ref = np.array([forward_m, 0.0, height_m - reference_height_m])
    return make_se3(R_cam_ref, -R_cam_ref @ position_ref)


def level_camera_pose(
    T_base_cam: ArrayLike,
    base_height_m: float,
    forward_m: float = 0.27,
    reference_height_m: float = 1.73,
) -> np.ndarray:
    """Pose of a camera in a reference frame that the robot's base frame gives the ground to.

    The base tells height, pitch and roll. Place and heading are taken from the camera itself: a
    network has learnt to look along x from `forward_m` before the origin, so that is where a camera
    on the robot's side or rear gets its own reference frame, too.

    Args:
        T_base_cam: (4, 4), the camera in the base frame (x forward, z up).
        base_height_m: origin of the base frame above the ground.
        forward_m: optical centre before the origin of the reference frame.
        reference_height_m: origin of the reference frame above the ground.

    Returns:
        T_cam_ref (4, 4) float64.
    """
    T_base_cam = np.asarray(T_base_cam, dtype=np.float64)
    ahead_3 = T_base_cam[:3, 2]
    yaw_rad = np.arctan2(ahead_3[1], ahead_3[0])
    R_ref_base = quaternion_to_matrix(yaw_to_quaternion(-yaw_rad))
    T_ref_cam = np.eye(4)
    T_ref_cam[:3, :3] = R_ref_base @ T_base_cam[:3, :3]
    height_m = T_base_cam[2, 3] + base_height_m
    T_ref_cam[:3, 3] = (forward_m, 0.0, height_m - reference_height_m)
    return invert_se3(T_ref_cam)


def _rotation(R_33: ArrayLike, name: str) -> np.ndarray:
    R_33 = np.asarray(R_33, dtype=np.float64)
    if R_33.shape != (3, 3) or not np.isfinite(R_33).all():
        raise ValueError(f'{name}: expected a finite (3, 3) rotation, found {R_33!r}')
    error = np.abs(R_33 @ R_33.T - np.eye(3)).max()
    if error > _ROTATION_TOLERANCE or np.linalg.det(R_33) < 0:
        raise ValueError(
            f'{name}: not a rotation: R R^T differs from I by {error:.3g}, '
            f'det = {np.linalg.det(R_33):.3g}'
        )
    return R_33
