"""The matching of all frames and thresholds at once against the protocol, spelled out in loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.evaluation.kitti_matching import (
    ABSENT,
    IGNORED,
    VALID,
    count_per_frame,
    false_positives,
    make_problem,
    match_at_thresholds,
    match_by_score,
    precision_samples,
    score_thresholds,
    true_positives,
)
from cmkd_ros.evaluation.kitti_objects import CandidatePairs


def random_problem(seed, n_frames=6):
    """Random flags, scores with many ties, and overlaps as a (labels, detections) matrix."""
    random = np.random.default_rng(seed)
    n_labels, n_detections = random.integers(0, 5, n_frames), random.integers(0, 6, n_frames)
    label_frames = np.repeat(np.arange(n_frames), n_labels)
    detection_frames = np.repeat(np.arange(n_frames), n_detections)
    overlap = random.choice([0.0, 0.3, 0.5, 0.6, 0.8], (len(label_frames), len(detection_frames)))
    overlap[label_frames[:, None] != detection_frames] = 0
    pair_labels, pair_detections = np.nonzero(overlap)
    flags = [VALID, VALID, IGNORED, ABSENT]
    problem = make_problem(
        CandidatePairs(
            pair_labels, pair_detections, {'bev': overlap[pair_labels, pair_detections]}
        ),
        'bev',
        0.5,
        label_flags_L=random.choice(flags, len(label_frames)).astype(np.int8),
        detection_flags_D=random.choice(flags, len(detection_frames)).astype(np.int8),
        false_D=random.random(len(detection_frames)) < 0.8,
        scores_D=random.choice([-1.0, 0.0, 0.25, 0.5, 2.0], len(detection_frames)),
        label_frames_L=label_frames,
        detection_frames_D=detection_frames,
    )
    return problem, overlap


def match_in_loops(problem, overlap, threshold):
    """Section 3.4 as it stands; without threshold the highest score wins. Gives {label: det}."""
    taken, assigned = {}, set()
    for label, label_flag in enumerate(problem.label_flags_L):
        if label_flag == ABSENT:
            continue
        best, best_flag, best_value = None, None, None
        for detection, flag in enumerate(problem.detection_flags_D):
            score = problem.scores_D[detection]
            if flag == ABSENT or detection in assigned or not overlap[label, detection] > 0.5:
                continue
            if threshold is None:
                if best is None or score > best_value:
                    best, best_value = detection, score
            elif score >= threshold:
                value = overlap[label, detection]
                if flag == VALID and (best is None or best_flag == IGNORED or value > best_value):
                    best, best_flag, best_value = detection, VALID, value
                elif flag == IGNORED and best is None:
                    best, best_flag = detection, IGNORED
        if best is not None:
            taken[label] = best
            assigned.add(best)
    return taken


def as_dict(matching, k):
    pairs = zip(matching.labels_G.tolist(), matching.taken_GK[:, k].tolist(), strict=True)
    return {label: detection for label, detection in pairs if detection >= 0}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_matching_equals_loops(seed):
    problem, overlap = random_problem(seed)
    assert as_dict(match_by_score(problem), 0) == match_in_loops(problem, overlap, None)
    thresholds = np.array([2.0, 0.5, 0.25, 0.0, -1.0, -np.inf])
    matching = match_at_thresholds(problem, thresholds)
    false = false_positives(problem, matching, thresholds)
    found = true_positives(problem, matching).sum(axis=0)
    for k, threshold in enumerate(thresholds):
        taken = match_in_loops(problem, overlap, threshold)
        assert as_dict(matching, k) == taken
        left_over = [
            d
            for d in np.flatnonzero(problem.false_D)
            if problem.scores_D[d] >= threshold and d not in taken.values()
        ]
        assert false[k] == len(left_over)
        assert found[k] == sum(
            problem.label_flags_L[label] == VALID and problem.detection_flags_D[d] == VALID
            for label, d in taken.items()
        )
    counts = count_per_frame(problem, 6)
    valid = problem.label_flags_L == VALID
    assert counts[:, 0].sum() == found[-1] and counts[:, 1].sum() == false[-1]
    assert counts[:, 2].sum() == valid.sum() - sum(valid[label] for label in taken)
    assert counts[:, 3].tolist() == np.bincount(problem.label_frames_L[valid], minlength=6).tolist()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_precision_samples_follow_their_definition(seed):
    problem, overlap = random_problem(seed, n_frames=20)
    alphas = np.random.default_rng(seed).uniform(-3, 3, (2, 100))
    n_gt = int((problem.label_flags_L == VALID).sum())
    scores = [
        problem.scores_D[d]
        for label, d in match_in_loops(problem, overlap, None).items()
        if problem.label_flags_L[label] == VALID and problem.detection_flags_D[d] == VALID
    ]
    precision, orientation = np.zeros(41), np.zeros(41)
    for k, threshold in enumerate(score_thresholds(np.array(scores), n_gt)):
        taken = match_in_loops(problem, overlap, threshold)
        hits = [
            (label, d)
            for label, d in taken.items()
            if problem.label_flags_L[label] == VALID and problem.detection_flags_D[d] == VALID
        ]
        n_false = sum(
            problem.scores_D[d] >= threshold and d not in taken.values()
            for d in np.flatnonzero(problem.false_D)
        )
        similarity = sum((1 + np.cos(alphas[0][label] - alphas[1][d])) / 2 for label, d in hits)
        if hits or n_false:
            precision[k] = len(hits) / (len(hits) + n_false)
            orientation[k] = similarity / (len(hits) + n_false)
    for k in range(41):
        precision[k], orientation[k] = precision[k:].max(), orientation[k:].max()
    found_precision, found_orientation = precision_samples(problem, tuple(alphas))
    np.testing.assert_allclose(found_precision, precision, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found_orientation, orientation, rtol=0, atol=1e-14)


def test_thresholds_up_to_41_labels_are_all_scores():
    scores = np.array([0.3, 0.9, 0.1, 0.1])
    assert score_thresholds(scores, 4).tolist() == [0.9, 0.3, 0.1, 0.1]
    assert score_thresholds(np.arange(41.0), 41).tolist() == list(np.arange(41.0)[::-1])


@pytest.mark.parametrize('n_gt', range(1, 400, 7))
def test_never_more_than_41_thresholds_and_the_last_score_is_one(n_gt):
    thresholds = score_thresholds(np.arange(float(n_gt)), n_gt)
    assert len(thresholds) == min(n_gt, 41)
    assert thresholds[-1] == 0.0


def test_thresholds_accumulate_the_recall():
    """Where two scores are equally near to a recall, the rounding of the sum of 1/40 decides."""

    def with_multiples(n_gt):
        chosen = []
        for i in range(n_gt):
            last = i == n_gt - 1
            left = (i + 1) / n_gt
            right = left if last else (i + 2) / n_gt
            recall = len(chosen) / 40
            if right - recall < recall - left and not last:
                continue
            chosen.append(n_gt - 1.0 - i)
        return chosen

    differing = [
        n
        for n in range(43, 200)
        if score_thresholds(np.arange(float(n)), n).tolist() != with_multiples(n)
    ]
    assert 43 in differing
