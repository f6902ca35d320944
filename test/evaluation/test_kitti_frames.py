"""Counts of single frames: each class is cut where its F1 is best, and frames are ranked."""

import numpy as np
import pytest

from cmkd_ros.evaluation.kitti_frames import FrameScores, score_frames
from cmkd_ros.evaluation.kitti_split import KittiSplit
from cmkd_ros.kitti_files import KittiObjects


def objects(*rows: tuple[str, float, float]) -> KittiObjects:
    """Cars or cyclists of one size at (class, distance, score); scores are dropped by labels()."""
    n = len(rows)
    return KittiObjects(
        tuple(name for name, _, _ in rows), np.zeros(n), np.zeros(n, np.int64), np.zeros(n),
        np.array([[100.0 + z, 100, 160 + z, 160] for _, z, _ in rows]).reshape(n, 4),
        np.tile([1.5, 1.6, 3.9], (n, 1)),
        np.array([[0.0, 1.65, z] for _, z, _ in rows]).reshape(n, 3),
        np.zeros(n), np.array([score for _, _, score in rows]),
    )  # fmt: skip


def split(labels, results):
    bare = [
        KittiObjects(*list(vars(objects(*((name, z, 0) for name, z in frame))).values())[:-1])
        for frame in labels
    ]
    return KittiSplit(bare, [objects(*frame) for frame in results])


def test_frames_are_counted_above_the_best_score_and_ranked():
    scores = score_frames(
        split(
            [[('Car', 10)], [('Car', 10), ('Car', 30)], [], [('Car', 10)], []],
            [
                [('Car', 10, 0.9), ('Car', 50, 0.1)],  # the false one is below the best cut
                [('Car', 10, 0.8), ('Car', 30, 0.7)],
                [('Car', 20, 0.95)],  # false
                [],  # missed
                [],
            ],
        )
    )
    assert scores.thresholds['Car'] == pytest.approx(0.7)
    assert scores.thresholds['Cyclist'] == -np.inf
    assert scores.found_F.tolist() == [1, 2, 0, 0, 0]
    assert scores.false_F.tolist() == [0, 0, 1, 0, 0]
    assert scores.missed_F.tolist() == [0, 0, 0, 1, 0]
    # Two found come before one; the empty frame shows nothing and is not ranked.
    assert scores.best_first().tolist() == [1, 0, 2, 3]


def test_classes_have_cuts_of_their_own():
    scores = score_frames(
        split(
            [[('Car', 10), ('Cyclist', 20)], [('Cyclist', 30)]],
            [[('Car', 10, 0.9), ('Cyclist', 20, 0.2)], [('Cyclist', 30, 0.3), ('Car', 40, 0.5)]],
        )
    )
    assert (scores.thresholds['Car'], scores.thresholds['Cyclist']) == (0.9, 0.2)
    assert scores.found_F.tolist() == [2, 1]
    assert scores.false_F.tolist() == [0, 0]


def test_when_nothing_is_found_the_fewest_errors_come_first():
    scores = score_frames(
        split([[('Car', 10)], [('Car', 10)]], [[('Car', 50, 0.9), ('Car', 60, 0.8)], []])
    )
    assert scores.thresholds['Car'] == -np.inf
    assert scores.best_first().tolist() == [1, 0]


def test_all_frames_of_the_reference_add_up(reference_case):
    from cmkd_ros.kitti_files import read_labels, read_results

    folder = reference_case('a_synthetic_mono').folder
    frames = sorted(path.stem for path in (folder / 'results').glob('*.txt'))
    whole = KittiSplit(
        [read_labels(folder / 'label_2' / f'{frame}.txt') for frame in frames],
        [read_results(folder / 'results' / f'{frame}.txt') for frame in frames],
    )
    scores = score_frames(whole)
    n_gt = sum(whole.n_gt(name, 1) for name in ('Car', 'Pedestrian', 'Cyclist'))
    # A label that takes a detection too small to count is neither found nor missed.
    assert 0.9 * n_gt < (scores.found_F + scores.missed_F).sum() <= n_gt
    assert isinstance(scores, FrameScores)
