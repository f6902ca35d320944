"""Between the reference frame and the pixels of a KITTI image, in float32 as the official code.

Letters: N points. Frames: ref (FLU at the LiDAR), cam (optical, rectified). The training data
must agree with the official code to the point (which of them lie inside the image decides which
voxels exist), so these functions work in float32 and keep its conventions. Source: cmkd-spec B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def ref_to_image(
    points_N3: Float32, ref_to_cam_44: Float32, cam_to_img_34: Float32
) -> tuple[Float32, Float32]:
    """Project points of the reference frame into the image.

    Args:
        points_N3: float32 x, y, z in ref (further columns are not allowed).
        ref_to_cam_44: float32 transform from ref to the rectified camera.
        cam_to_img_34: float32 projection, pixels.

    Returns:
        pixels_N2: float32 (u, v), divided by the rectified z and not by the projective w
            (quirk kept: P[2, 3] is not zero for KITTI's camera 2).
        depths_N: float32 distance along the optical axis, metres; negative behind the camera.
    """
    camera_N3 = _homogeneous(points_N3) @ ref_to_cam_44[:3].T
    projected_N3 = _homogeneous(camera_N3) @ cam_to_img_34.T
    with np.errstate(divide='ignore', invalid='ignore'):
        pixels_N2 = projected_N3[:, :2] / camera_N3[:, 2:3]
    return pixels_N2, projected_N3[:, 2] - cam_to_img_34[2, 3]


def image_to_ref(
    pixels_N2: Float32, depths_N: Float32, ref_to_cam_44: Float32, cam_to_img_34: Float32
) -> Float32:
    """Lift pixels with a known depth to (N, 3) float32 points in ref; undoes `ref_to_image`."""
    focal_2 = cam_to_img_34[[0, 1], [0, 1]]
    centre_2 = cam_to_img_34[:2, 2]
    shift_2 = -cam_to_img_34[:2, 3] / focal_2
    camera_N2 = (pixels_N2 - centre_2) * depths_N[:, None] / focal_2 + shift_2
    camera_N3 = np.concatenate([camera_N2, depths_N[:, None]], axis=1)
    cam_to_ref_44 = np.linalg.inv(ref_to_cam_44)
    return (_homogeneous(camera_N3) @ cam_to_ref_44[:3].T).astype(np.float32)


def inside_image(
    pixels_N2: Float32, depths_N: Float32, image_size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Mask (N,) of projections inside [0, width) x [0, height) and not behind the camera.

    Args:
        pixels_N2, depths_N: from `ref_to_image`.
        image_size: (height, width) in pixels.
    """
    height, width = image_size
    u_N, v_N = pixels_N2[:, 0], pixels_N2[:, 1]
    return (u_N >= 0) & (u_N < width) & (v_N >= 0) & (v_N < height) & (depths_N >= 0)


def sparse_depth(pixels_N2: Float32, depths_N: Float32, image_size: tuple[int, int]) -> Float32:
    """Depth picture of the LiDAR itself: per pixel the nearest point that falls into it.

    Args:
        pixels_N2, depths_N: points inside the image (`inside_image`).
        image_size: (height, width) in pixels.

    Returns:
        (height, width) float32 metres in KITTI's steps of 1/256 m, 0 where no point fell; a point
        nearer than 1/512 m rounds to 'unknown'. Source: cmkd-spec K3.
    """
    height, width = image_size
    columns_N, rows_N = np.floor(pixels_N2).astype(np.int64).T
    depth_HW = np.full(height * width, np.inf, dtype=np.float32)
    np.minimum.at(depth_HW, rows_N * width + columns_N, depths_N)
    depth_HW[np.isinf(depth_HW)] = 0
    return (np.round(depth_HW * 256) / 256).astype(np.float32).reshape(height, width)


def _homogeneous(points_N3: Float32) -> Float32:
    return np.concatenate([points_N3, np.ones((len(points_N3), 1), dtype=np.float32)], axis=1)
