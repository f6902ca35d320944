"""Detections as KITTI results: camera-frame boxes with projected, clipped image rectangles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmkd_ros.geometry import Boxes3D, CameraModel
from cmkd_ros.kitti_files import KittiObjects


def to_kitti_results(
    boxes: Boxes3D,
    scores_N: np.ndarray,
    class_names: Sequence[str],
    camera: CameraModel,
    T_cam_ref: np.ndarray,
) -> KittiObjects:
    """KITTI result lines of one frame; boxes that the camera cannot see are dropped.

    Args:
        boxes: N boxes in the reference frame.
        scores_N: confidences.
        class_names: one name per box.
        camera: the rectified camera whose pixels the 2D boxes are in.
        T_cam_ref: (4, 4), maps the reference frame to the camera frame.

    Returns:
        Objects with scores, in the given order.
    """
    rectangles_N4, visible_N = boxes.project(
        camera.projection_px_34, T_cam_ref, camera.width, camera.height
    )
    locations_N3, dimensions_hwl_N3, rotations_y_N, alphas_N = boxes.to_kitti(T_cam_ref)
    n = len(boxes)
    objects = KittiObjects(
        names=tuple(class_names),
        truncated_N=np.full(n, -1.0),
        occluded_N=np.full(n, -1),
        alphas_N=alphas_N,
        boxes_px_N4=rectangles_N4,
        dimensions_N3=dimensions_hwl_N3,
        locations_N3=locations_N3,
        rotations_y_N=rotations_y_N,
        scores_N=np.asarray(scores_N, np.float64),
    )
    return objects.select(visible_N)
