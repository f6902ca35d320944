"""Overlaps of KITTI boxes pair by pair, float64: image, bird's eye view (BEV) and 3D.

Shape letters: P pairs. Boxes are compared in the camera frame (BEV: its x-z plane).
"""

import numpy as np
import torch
from numpy.typing import NDArray

from cmkd_ros.geometry.overlap import rotated_intersection_bev_paired
from cmkd_ros.kitti_files import KittiObjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def image_iou(a_P4: FloatArray, b_P4: FloatArray, over_second: bool = False) -> FloatArray:
    """Overlap (P,) of image boxes (x1, y1, x2, y2), their borders taken as continuous positions.

    Args:
        over_second: divide the intersection by the area of `b` instead of the union.
    """
    width = np.minimum(a_P4[:, 2], b_P4[:, 2]) - np.maximum(a_P4[:, 0], b_P4[:, 0])
    height = np.minimum(a_P4[:, 3], b_P4[:, 3]) - np.maximum(a_P4[:, 1], b_P4[:, 1])
    intersection = np.where((width > 0) & (height > 0), width * height, 0.0)
    area_a = (a_P4[:, 2] - a_P4[:, 0]) * (a_P4[:, 3] - a_P4[:, 1])
    area_b = (b_P4[:, 2] - b_P4[:, 0]) * (b_P4[:, 3] - b_P4[:, 1])
    return _ratio(intersection, area_b if over_second else area_a + area_b - intersection)


def bev_far_apart(
    first: KittiObjects, i_P: IntArray, second: KittiObjects, j_P: IntArray
) -> NDArray[np.bool_]:
    """Return (P,) whether the circles around two footprints do not touch."""
    offset = first.locations_N3[i_P][:, [0, 2]] - second.locations_N3[j_P][:, [0, 2]]
    radius_a = np.hypot(first.dimensions_N3[i_P, 1], first.dimensions_N3[i_P, 2]) / 2
    radius_b = np.hypot(second.dimensions_N3[j_P, 1], second.dimensions_N3[j_P, 2]) / 2
    return np.hypot(offset[:, 0], offset[:, 1]) >= radius_a + radius_b


def bev_and_3d_iou(
    first: KittiObjects, i_P: IntArray, second: KittiObjects, j_P: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the BEV and the 3D IoU, (P,) each, of objects `first[i]` and `second[j]`."""
    location_a, location_b = first.locations_N3[i_P], second.locations_N3[j_P]
    height_a, width_a, length_a = first.dimensions_N3[i_P].T
    height_b, width_b, length_b = second.dimensions_N3[j_P].T
    footprints = _footprint(first, i_P), _footprint(second, j_P)
    area = rotated_intersection_bev_paired(
        *(torch.from_numpy(boxes) for boxes in footprints)
    ).numpy()
    bev = _ratio(area, length_a * width_a + length_b * width_b - area)
    # y points down and is the bottom of the box.
    bottom = np.minimum(location_a[:, 1], location_b[:, 1])
    top = np.maximum(location_a[:, 1] - height_a, location_b[:, 1] - height_b)
    volume = area * np.maximum(bottom - top, 0.0)
    volume_a, volume_b = height_a * width_a * length_a, height_b * width_b * length_b
    return bev, _ratio(volume, volume_a + volume_b - volume)


def _footprint(objects: KittiObjects, index_P: IntArray) -> FloatArray:
    """Boxes (P, 7) whose x-y plane is the camera's x-z plane.

    In that plane the rotation about y, which points down, turns the other way round. Sizes of -1
    (unknown) stand for a square of 1 m at -1000 m, as the official evaluator draws them.
    """
    boxes = np.zeros((len(index_P), 7))
    boxes[:, :2] = objects.locations_N3[index_P][:, [0, 2]]
    boxes[:, 3] = np.abs(objects.dimensions_N3[index_P, 2])
    boxes[:, 4] = np.abs(objects.dimensions_N3[index_P, 1])
    boxes[:, 5] = 1.0
    boxes[:, 6] = -objects.rotations_y_N[index_P]
    return boxes


def _ratio(part_P: FloatArray, whole_P: FloatArray) -> FloatArray:
    """Quotient that is 0 where there is nothing: boxes without area overlap nothing."""
    return np.divide(part_P, whole_P, out=np.zeros_like(part_P), where=(part_P > 0) & (whole_P > 0))
