"""How far off matched boxes are: depth, heading and size.

Boxes are matched in the image at the official overlap, since a match in BEV would hide exactly
the depth errors that are asked for. Shape letters: M matched pairs.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.kitti_matching import match_at_thresholds, true_positives
from cmkd_ros.evaluation.kitti_split import (
    ALL_DISTANCES,
    DIFFICULTIES,
    DISTANCES,
    MIN_OVERLAP,
    KittiSplit,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MatchedErrors:
    """Errors of the detections of one class that match a label in the image; None without any.

    Args:
        n: number of matched boxes.
        depth_mean_abs, depth_median_abs: of detected minus labelled z of the camera, metres.
        depth_bias: mean of detected minus labelled depth: positive is too far.
        yaw_median_abs_rad: heading difference up to half a turn, in [0, pi/2].
        heading_reversed_percent: share that faces the other way (off by more than pi/2).
        size_mean_abs: height, width, length, metres.
    """

    n: int
    depth_mean_abs: float | None = None
    depth_median_abs: float | None = None
    depth_bias: float | None = None
    yaw_median_abs_rad: float | None = None
    heading_reversed_percent: float | None = None
    size_mean_abs: list[float] | None = None

    def to_json(self) -> dict[str, object]:
        """Return the fields as plain values."""
        return asdict(self)


def matched_errors(split: KittiSplit, class_name: str) -> dict[str, MatchedErrors]:
    """Return the errors for each distance range of the label and for `all`.

    Labels are those of the hard difficulty; every detection takes part, whatever its score.
    """
    hard = len(DIFFICULTIES) - 1
    limit = MIN_OVERLAP['strict'][class_name]['bbox']
    problem = split.problem(class_name, 'bbox', limit, hard)
    matching = match_at_thresholds(problem, np.array([-np.inf]))
    found = true_positives(problem, matching)[:, 0]
    label, detection = matching.labels_G[found], matching.taken_GK[found, 0]
    labels, detections = split.labels.objects, split.detections.objects
    # Detectors of image boxes write sizes of -1 for the 3D box they do not have.
    known = (labels.dimensions_N3[label] > 0).all(axis=1)
    known &= (detections.dimensions_N3[detection] > 0).all(axis=1)
    label, detection = label[known], detection[known]
    depth = detections.locations_N3[detection, 2] - labels.locations_N3[label, 2]
    yaw = detections.rotations_y_N[detection] - labels.rotations_y_N[label]
    size = detections.dimensions_N3[detection] - labels.dimensions_N3[label]
    distance = split.labels.distances[label]
    errors = {}
    for where, (near, far) in {'all': ALL_DISTANCES, **DISTANCES}.items():
        inside = (distance >= near) & (distance < far)
        errors[where] = _summary(depth[inside], yaw[inside], size[inside])
    return errors


def _summary(depth_M: FloatArray, yaw_M: FloatArray, size_M3: FloatArray) -> MatchedErrors:
    if len(depth_M) == 0:
        return MatchedErrors(0)
    turn = np.abs((yaw_M + np.pi) % (2 * np.pi) - np.pi)
    return MatchedErrors(
        n=len(depth_M),
        depth_mean_abs=float(np.abs(depth_M).mean()),
        depth_median_abs=float(np.median(np.abs(depth_M))),
        depth_bias=float(depth_M.mean()),
        yaw_median_abs_rad=float(np.median(np.minimum(turn, np.pi - turn))),
        heading_reversed_percent=float(100.0 * (turn > np.pi / 2).mean()),
        size_mean_abs=np.abs(size_M3).mean(axis=0).tolist(),
    )
