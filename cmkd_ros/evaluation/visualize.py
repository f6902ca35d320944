"""Pictures of 3D boxes: wires over the camera image and a view from above.

Letters: H, W image rows, columns; N boxes; S line segments. Images are uint8 RGB.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.camera import CameraModel
from cmkd_ros.geometry.frames import transform_points

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

CLASS_COLOURS: dict[str, Colour] = {
    'car': (255, 140, 0),
    'pedestrian': (0, 200, 255),
    'cyclist': (255, 80, 200),
}
OTHER_COLOUR: Colour = (180, 220, 60)
TRUTH_COLOUR: Colour = (60, 200, 90)
# Corner pairs of `Boxes3D.corners_N83`: the twelve edges and the cross on the front face.
_SEGMENTS_S2 = np.array(
    [[0, 1], [1, 2], [2, 3], [3, 0], [4, 5], [5, 6], [6, 7], [7, 4]]
    + [[0, 4], [1, 5], [2, 6], [3, 7], [0, 7], [3, 4]]
)
# What is nearer than this to the camera plane is cut off before the division.
_NEAR_M = 0.1
# OpenCV takes points as integers with this many binary digits behind the point.
_SHIFT = 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_boxes(
    image_HW3: Image,
    boxes: Boxes3D,
    camera: CameraModel,
    T_cam_ref: NDArray[np.float64],
    labels: Sequence[str] | None = None,
    colours: Sequence[Colour] | None = None,
) -> Image:
    """Draw boxes as wires, the front face crossed out, near ones over far ones.

    Args:
        image_HW3: uint8 RGB, rectified pixels of the camera.
        boxes: N boxes in the reference frame.
        camera: the camera of the image.
        T_cam_ref: (4, 4), maps the reference frame to the (rectified) camera frame.
        labels: N captions; the first word, a class name, chooses the colour.
        colours: N colours instead of those of the classes.

    Returns:
        A copy of the image with the boxes.

    Raises:
        ValueError: no uint8 (H, W, 3) image, or not one caption or colour per box.
    """
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or image_HW3.dtype != np.uint8:
        raise ValueError(
            f'image: expected uint8 (H, W, 3), found {image_HW3.dtype} {image_HW3.shape}'
        )
    for name, given in (('labels', labels), ('colours', colours)):
        if given is not None and len(given) != len(boxes):
            raise ValueError(f'{name}: expected {len(boxes)}, one per box, found {len(given)}')
    if colours is None:
        colours = [class_colour(label) for label in labels or [''] * len(boxes)]
    canvas = np.ascontiguousarray(image_HW3).copy()
    ends_NS22, visible_NS = _project_segments(boxes, camera.projection_px_34, T_cam_ref)
    points_NS22 = np.round(ends_NS22 * (1 << _SHIFT)).astype(np.int32)
    depths = transform_points(T_cam_ref, boxes.centers_N3)[:, 2]
    for i in np.argsort(-depths):
        segments = points_NS22[i, visible_NS[i]]
        if len(segments) == 0:
            continue
        cv2.polylines(canvas, list(segments), False, colours[i], 1, cv2.LINE_AA, _SHIFT)
        if labels is not None and labels[i]:
            _caption(canvas, labels[i], ends_NS22[i, visible_NS[i]].reshape(-1, 2), colours[i])
    return canvas


def plot_bev(
    path: str | os.PathLike[str] | None,
    detections: Boxes3D,
    truth: Boxes3D | None = None,
    points_N4: NDArray[np.floating] | None = None,
    range_m: tuple[float, float, float, float] = (0.0, -40.0, 70.4, 40.0),
    detection_colours: Sequence[Colour] | None = None,
) -> Image:
    """Draw boxes from above: x (forward) up, y left, a mark from the centre through the front.

    Args:
        path: PNG to write; None writes nothing.
        detections: boxes in the reference frame.
        truth: labels, drawn in green below the detections.
        points_N4: LiDAR points in the reference frame, at least x, y, z; lighter is higher.
        range_m: x_min, y_min, x_max, y_max to show.
        detection_colours: one per detection; orange by default.

    Returns:
        The picture, 10 pixels per metre.

    Raises:
        ValueError: a range without area, or not one colour per detection.
        OSError: the file cannot be written.
    """
    x_min, y_min, x_max, y_max = range_m
    if not (x_min < x_max and y_min < y_max):
        raise ValueError(f'range_m: expected x_min, y_min below x_max, y_max, found {range_m}')
    if detection_colours is None:
        detection_colours = [CLASS_COLOURS['car']] * len(detections)
    if len(detection_colours) != len(detections):
        raise ValueError(
            f'detection_colours: expected {len(detections)}, one per box, '
            f'found {len(detection_colours)}'
        )
    view = _View(x_max, y_max, 10.0)
    canvas = np.full((*view.shape(x_min, y_min), 3), 24, np.uint8)
    if points_N4 is not None:
        view.draw_points(canvas, points_N4)
    view.draw_rings(canvas)
    if truth is not None:
        view.draw_boxes(canvas, truth, [TRUTH_COLOUR] * len(truth), 2)
    view.draw_boxes(canvas, detections, detection_colours, 1)
    legend = [(f'{len(detections)} detections', CLASS_COLOURS['car'])]
    legend += [(f'{len(truth)} labels', TRUTH_COLOUR)] if truth is not None else []
    for line, (text, colour) in enumerate(legend):
        cv2.putText(canvas, text, (10, 22 + 20 * line), _FONT, 0.5, colour, 1, cv2.LINE_AA)
    if path is not None:
        write_png(path, canvas)
    return canvas


def write_png(path: str | os.PathLike[str], image_HW3: Image) -> None:
    """Write an RGB picture, whole or not at all."""
    _, content = cv2.imencode('.png', cv2.cvtColor(image_HW3, cv2.COLOR_RGB2BGR))
    write_bytes_atomically(Path(path), content.tobytes())


def class_colour(label: str) -> Colour:
    """Return the colour of the class that is the first word of a caption."""
    words = label.lower().split()
    return CLASS_COLOURS.get(words[0], OTHER_COLOUR) if words else OTHER_COLOUR


def _project_segments(
    boxes: Boxes3D, P_px_34: NDArray[np.float64], T_cam_ref: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Pixels (N, S, 2 ends, 2) of the segments, cut at the near plane, and (N, S) visibility."""
    corners_N83 = transform_points(T_cam_ref, boxes.corners_N83())
    homogeneous_N83 = corners_N83 @ P_px_34[:, :3].T + P_px_34[:, 3]
    start, end = homogeneous_N83[:, _SEGMENTS_S2[:, 0]], homogeneous_N83[:, _SEGMENTS_S2[:, 1]]
    visible_NS = (start[..., 2] > _NEAR_M) | (end[..., 2] > _NEAR_M)
    ends = []
    for here, there in ((start, end), (end, start)):
        rise = there[..., 2] - here[..., 2]
        behind = (here[..., 2] < _NEAR_M) & visible_NS
        share = np.divide(_NEAR_M - here[..., 2], rise, out=np.zeros_like(rise), where=behind)
        cut = here + share[..., None] * (there - here)
        ends.append(cut[..., :2] / np.maximum(cut[..., 2:], _NEAR_M))
    # Far beyond any image, yet small enough for the integers of OpenCV.
    return np.clip(np.stack(ends, axis=2), -1e6, 1e6), visible_NS


