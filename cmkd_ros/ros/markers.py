"""Detections as RViz markers: all boxes in one LINE_LIST, and a caption each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from cmkd_ros.geometry import transform_points

if TYPE_CHECKING:
    from cmkd_ros.detector import Detections

# Pairs of corners (order of `Boxes3D.corners_N83`): bottom, top, uprights, a cross on the front.
_LINES = np.array(
    [
        *([0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4]),
        *([0, 4], [1, 5], [2, 6], [3, 7], [0, 7], [3, 4]),
    ]
).reshape(-1)
ARROW_M = 1.0  # by which the heading arrow leaves the box
_PALETTE = (
    (0.1, 0.8, 0.2),
    (0.95, 0.3, 0.2),
    (0.2, 0.5, 1.0),
    (0.95, 0.75, 0.1),
    (0.7, 0.3, 0.9),
    (0.1, 0.8, 0.8),
)


def detection_markers(
    header: Header, detections: Detections, T_header_ref: np.ndarray, classes: tuple[str, ...]
) -> MarkerArray:
    """Draw detections in the frame of `header`.

    Args:
        header: of the image.
        detections: in the reference frame.
        T_header_ref: (4, 4), maps the reference frame to the header's frame.
        classes: all class names; a class keeps its colour.

    Returns:
        DELETEALL, which clears the picture of the image before, then the boxes and captions.
    """
    clear = Marker(header=header, action=Marker.DELETEALL)
    if not len(detections):
        return MarkerArray(markers=[clear])
    colours = [
        ColorRGBA(r=r, g=g, b=b, a=1.0)
        for r, g, b in (
            _PALETTE[classes.index(name) % len(_PALETTE)] for name in detections.class_names
        )
    ]
    corners_N83 = transform_points(T_header_ref, detections.boxes.corners_N83())
    boxes = Marker(header=header, ns='boxes', type=Marker.LINE_LIST, action=Marker.ADD)
    boxes.pose.orientation.w = 1.0
    boxes.scale.x = 0.05
    lines_NK3 = np.concatenate([corners_N83[:, _LINES], _arrows_N63(corners_N83)], axis=1)
    boxes.points = [Point(x=x, y=y, z=z) for x, y, z in lines_NK3.reshape(-1, 3).tolist()]
    boxes.colors = [colour for colour in colours for _ in range(lines_NK3.shape[1])]
    tops_N3 = corners_N83[:, 4:].mean(axis=1).tolist()
    captions = zip(detections.class_names, detections.scores_N.tolist(), strict=True)
    texts = [
        _caption(header, i, f'{name} {score:.2f}', tops_N3[i], colours[i])
        for i, (name, score) in enumerate(captions)
    ]
    return MarkerArray(markers=[clear, boxes, *texts])


def _arrows_N63(corners_N83: np.ndarray) -> np.ndarray:
    """Pairs of points: from the middle of the floor to before the front, and two barbs."""
    front, back = corners_N83[:, [0, 3]].mean(axis=1), corners_N83[:, [1, 2]].mean(axis=1)
    ahead = front - back
    tip = front + ahead * (ARROW_M / np.maximum(np.linalg.norm(ahead, axis=1), 1e-6))[:, None]
    left, right = corners_N83[:, 0], corners_N83[:, 3]
    barbs = [front + (corner - front) * 0.5 for corner in (left, right)]
    return np.stack([(front + back) / 2, tip, tip, barbs[0], tip, barbs[1]], axis=1)


def _caption(
    header: Header, index: int, text: str, position: list[float], colour: ColorRGBA
) -> Marker:
    marker = Marker(header=header, ns='captions', id=index, type=Marker.TEXT_VIEW_FACING)
    marker.text, marker.color = text, colour
    marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = position
    marker.pose.orientation.w = 1.0
    marker.scale.z = 0.5
    return marker
