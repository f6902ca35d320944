"""The rules of the KITTI object benchmark that say which labels and detections count.

Shape letters: L labels, D detections of all frames.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.kitti_matching import ABSENT, IGNORED, VALID, Problem, make_problem
from cmkd_ros.evaluation.kitti_objects import (
    NEIGHBOURS,
    FlatObjects,
    candidate_pairs,
    covered_by_dontcare,
)
from cmkd_ros.kitti_files import KittiObjects

CLASSES = ('Car', 'Pedestrian', 'Cyclist')
DIFFICULTIES = ('easy', 'moderate', 'hard')
MIN_HEIGHT_PX = (40.0, 25.0, 25.0)
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.30, 0.50)
# Strict is the official setting. Loose is the "Car@0.5" of the literature.
MIN_OVERLAP: dict[str, dict[str, dict[str, float]]] = {
    'strict': {
        'Car': {'bbox': 0.7, 'bev': 0.7, '3d': 0.7},
        'Pedestrian': {'bbox': 0.5, 'bev': 0.5, '3d': 0.5},
        'Cyclist': {'bbox': 0.5, 'bev': 0.5, '3d': 0.5},
    },
    'loose': {
        'Car': {'bbox': 0.7, 'bev': 0.5, '3d': 0.5},
        'Pedestrian': {'bbox': 0.5, 'bev': 0.25, '3d': 0.25},
        'Cyclist': {'bbox': 0.5, 'bev': 0.25, '3d': 0.25},
    },
}
# Metres on the ground from the camera; the far end belongs to the next range.
DISTANCES: dict[str, tuple[float, float]] = {
    '0-20': (0.0, 20.0),
    '20-40': (20.0, 40.0),
    '40+': (40.0, np.inf),
}
ALL_DISTANCES = (0.0, np.inf)
_ALPHA_UNKNOWN = -10.0


class KittiSplit:
    """Labels and detections of a split with their overlaps, which all evaluations share.

    Args:
        labels, results: one `KittiObjects` a frame, in the same order.

    Raises:
        ValueError: when the numbers of frames differ or results carry no scores.
    """

    def __init__(self, labels: Sequence[KittiObjects], results: Sequence[KittiObjects]) -> None:
        if len(labels) != len(results):
            raise ValueError(
                f'expected labels and results of the same frames, found {len(labels)} frames of '
                f'labels and {len(results)} of results'
            )
        self.n_frames = len(labels)
        self.labels = FlatObjects.from_frames(labels, scored=False)
        self.detections = FlatObjects.from_frames(results, scored=True)
        self.pairs = candidate_pairs(self.labels, self.detections, small_px=max(MIN_HEIGHT_PX))
        self.dontcare_share_D = covered_by_dontcare(self.labels, self.detections)

    @property
    def orientations_known(self) -> bool:
        """False when any detection of any class has no observation angle."""
        return not bool((self.detections.objects.alphas_N == _ALPHA_UNKNOWN).any())

    def is_detected(self, class_name: str) -> bool:
        """Return whether the results hold any line of the class."""
        return bool((self.detections.names == class_name.lower()).any())

    def n_gt(
        self, class_name: str, difficulty: int, distance: tuple[float, float] = ALL_DISTANCES
    ) -> int:
        """Return the number of labels that count."""
        return int((self.label_flags(class_name, difficulty, distance) == VALID).sum())

    def label_flags(
        self, class_name: str, difficulty: int, distance: tuple[float, float] = ALL_DISTANCES
    ) -> NDArray[np.int8]:
        """Return (L,) VALID, IGNORED (hard to see, neighbours, out of range) or ABSENT."""
        objects, names = self.labels.objects, self.labels.names
        same = names == class_name.lower()
        neighbour = names == (NEIGHBOURS[class_name.lower()] or '')
        hard_to_see = (
            (objects.occluded_N > MAX_OCCLUSION[difficulty])
            | (objects.truncated_N > MAX_TRUNCATION[difficulty])
            | (self.labels.heights_px <= MIN_HEIGHT_PX[difficulty])
        )
        ignored = neighbour | (same & (hard_to_see | ~_within(self.labels, distance)))
        return np.select([ignored, same], [IGNORED, VALID], ABSENT).astype(np.int8)

    def detection_flags(self, class_name: str, difficulty: int) -> NDArray[np.int8]:
        """Return (D,) IGNORED (too small, of any class), VALID or ABSENT."""
        small = np.abs(self.detections.heights_px) < MIN_HEIGHT_PX[difficulty]
        same = self.detections.names == class_name.lower()
        return np.select([small, same], [IGNORED, VALID], ABSENT).astype(np.int8)

    def problem(
        self,
        class_name: str,
        metric: str,
        min_overlap: float,
        difficulty: int,
        distance: tuple[float, float] = ALL_DISTANCES,
    ) -> Problem:
        """Set up one matching for metric `bbox`, `bev` or `3d`.

        With a distance range only labels in it count, detections of any distance can find them,
        and a detection that finds nothing is false only in the range it lies in.
        """
        false_D = _within(self.detections, distance)
        if metric == 'bbox':
            false_D = false_D & (self.dontcare_share_D <= min_overlap)
        return make_problem(
            self.pairs,
            metric,
            min_overlap,
            label_flags_L=self.label_flags(class_name, difficulty, distance),
            detection_flags_D=self.detection_flags(class_name, difficulty),
            false_D=false_D,
            scores_D=self.detections.scores,
            label_frames_L=self.labels.frames,
            detection_frames_D=self.detections.frames,
        )


def _within(objects: FlatObjects, distance: tuple[float, float]) -> NDArray[np.bool_]:
    return (objects.distances >= distance[0]) & (objects.distances < distance[1])
