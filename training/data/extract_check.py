"""The points of a scan over its picture: the look that tells whether camera and LiDAR fit.

Letters: H W image rows and columns, N points. Frames: ref, cam.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.visualize import write_png
from cmkd_ros.kitti_files import KittiCalibration, read_calibration
from cmkd_ros.training.data.image_space import inside_image, ref_to_image
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.scan import read_scan

_NEAR_M, _FAR_M = 2.0, 60.0  # the ends of the colours
_WIDTH_OF_RADIUS_PX = 1000  # so wide a picture for each pixel of a dot's radius


def seen_points(
    points_N4: NDArray[np.float32], calibration: KittiCalibration, image_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The points that fall into the picture.

    Args:
        points_N4: in ref.
        calibration: of the frame.
        image_size: (height, width) in pixels.

    Returns:
        (N, 2) pixels (u, v) and (N,) metres along the optical axis, of those points only.
    """
    pixels_N2, depths_N = ref_to_image(
        points_N4[:, :3],
        calibration.T_cam_ref.astype(np.float32),
        calibration.P2_34.astype(np.float32),
    )
    seen_N = inside_image(pixels_N2, depths_N, image_size)
    return pixels_N2[seen_N], depths_N[seen_N]


def draw_scan(
    image_HW3: NDArray[np.uint8], points_N4: NDArray[np.float32], calibration: KittiCalibration
) -> NDArray[np.uint8]:
    """Draw points over a picture, red near and blue far.

    Args:
        image_HW3: rectified, RGB.
        points_N4: in ref.
        calibration: of these two.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    pixels_N2, depths_N = seen_points(points_N4, calibration, image_HW3.shape[:2])
    if not len(depths_N):
        return image_HW3.copy()
    nearness_N = np.log(np.clip(depths_N, _NEAR_M, _FAR_M) / _FAR_M) / np.log(_NEAR_M / _FAR_M)
    shades_N1 = np.round(255 * nearness_N).astype(np.uint8)[:, None]
    colours_N3 = cv2.applyColorMap(shades_N1, cv2.COLORMAP_TURBO)[:, 0, ::-1]
    picture_HW3 = image_HW3.copy()
    radius_px = max(1, round(image_HW3.shape[1] / _WIDTH_OF_RADIUS_PX))
    for index in np.argsort(-depths_N):  # the near ones cover the far ones
        centre_2 = tuple(int(value) for value in pixels_N2[index])
        colour_3 = tuple(int(value) for value in colours_N3[index])
        cv2.circle(picture_HW3, centre_2, radius_px, colour_3, -1)
    return picture_HW3


def write_check(folder: KittiFolder, frame: str, path: Path) -> None:
    """Draw the scan of a frame over its picture.

    Args:
        folder: where the frame lies.
        frame: its name.
        path: PNG to write; its folder is made.

    Raises:
        OSError, ValueError: a file of the frame cannot be read, or the picture not written.
    """
    path.parent.mkdir(exist_ok=True)
    picture_HW3 = draw_scan(
        read_png_rgb(folder.image(frame)),
        read_scan(folder.scan(frame)),
        read_calibration(folder.calib(frame)),
    )
    write_png(path, picture_HW3)
