"""How pixel coordinates move when an image is resized, cropped, or read out in part.

Each map is a (3, 3) float64 matrix on homogeneous pixels (u, v, 1): multiplied from the left onto
K and P it gives those of the new image. Pixel centres have integer coordinates.
"""

import numpy as np


def resize_map(old_size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """Map of a resize, u to (u + 0.5) s - 0.5 with s = new / old, as cv2.resize does it.

    Args:
        old_size: (width, height) before, pixels.
        new_size: (width, height) after, pixels.

    Returns:
        (3, 3) float64.

    Raises:
        ValueError: a new size that is not positive.
    """
    if min(new_size) <= 0:
        raise ValueError(f'resize: expected a positive width and height, found {tuple(new_size)}')
    x, y = new_size[0] / old_size[0], new_size[1] / old_size[1]
    return np.array([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])


def crop_map(x: int, y: int) -> np.ndarray:
    """Map of a crop whose upper left pixel is (x, y): (3, 3) float64."""
    return np.array([[1.0, 0.0, -x], [0.0, 1.0, -y], [0.0, 0.0, 1.0]])


def sensor_to_image_map(
    width: int, height: int, roi: tuple[int, int, int, int, bool], binning: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Map from full-sensor pixels to those of the published image (sensor_msgs/CameraInfo).

    Args:
        width: full sensor width, pixels.
        height: full sensor height, pixels.
        roi: x_offset, y_offset, width, height (full-sensor pixels), do_rectify; all zero = full.
        binning: binning_x, binning_y; 0 means 1.

    Returns:
        (3, 3) float64, and (width, height) of the image, pixels.

    Raises:
        ValueError: no sensor size, a window beyond the sensor, or a binning that leaves no pixel.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f'camera_info: expected width, height > 0, found {width} x {height}')
    x, y, roi_width, roi_height, _ = roi
    if (x, y, roi_width, roi_height) == (0, 0, 0, 0):
        roi_width, roi_height = width, height
    if not (0 <= x < x + roi_width <= width and 0 <= y < y + roi_height <= height):
        raise ValueError(
            f'camera_info: roi x_offset, y_offset, width, height = {tuple(roi[:4])} is no window '
            f'of the sensor of {width} x {height}'
        )
    bin_x, bin_y = max(binning[0], 1), max(binning[1], 1)
    if min(binning) < 0 or bin_x > roi_width or bin_y > roi_height:
        raise ValueError(
            f'camera_info: expected binning from 0 to the image size {roi_width} x {roi_height}, '
            f'found {tuple(binning)}'
        )
    # By the factor itself, not by the sizes: a last, incomplete bin is dropped, not squeezed in.
    pixels_33 = resize_map((bin_x, bin_y), (1, 1)) @ crop_map(x, y)
    return pixels_33, (roi_width // bin_x, roi_height // bin_y)
