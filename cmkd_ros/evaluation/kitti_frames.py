"""How well each single frame was detected: to find the pictures worth looking at.

Shape letters: F frames.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.kitti_matching import (
    Problem,
    count_per_frame,
    false_positives,
    match_at_thresholds,
    match_by_score,
    score_thresholds,
    true_positives,
)
from cmkd_ros.evaluation.kitti_split import CLASSES, MIN_OVERLAP, KittiSplit

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class FrameScores:
    """Counts of every frame over all classes, each class cut at the score where its F1 is best.

    Attributes:
        thresholds: lowest score that counts, per class; -inf for one of which nothing was found.
        found_F, false_F, missed_F: true positives, false positives and missed labels.
    """

    thresholds: dict[str, float]
    found_F: IntArray
    false_F: IntArray
    missed_F: IntArray

    def best_first(self) -> IntArray:
        """Numbers of the frames that hold anything, by F1, then by how much was found or wrong."""
        errors_F = self.false_F + self.missed_F
        f1_F = _f1(self.found_F, errors_F)
        order = np.lexsort((np.arange(len(f1_F)), errors_F, -self.found_F, -f1_F))
        return order[(self.found_F + errors_F)[order] > 0]


def score_frames(
    split: KittiSplit, level: str = 'loose', metric: str = '3d', difficulty: int = 1
) -> FrameScores:
    """Count what was found, wrong and missed in each frame.

    Args:
        split: labels and detections.
        level: 'strict' or 'loose' overlaps.
        metric: 'bbox', 'bev' or '3d'.
        difficulty: 0 easy, 1 moderate, 2 hard.
    """
    thresholds = {}
    total_F3 = np.zeros((split.n_frames, 3), dtype=np.int64)
    for name in CLASSES:
        problem = split.problem(name, metric, MIN_OVERLAP[level][name][metric], difficulty)
        thresholds[name] = _best_threshold(problem, split.n_gt(name, difficulty))
        counts = count_per_frame(problem, split.n_frames, thresholds[name])
        total_F3 += counts[:, :3]
    return FrameScores(thresholds, *total_F3.T)


def _best_threshold(problem: Problem, n_gt: int) -> float:
    by_score = match_by_score(problem)
    found = true_positives(problem, by_score)
    scores = problem.scores_D[by_score.taken_GK[found]]
    if len(scores) == 0:
        return -np.inf
    thresholds_K = score_thresholds(scores, n_gt)
    matching = match_at_thresholds(problem, thresholds_K)
    found_K = true_positives(problem, matching).sum(axis=0)
    false_K = false_positives(problem, matching, thresholds_K)
    f1_K = _f1(found_K, false_K + n_gt - found_K)
    return float(thresholds_K[np.argmax(f1_K)])


def _f1(found: IntArray, errors: IntArray) -> NDArray[np.float64]:
    # 2 TP / (2 TP + FP + FN); 0 where there is nothing.
    whole = 2.0 * found + errors
    return np.divide(2.0 * found, whole, out=np.zeros(len(whole)), where=whole > 0)