def _caption(canvas: Image, text: str, pixels_K2: NDArray[np.float64], colour: Colour) -> None:
    height, width = canvas.shape[:2]
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, 0.4, 1)
    left, top = pixels_K2.min(axis=0)
    right, bottom = pixels_K2.max(axis=0)
    if right < 0 or left > width or bottom < 0 or top > height:
        return
    x = int(np.clip(left, 0, max(width - text_width, 0)))
    y = int(np.clip(top - 3, text_height + 1, height - 2))
    cv2.putText(canvas, text, (x, y), _FONT, 0.4, (0, 0, 0), 2)
    cv2.putText(canvas, text, (x, y), _FONT, 0.4, colour, 1, cv2.LINE_AA)


class _View:
    """Reference frame seen from above: metres to pixels."""

    def __init__(self, x_max: float, y_max: float, px_per_m: float) -> None:
        self._corner = np.array([y_max, x_max])
        self._px_per_m = px_per_m

    def shape(self, x_min: float, y_min: float) -> tuple[int, int]:
        width, height = (self._corner - [y_min, x_min]) * self._px_per_m
        return int(np.ceil(height)), int(np.ceil(width))

    def pixels(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """Positions (..., 2) of points (..., x y)."""
        return (self._corner - xy[..., ::-1]) * self._px_per_m

    def draw_points(self, canvas: Image, points_N4: NDArray[np.floating]) -> None:
        column_row = np.floor(self.pixels(points_N4[:, :2])).astype(np.int64)
        inside = (column_row >= 0).all(axis=1) & (column_row < canvas.shape[1::-1]).all(axis=1)
        grey = np.clip(130 + 40 * points_N4[inside, 2], 70, 230).astype(np.uint8)
        column, row = column_row[inside].T
        canvas[row, column] = grey[:, None]

    def draw_rings(self, canvas: Image) -> None:
        x, y = (int(v) for v in self.pixels(np.zeros(2)))
        for metres in range(20, 140, 20):
            radius = int(metres * self._px_per_m)
            cv2.circle(canvas, (x, y), radius, (70, 70, 70), 1, cv2.LINE_AA)
            place = (x + 4, y - radius - 4)
            cv2.putText(canvas, f'{metres} m', place, _FONT, 0.4, (130, 130, 130), 1, cv2.LINE_AA)

    def draw_boxes(
        self, canvas: Image, boxes: Boxes3D, colours: Sequence[Colour], thickness: int
    ) -> None:
        corners = self.pixels(boxes.corners_N83()[:, :4, :2])
        front = (corners[:, 0] + corners[:, 3]) / 2
        center = self.pixels(boxes.centers_N3[:, :2])
        marks = np.stack([center, center + 1.3 * (front - center)], axis=1)
        for outline, mark, colour in zip(corners, marks, colours, strict=True):
            for line, closed in ((outline, True), (mark, False)):
                points = np.round(np.clip(line, -1e6, 1e6) * (1 << _SHIFT)).astype(np.int32)
                cv2.polylines(canvas, [points], closed, colour, thickness, cv2.LINE_AA, _SHIFT)
