"""Rigid transforms, rotations and the camera mount."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.geometry import (
    OPTICAL_FROM_FLU,
    camera_mount_pose,
    invert_se3,
    make_se3,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotate_covariance,
    transform_points,
    wrap_angle,
    yaw_to_quaternion,
)

ANGLES = st.floats(-50, 50)
QUATERNIONS = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(
    lambda q: np.linalg.norm(q) > 1e-3
)


def rotation(axis: str, angle: float) -> np.ndarray:
    i, j = {'x': (1, 2), 'y': (2, 0), 'z': (0, 1)}[axis]
    R_33 = np.eye(3)
    R_33[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return R_33


def test_optical_axes_of_a_flu_body():
    forward, left, up = np.eye(3)
    assert np.array_equal(OPTICAL_FROM_FLU @ forward, [0, 0, 1])
    assert np.array_equal(OPTICAL_FROM_FLU @ left, [-1, 0, 0])
    assert np.array_equal(OPTICAL_FROM_FLU @ up, [0, -1, 0])
    assert not OPTICAL_FROM_FLU.flags.writeable


@settings(deadline=None)
@given(QUATERNIONS, st.lists(st.floats(-100, 100), min_size=3, max_size=3))
def test_inverse_undoes_a_transform(quaternion, translation):
    T_44 = make_se3(quaternion_to_matrix(quaternion), translation)
    points_N3 = np.array([[0.0, 0.0, 0.0], [40.0, -20.0, 3.0]])
    back_N3 = transform_points(invert_se3(T_44), transform_points(T_44, points_N3))
    np.testing.assert_allclose(back_N3, points_N3, atol=1e-12)


def test_inverse_is_exact_for_a_rotation_of_few_digits():
    T_44 = make_se3(np.round(rotation('y', 0.3) @ rotation('z', 1.1), 6), [0.1, 0.2, 50.0])
    np.testing.assert_allclose(invert_se3(T_44) @ T_44, np.eye(4), atol=1e-13)


def test_transform_keeps_leading_axes_and_emptiness():
    T_44 = make_se3(rotation('z', np.pi / 2), [1.0, 0.0, 0.0])
    assert transform_points(T_44, np.zeros((0, 3))).shape == (0, 3)
    moved = transform_points(T_44, np.full((2, 5, 3), [1.0, 2.0, 3.0]))
    np.testing.assert_allclose(moved, np.broadcast_to([-1.0, 1.0, 3.0], (2, 5, 3)), atol=1e-15)


@settings(deadline=None)
@given(ANGLES)
def test_wrapped_angle_is_the_same_direction_in_range(angle):
    wrapped = wrap_angle(angle)
    assert -np.pi <= wrapped < np.pi
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angle), atol=1e-13)


@pytest.mark.parametrize(
    ('angle', 'expected'),
    [(np.pi, -np.pi), (-np.pi, -np.pi), (np.nextafter(-np.pi, -4), -np.pi), (3 * np.pi, -np.pi)],
)
def test_wrap_at_its_border(angle, expected):
    assert wrap_angle(angle) == pytest.approx(expected, abs=1e-15)
    assert wrap_angle(angle) < np.pi


def test_yaw_quaternion_turns_about_z():
    np.testing.assert_allclose(yaw_to_quaternion(np.pi), [0, 0, 1, 0], atol=1e-15)
    yaws_N = np.array([-2.0, 0.0, 0.7])
    matrices = quaternion_to_matrix(yaw_to_quaternion(yaws_N))
    np.testing.assert_allclose(matrices, [rotation('z', yaw) for yaw in yaws_N], atol=1e-15)


@settings(deadline=None)
@given(QUATERNIONS)
def test_quaternion_survives_the_matrix(quaternion):
    unit = np.array(quaternion) / np.linalg.norm(quaternion)
    back = matrix_to_quaternion(quaternion_to_matrix(quaternion))
    assert back[3] >= 0
    assert abs(back @ unit) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize('axis', 'xyz')
@pytest.mark.parametrize('angle', [0.0, 1e-9, np.pi - 1e-9, np.pi, -np.pi / 2])
def test_matrix_survives_the_quaternion_near_half_turns(axis, angle):
    R_33 = rotation(axis, angle)
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(R_33)), R_33, atol=1e-14)


def test_covariance_follows_sampled_errors():
    rng = np.random.default_rng(5)
    factor_66 = rng.normal(size=(6, 6))
    R_33 = rotation('z', 0.4) @ rotation('x', -1.2)
    # The rows of the factor are a finite set of errors whose second moment is exactly cov_66.
    turned_66 = np.hstack([factor_66[:, :3] @ R_33.T, factor_66[:, 3:] @ R_33.T])
    result_66 = rotate_covariance(factor_66.T @ factor_66, R_33)
    np.testing.assert_allclose(result_66, turned_66.T @ turned_66, atol=1e-12)


def test_level_camera_mount():
    T_cam_ref = camera_mount_pose(1.2, forward_m=0.5, reference_height_m=1.73)
    # 10 m before the camera, on the ground below the reference.
    np.testing.assert_allclose(transform_points(T_cam_ref, [10.5, 0.0, -1.73]), [0, 1.2, 10])
    np.testing.assert_allclose(transform_points(T_cam_ref, [10.5, 2.0, -0.53]), [-2, 0, 10])


def test_pitched_camera_looks_at_the_ground():
    T_cam_ref = camera_mount_pose(2.0, pitch_rad=np.pi / 4, forward_m=0.0, reference_height_m=1.5)
    # The optical axis meets the ground as far ahead as the camera is high.
    np.testing.assert_allclose(
        transform_points(T_cam_ref, [2.0, 0.0, -1.5]), [0, 0, 2 * np.sqrt(2)], atol=1e-15
    )


def test_rolled_camera_turns_clockwise():
    T_cam_ref = camera_mount_pose(1.73, roll_rad=0.1, forward_m=0.0)
    x, y, z = transform_points(T_cam_ref, [10.0, 0.0, 1.0])
    # What is straight above moves to the left in the image when the camera turns clockwise.
    np.testing.assert_allclose([x, y, z], [-np.sin(0.1), -np.cos(0.1), 10], atol=1e-15)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: make_se3(2 * np.eye(3), np.zeros(3)), 'R_33: not a rotation'),
        (lambda: make_se3(np.diag([1.0, 1.0, -1.0]), np.zeros(3)), 'det = -1'),
        (lambda: make_se3(np.full((3, 3), np.nan), np.zeros(3)), 'finite'),
        (lambda: make_se3(np.eye(3), np.zeros(4)), 't_3: expected 3 finite numbers'),
        (lambda: make_se3(np.eye(3), [0, 0, np.inf]), 't_3: expected 3 finite numbers'),
        (lambda: invert_se3(np.eye(3)), r'expected shape \(4, 4\), found \(3, 3\)'),
        (lambda: invert_se3(np.diag([1.0, 1.0, 1.0, 2.0])), 'last row'),
        (lambda: transform_points(np.eye(4), np.zeros((5, 4))), r'found \(4, 4\) and \(5, 4\)'),
        (lambda: transform_points(np.eye(3), np.zeros((5, 3))), r'found \(3, 3\) and \(5, 3\)'),
        (lambda: quaternion_to_matrix([0, 0, 0, 0]), 'non-zero'),
        (lambda: quaternion_to_matrix([0, 0, np.nan, 1]), 'finite'),
        (lambda: quaternion_to_matrix([0, 0, 1]), r'x, y, z, w, found \(3,\)'),
        (lambda: matrix_to_quaternion(np.zeros((3, 3))), 'not a rotation'),
        (lambda: rotate_covariance(np.eye(3), np.eye(3)), r'cov_66: expected shape \(6, 6\)'),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
