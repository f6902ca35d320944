"""Detections -> `vision_msgs/Detection3DArray` in the camera's frame, and back.

Building messages is what a Python node spends most of its own time on, so they are built once and
only their numbers are rewritten. Publishing serialises at once, which makes that safe.
Letters: N detections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from std_msgs.msg import Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from cmkd_ros.geometry import (
    Boxes3D,
    invert_se3,
    matrix_to_quaternion,
    quaternion_to_matrix,
    transform_points,
    yaw_to_quaternion,
)

if TYPE_CHECKING:
    from cmkd_ros.detector import Detections


def orientations_N4(R_header_ref: np.ndarray, yaws_N: np.ndarray) -> np.ndarray:
    """Quaternions (x, y, z, w) of R(header<-ref) * Rz(yaw): from a box's own axes to the header
    frame."""
    x1, y1, z1, w1 = matrix_to_quaternion(R_header_ref)
    _, _, z2, w2 = yaw_to_quaternion(yaws_N).T
    return np.stack(
        [x1 * w2 + y1 * z2, y1 * w2 - x1 * z2, z1 * w2 + w1 * z2, w1 * w2 - z1 * z2], axis=-1
    )


class DetectionArrayPool:
    """One `Detection3DArray` whose parts are reused from image to image."""

    def __init__(self) -> None:
        self._array = Detection3DArray()
        self._detections: list[Detection3D] = []
        self._parts: list[tuple] = []

    def fill(
        self, header: Header, detections: Detections, T_header_ref: np.ndarray
    ) -> Detection3DArray:
        """Express detections in the frame of `header`.

        Args:
            header: of the image; shared, not copied.
            detections: in the reference frame.
            T_header_ref: (4, 4), maps the reference frame to the header's frame.

        Returns:
            The message; valid until the next call. Covariances are zero: unknown.

        Raises:
            ValueError: a number that is not finite; nothing of it may reach a robot.
        """
        boxes = detections.boxes
        numbers = np.column_stack(
            [
                transform_points(T_header_ref, boxes.centers_N3),
                orientations_N4(T_header_ref[:3, :3], boxes.yaws_N),
                boxes.sizes_N3,
                np.clip(detections.scores_N, 0.0, 1.0),
            ]
        )
        if not np.isfinite(numbers).all():
            raise ValueError('the network put out a box or score that is not a finite number')
        self._grow(len(detections))
        rows = zip(self._parts, numbers.tolist(), detections.class_names, strict=False)
        for (detection, position, orientation, size, hypothesis), row, name in rows:
            detection.header = header
            position.x, position.y, position.z = row[0:3]
            orientation.x, orientation.y, orientation.z, orientation.w = row[3:7]
            size.x, size.y, size.z = row[7:10]
            hypothesis.class_id, hypothesis.score = name, row[10]
        self._array.header = header
        self._array.detections = self._detections[: len(detections)]
        return self._array

    def _grow(self, count: int) -> None:
        while len(self._detections) < count:
            detection, result = Detection3D(), ObjectHypothesisWithPose()
            center = detection.bbox.center
            result.pose.pose = center  # one Pose, seen from both places
            detection.results = [result]
            self._detections.append(detection)
            self._parts.append(
                (
                    detection,
                    center.position,
                    center.orientation,
                    detection.bbox.size,
                    result.hypothesis,
                )
            )


def detections_from_message(message: Detection3DArray, T_header_ref: np.ndarray) -> Detections:
    """Express a message's detections in the reference frame again.

    Args:
        message: as `DetectionArrayPool.fill` makes it, every detection with exactly one result.
        T_header_ref: (4, 4), maps the reference frame to the message's frame.

    Raises:
        ValueError: a detection without exactly one result, or numbers that are no box.
    """
    from cmkd_ros.detector import Detections

    T_ref_header = invert_se3(T_header_ref)
    rows, scores, names = [], [], []
    for index, detection in enumerate(message.detections):
        if len(detection.results) != 1:
            raise ValueError(
                f'detection {index}: expected one result, found {len(detection.results)}'
            )
        p, q = detection.bbox.center.position, detection.bbox.center.orientation
        size, hypothesis = detection.bbox.size, detection.results[0].hypothesis
        R_ref_box = T_ref_header[:3, :3] @ quaternion_to_matrix([q.x, q.y, q.z, q.w])
        center = transform_points(T_ref_header, np.array([[p.x, p.y, p.z]]))[0]
        yaw = np.arctan2(R_ref_box[1, 0], R_ref_box[0, 0])
        rows.append([*center, size.x, size.y, size.z, yaw])
        scores.append(hypothesis.score)
        names.append(hypothesis.class_id)
    return Detections(
        Boxes3D(np.array(rows, dtype=np.float64).reshape(-1, 7)),
        np.array(scores, dtype=np.float64),
        tuple(names),
    )
