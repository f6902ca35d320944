"""Upright 3D boxes in the reference frame, their corners, projection and KITTI label form.

Letters: N boxes; 7 = x, y, z, l, w, h, yaw; 8 corners; 4 = x1, y1, x2, y2 in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cmkd_ros.geometry.frames import invert_se3, transform_points, wrap_angle

# Corner order: bottom face, then top face, each counter-clockwise from above beginning front left.
_CORNER_SIGNS_83 = 0.5 * np.array(
    [
        [1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, -1, -1],
        [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, -1, 1],
    ]
)  # fmt: skip
_EDGES_12_2 = np.array(
    [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4], [0, 4], [1, 5], [2, 6], [3, 7]]
)
# What lies nearer to the camera plane than this is cut off before the division.
_NEAR_PLANE_M = 0.05


@dataclass(frozen=True, eq=False)
class Boxes3D:
    """Upright boxes in the reference frame (x forward, y left, z up).

    Attributes:
        array_N7: (N, 7) float64, read-only: gravity centre x, y, z; length along the heading,
            width, height, all metres; yaw about +z from +x, radians.

    Raises:
        ValueError: wrong shape, a non-finite value or a negative size.
    """

    array_N7: np.ndarray

    def __post_init__(self) -> None:
        array_N7 = np.array(self.array_N7, dtype=np.float64)
        if array_N7.ndim != 2 or array_N7.shape[1] != 7:
            raise ValueError(f'boxes: expected shape (N, 7), found {array_N7.shape}')
        finite_N = np.isfinite(array_N7).all(axis=1)
        if not finite_N.all():
            row = int(np.argmin(finite_N))
            raise ValueError(f'boxes: expected finite numbers, found {array_N7[row]} in row {row}')
        if (array_N7[:, 3:6] < 0).any():
            row = int(np.argmax((array_N7[:, 3:6] < 0).any(axis=1)))
            raise ValueError(
                f'boxes: expected sizes l, w, h >= 0, found {array_N7[row, 3:6]} in row {row}'
            )
        array_N7.setflags(write=False)
        object.__setattr__(self, 'array_N7', array_N7)

    @classmethod
    def empty(cls) -> 'Boxes3D':
        """No boxes at all."""
        return cls(np.zeros((0, 7)))

    @classmethod
    def from_kitti(
        cls,
        locations_N3: ArrayLike,
        dimensions_hwl_N3: ArrayLike,
        rotations_y_N: ArrayLike,
        T_cam_ref_44: ArrayLike,
    ) -> 'Boxes3D':
        """Boxes of KITTI labels (cmkd-spec B); the yaw ignores any tilt between the frames.

        Args:
            locations_N3: centre of the bottom face, camera frame, metres.
            dimensions_hwl_N3: height, width, length, metres.
            rotations_y_N: heading about the camera's y axis, radians.
            T_cam_ref_44: maps the reference frame to the rectified camera frame.

        Returns:
            Boxes in the reference frame, yaw in [-pi, pi).

        Raises:
            ValueError: shapes do not fit, a non-finite value, or a negative size (drop
                `DontCare` first).
        """
        locations_N3 = np.asarray(locations_N3, dtype=np.float64).reshape(-1, 3)
        dimensions_hwl_N3 = np.asarray(dimensions_hwl_N3, dtype=np.float64).reshape(-1, 3)
        rotations_y_N = np.asarray(rotations_y_N, dtype=np.float64).reshape(-1)
        counts = len(locations_N3), len(dimensions_hwl_N3), len(rotations_y_N)
        if len(set(counts)) != 1:
            raise ValueError(
                f'KITTI boxes: expected as many locations as dimensions and rotations, '
                f'found {counts}'
            )
        centers_N3 = transform_points(invert_se3(T_cam_ref_44), locations_N3)
        centers_N3[:, 2] += dimensions_hwl_N3[:, 0] / 2
        yaws_N = wrap_angle(-rotations_y_N - np.pi / 2)
        return cls(np.column_stack([centers_N3, dimensions_hwl_N3[:, ::-1], yaws_N]))

    def to_kitti(
        self, T_cam_ref_44: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """KITTI label form of the boxes (cmkd-spec B): the inverse of `from_kitti`.

        Args:
            T_cam_ref_44: maps the reference frame to the rectified camera frame.

        Returns:
            locations_N3 (bottom centre, camera frame, metres), dimensions_hwl_N3 (metres),
            rotations_y_N and alphas_N (radians in [-pi, pi)), all float64.
        """
        x_N, y_N = self.array_N7[:, 0], self.array_N7[:, 1]
        bottoms_N3 = self.centers_N3.copy()
        bottoms_N3[:, 2] -= self.array_N7[:, 5] / 2
        rotations_y_N = wrap_angle(-self.yaws_N - np.pi / 2)
        # The official code takes the viewing direction in the LiDAR frame, not in the camera's.
        alphas_N = wrap_angle(rotations_y_N - np.arctan2(-y_N, x_N))
        locations_N3 = transform_points(T_cam_ref_44, bottoms_N3)
        return locations_N3, self.sizes_N3[:, ::-1].copy(), rotations_y_N, alphas_N

    def __len__(self) -> int:
        return len(self.array_N7)

    def __getitem__(self, index: int | slice | ArrayLike) -> 'Boxes3D':
        """Boxes chosen by a mask, an index array, a slice, or one index (which gives one box)."""
        if not isinstance(index, (int, np.integer, slice)):
            index = np.asarray(index)
            index = index.astype(np.int64) if index.size == 0 else index
        return Boxes3D(np.atleast_2d(self.array_N7[index]))

    @property
    def centers_N3(self) -> np.ndarray:
        """Gravity centres, metres."""
        return self.array_N7[:, :3]

    @property
    def sizes_N3(self) -> np.ndarray:
        """Length, width, height, metres."""
        return self.array_N7[:, 3:6]

    @property
    def yaws_N(self) -> np.ndarray:
        """Heading about +z from +x, radians."""
        return self.array_N7[:, 6]

    def corners_N83(self) -> np.ndarray:
        """Corners in the reference frame.

        Returns:
            (N, 8, 3) float64, metres. 0 to 3 are the bottom face: front left, rear left, rear
            right, front right; 4 to 7 the same of the top face.
        """
        offsets_N83 = _CORNER_SIGNS_83 * self.sizes_N3[:, None, :]
        cos_N1, sin_N1 = np.cos(self.yaws_N)[:, None], np.sin(self.yaws_N)[:, None]
        x_N8 = cos_N1 * offsets_N83[..., 0] - sin_N1 * offsets_N83[..., 1]
        y_N8 = sin_N1 * offsets_N83[..., 0] + cos_N1 * offsets_N83[..., 1]
        return np.stack([x_N8, y_N8, offsets_N83[..., 2]], axis=-1) + self.centers_N3[:, None, :]

    def project(
        self, P_px_34: ArrayLike, T_cam_ref_44: ArrayLike, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Image rectangles around the boxes, as the camera sees them.

        A box that reaches behind the camera is cut at a near plane first, so that its rectangle
        stays right; a box wholly in front gets the minimum and maximum of its 8 corners.

        Args:
            P_px_34: projection of the (rectified) camera, pixels.
            T_cam_ref_44: maps the reference frame to the camera frame.
            width: image width, pixels.
            height: image height, pixels.

        Returns:
            boxes_px_N4: x1, y1, x2, y2, clipped to [0, width - 1] x [0, height - 1], float64;
                zeros where not visible.
            visible_N: whether any part lies before the near plane and inside the image.
        """
        corners_N83 = transform_points(T_cam_ref_44, self.corners_N83())
        pixels_N8_3 = _homogeneous_pixels(P_px_34, corners_N83)
        # Homogeneous pixels are linear along an edge, so the cut can be made in them.
        starts, ends = pixels_N8_3[:, _EDGES_12_2[:, 0]], pixels_N8_3[:, _EDGES_12_2[:, 1]]
        crosses_N12 = (starts[..., 2] < _NEAR_PLANE_M) != (ends[..., 2] < _NEAR_PLANE_M)
        span_N12 = np.where(crosses_N12, ends[..., 2] - starts[..., 2], 1.0)
        fraction_N12 = np.where(crosses_N12, (_NEAR_PLANE_M - starts[..., 2]) / span_N12, 0.0)
        cuts_N12_3 = starts + fraction_N12[..., None] * (ends - starts)
        cuts_N12_3[..., 2] = _NEAR_PLANE_M
        points = np.concatenate([pixels_N8_3, cuts_N12_3], axis=1)
        valid = np.concatenate([pixels_N8_3[..., 2] >= _NEAR_PLANE_M, crosses_N12], axis=1)
        uv = points[..., :2] / np.where(valid, points[..., 2], 1.0)[..., None]
        low_N2 = np.where(valid[..., None], uv, np.inf).min(axis=1)
        high_N2 = np.where(valid[..., None], uv, -np.inf).max(axis=1)
        limit_2 = np.array([width - 1.0, height - 1.0])
        visible_N = valid.any(axis=1) & (high_N2 > 0).all(axis=1) & (low_N2 < limit_2).all(axis=1)
        boxes_px_N4 = np.hstack([low_N2, high_N2]).clip(0.0, np.tile(limit_2, 2))
        return np.where(visible_N[:, None], boxes_px_N4, 0.0), visible_N

    def project_as_kitti(
        self, P_px_34: ArrayLike, T_cam_ref_44: ArrayLike, width: int, height: int
    ) -> np.ndarray:
        """Image rectangles as the official code writes them into KITTI result files (cmkd-spec B).

        Differs from `project` in three quirks: the box is set upright in the camera frame (so any
        tilt of the camera is lost), the division is by the rectified z instead of the projective
        depth, and nothing is cut at the camera plane (boxes that reach behind it get nonsense).

        Args:
            P_px_34: projection of the rectified camera, pixels.
            T_cam_ref_44: maps the reference frame to the rectified camera frame.
            width: image width, pixels.
            height: image height, pixels.

        Returns:
            (N, 4) float64: x1, y1, x2, y2 clipped to [0, width - 1] x [0, height - 1].
        """
        locations_N3, dimensions_hwl_N3, rotations_y_N, _ = self.to_kitti(T_cam_ref_44)
        offsets_N83 = _CORNER_SIGNS_83 * self.sizes_N3[:, None, :]
        cos_N1, sin_N1 = np.cos(rotations_y_N)[:, None], np.sin(rotations_y_N)[:, None]
        # Seen in KITTI's camera frame the box's left is -z at rotation 0, and its up is -y.
        forward_N8, left_N8 = offsets_N83[..., 0], offsets_N83[..., 1]
        x_N8 = cos_N1 * forward_N8 + sin_N1 * left_N8
        z_N8 = -sin_N1 * forward_N8 + cos_N1 * left_N8
        y_N8 = -offsets_N83[..., 2] - dimensions_hwl_N3[:, :1] / 2
        corners_N83 = np.stack([x_N8, y_N8, z_N8], axis=-1) + locations_N3[:, None, :]
        uv = _homogeneous_pixels(P_px_34, corners_N83)[..., :2] / corners_N83[..., 2:]
        limit_4 = np.array([width - 1.0, height - 1.0, width - 1.0, height - 1.0])
        return np.hstack([uv.min(axis=1), uv.max(axis=1)]).clip(0.0, limit_4)


def _homogeneous_pixels(P_px_34: ArrayLike, points_cam: np.ndarray) -> np.ndarray:
    P_px_34 = np.asarray(P_px_34, dtype=np.float64)
    if P_px_34.shape != (3, 4):
        raise ValueError(f'P_px_34: expected shape (3, 4), found {P_px_34.shape}')
    return points_cam @ P_px_34[:, :3].T + P_px_34[:, 3]
