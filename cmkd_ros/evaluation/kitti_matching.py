"""KITTI's matching of detections to labels, for all frames and all score thresholds at once.

The protocol is greedy per frame: labels in file order take detections. Frames and thresholds are
independent of each other, so round r handles the r-th label of every frame at every threshold.
Shape letters: L labels, D detections, P candidate pairs, G labels with candidates, K thresholds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.kitti_objects import CandidatePairs

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

VALID, IGNORED, ABSENT = 0, 1, -1
N_SAMPLES = 41


@dataclass(frozen=True)
class Matching:
    """What each label took.

    Args:
        labels_G: indices of the labels that have candidates.
        taken_GK: index of the detection that label took at threshold k, -1 for none.
    """

    labels_G: IntArray
    taken_GK: IntArray


@dataclass(frozen=True)
class Problem:
    """One class, metric, overlap limit and difficulty: who may match whom.

    Args:
        label_flags_L, detection_flags_D: VALID, IGNORED or ABSENT.
        false_D: detections that are false positives when nobody takes them.
        pairs: index arrays of labels and detections, sorted by label then detection, with
            overlap above the limit and nobody absent, and their overlaps.
    """

    label_flags_L: NDArray[np.int8]
    detection_flags_D: NDArray[np.int8]
    false_D: BoolArray
    scores_D: FloatArray
    label_frames_L: IntArray
    detection_frames_D: IntArray
    pair_labels_P: IntArray
    pair_detections_P: IntArray
    pair_overlaps_P: FloatArray


def make_problem(
    pairs: CandidatePairs,
    metric: str,
    min_overlap: float,
    label_flags_L: NDArray[np.int8],
    detection_flags_D: NDArray[np.int8],
    false_D: BoolArray,
    scores_D: FloatArray,
    label_frames_L: IntArray,
    detection_frames_D: IntArray,
) -> Problem:
    """Select the pairs that can match: overlap strictly above the limit, both sides present."""
    overlap = pairs.overlaps[metric]
    kept = (
        (overlap > min_overlap)
        & (label_flags_L[pairs.labels] != ABSENT)
        & (detection_flags_D[pairs.detections] != ABSENT)
    )
    return Problem(
        label_flags_L,
        detection_flags_D,
        false_D & (detection_flags_D == VALID),
        scores_D,
        label_frames_L,
        detection_frames_D,
        pairs.labels[kept],
        pairs.detections[kept],
        overlap[kept],
    )


def match_by_score(problem: Problem) -> Matching:
    """Mode S: every detection takes part, the highest score wins, then file order."""
    detection = problem.pair_detections_P
    order = np.lexsort((detection, -problem.scores_D[detection], problem.pair_labels_P))
    return _match(problem, order, np.array([-np.inf]))


def match_at_thresholds(problem: Problem, thresholds_K: FloatArray) -> Matching:
    """Mode P: at each threshold lower scores are gone; a valid detection with most overlap wins."""
    detection = problem.pair_detections_P
    ignored = problem.detection_flags_D[detection] == IGNORED
    # Among ignored detections the first in the file wins, whatever its overlap.
    preference = np.where(ignored, 0.0, -problem.pair_overlaps_P)
    order = np.lexsort((detection, preference, ignored, problem.pair_labels_P))
    return _match(problem, order, thresholds_K)


def true_positives(problem: Problem, matching: Matching) -> BoolArray:
    """Return (G, K): a valid label took a valid detection."""
    valid = problem.label_flags_L[matching.labels_G] == VALID
    taken = matching.taken_GK
    return valid[:, None] & (taken >= 0) & (problem.detection_flags_D[taken] == VALID)


def score_thresholds(scores: FloatArray, n_gt: int) -> FloatArray:
    """Pick the scores at which the precision is sampled, about one per 1/40 of recall.

    Args:
        scores: scores of the true positives of `match_by_score`, any order.

    Returns:
        at most 41 scores, descending. The recall target is accumulated and not k/40: where
        two scores are equally near to it, the rounding of the sum decides, as officially.
    """
    descending = np.sort(scores)[::-1].tolist()
    thresholds: list[float] = []
    recall = 0.0
    for i, score in enumerate(descending):
        last = i == len(descending) - 1
        left = (i + 1) / n_gt
        right = left if last else (i + 2) / n_gt
        if right - recall < recall - left and not last:
            continue
        thresholds.append(score)
        recall += 1.0 / (N_SAMPLES - 1.0)
    return np.array(thresholds)


def precision_samples(
    problem: Problem, alphas: tuple[FloatArray, FloatArray] | None = None
) -> tuple[FloatArray, FloatArray | None]:
    """Return precision (41,) and, given angles, orientation similarity (41,) over rising recall.

    Args:
        alphas: observation angles (L,) of the labels and (D,) of the detections.

    Returns:
        samples after the maximum filter, zero beyond the last threshold.
    """
    n_gt = int((problem.label_flags_L == VALID).sum())
    by_score = match_by_score(problem)
    found = true_positives(problem, by_score)
    thresholds = score_thresholds(problem.scores_D[by_score.taken_GK[found]], n_gt)
    matching = match_at_thresholds(problem, thresholds)
    found = true_positives(problem, matching)
    positives = found.sum(axis=0) + false_positives(problem, matching, thresholds)
    precision = _filtered(found.sum(axis=0), positives)
    if alphas is None:
        return precision, None
    label_alphas, detection_alphas = alphas
    difference = label_alphas[matching.labels_G][:, None] - detection_alphas[matching.taken_GK]
    similarity = np.where(found, (1.0 + np.cos(difference)) / 2.0, 0.0).sum(axis=0)
    return precision, _filtered(similarity, positives)


def count_per_frame(problem: Problem, n_frames: int, min_score: float = -np.inf) -> IntArray:
    """Count (F, 4) true positives, false positives, misses and valid labels.

    Args:
        problem: who may match whom.
        n_frames: F.
        min_score: detections below it do not exist.
    """
    matching = match_at_thresholds(problem, np.array([min_score]))
    taken = matching.taken_GK[:, 0]
    found = matching.labels_G[true_positives(problem, matching)[:, 0]]
    valid = problem.label_flags_L == VALID
    missed = valid.copy()
    missed[matching.labels_G[taken >= 0]] = False
    false = problem.false_D & (problem.scores_D >= min_score)
    false[taken[taken >= 0]] = False
    frames = (
        problem.label_frames_L[found],
        problem.detection_frames_D[false],
        problem.label_frames_L[missed],
        problem.label_frames_L[valid],
    )
    return np.stack([np.bincount(f, minlength=n_frames) for f in frames], axis=1)


def false_positives(problem: Problem, matching: Matching, thresholds_K: FloatArray) -> IntArray:
    """Return (K,): detections at or above each threshold that no label took and that count."""
    ascending = np.sort(problem.scores_D[problem.false_D])
    present = len(ascending) - np.searchsorted(ascending, thresholds_K, side='left')
    taken = (matching.taken_GK >= 0) & problem.false_D[matching.taken_GK]
    return present - taken.sum(axis=0)


def _filtered(amount_K: NDArray, positives_K: IntArray) -> FloatArray:
    """Ratio, padded to 41 samples, each raised to the best one at the same or higher recall."""
    samples = np.zeros(N_SAMPLES)
    # Nothing found and nothing false: the official code divides 0 by 0; no sample is meant.
    np.divide(amount_K, positives_K, out=samples[: len(amount_K)], where=positives_K > 0)
    return np.maximum.accumulate(samples[::-1])[::-1]


def _match(problem: Problem, order_P: IntArray, thresholds_K: FloatArray) -> Matching:
    """Let labels take their first free candidate in the given order (grouped by label)."""
    label, detection = problem.pair_labels_P[order_P], problem.pair_detections_P[order_P]
    labels_G, first_pair_G, n_pairs_G = np.unique(label, return_index=True, return_counts=True)
    frame_G = problem.label_frames_L[labels_G]
    round_G = np.arange(len(labels_G)) - np.searchsorted(frame_G, frame_G, side='left')
    local_M, local_P = np.unique(detection, return_inverse=True)
    free_MK = problem.scores_D[local_M][:, None] >= thresholds_K
    taken_GK = np.full((len(labels_G), len(thresholds_K)), -1)
    for turn in range(int(round_G.max(initial=-1)) + 1):
        group = np.flatnonzero(round_G == turn)
        n = n_pairs_G[group]
        begin = np.cumsum(n) - n
        pair = np.arange(n.sum()) - np.repeat(begin - first_pair_G[group], n)
        rank = np.where(free_MK[local_P[pair]], np.arange(len(pair))[:, None], len(pair))
        first = np.minimum.reduceat(rank, begin, axis=0)
        row, k = np.nonzero(first < len(pair))
        taker = pair[first[row, k]]
        free_MK[local_P[taker], k] = False
        taken_GK[group[row], k] = detection[taker]
    return Matching(labels_G, taken_GK)
