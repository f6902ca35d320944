"""Pictures of the frames of an evaluation that are worth looking at, with labels and detections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.evaluation.kitti_frames import FrameScores, score_frames
from cmkd_ros.evaluation.kitti_split import CLASSES, KittiSplit
from cmkd_ros.evaluation.visualize import (
    TRUTH_COLOUR,
    Image,
    class_colour,
    draw_boxes,
    plot_bev,
    write_png,
)
from cmkd_ros.kitti_files import KittiObjects, read_calibration, read_labels, read_results
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.scan import read_scan

WHOLE_RANGE_M = (0.0, -40.0, 70.4, 40.0)


def draw_evaluation(
    out: Path,
    folder: KittiFolder,
    results: Path,
    frames: Sequence[str],
    count: int,
    seed: int = 0,
) -> list[Path]:
    """Draw the best frames, the worst and random others: over the image, and from above.

    Frames are ranked by F1 over all classes (3D, loose overlaps, moderate), each class cut at the
    score where its F1 over all frames is best; only detections above it are drawn. Labels are
    green.

    Args:
        out: folder, made if need be: `best_1_000007_boxes.png`, `best_1_000007_bev.png` ..., and
            `frames.json` with the counts of every picture.
        folder: images, calibrations, labels, and scans if there are any.
        results: folder of result files.
        frames: the evaluated frames.
        count: how many of each kind; fewer where there are not as many.
        seed: of the random ones.

    Returns:
        The pictures.

    Raises:
        FileNotFoundError, ValueError: a file of a frame is missing or malformed.
    """
    labels = [read_labels(folder.label(frame)) for frame in frames]
    found = [read_results(results / f'{frame}.txt') for frame in frames]
    scores = score_frames(KittiSplit(labels, found))
    paths: list[Path] = []
    rows: list[dict[str, Any]] = []
    out.mkdir(parents=True, exist_ok=True)
    for kind, chosen in choose_frames(scores, count, seed).items():
        for rank, index in enumerate(chosen, 1):
            stem = f'{kind}_{rank}_{frames[index]}'
            drawn = draw_frame(
                folder,
                frames[index],
                drawn_objects(labels[index], dict.fromkeys(CLASSES, -np.inf)),
                drawn_objects(found[index], scores.thresholds),
            )
            for suffix, picture in zip(('boxes', 'bev'), drawn, strict=True):
                paths.append(out / f'{stem}_{suffix}.png')
                write_png(paths[-1], picture)
            rows.append(_row(stem, scores, index))
    document = {
        'score_from': {k: None if np.isinf(v) else v for k, v in scores.thresholds.items()},
        'frames': rows,
    }
    write_text_atomically(out / 'frames.json', json.dumps(document, indent=1) + '\n')
    return paths


def choose_frames(scores: FrameScores, count: int, seed: int = 0) -> dict[str, list[int]]:
    """Numbers of the best, the worst and random other frames, at most `count` of each.

    No frame is in two of them; where there are few, the best and the worst share them.
    """
    order = scores.best_first().tolist()
    best = order[: min(count, (len(order) + 1) // 2)]
    worst = order[::-1][: min(count, len(order) - len(best))]
    others = np.setdiff1d(np.arange(len(scores.found_F)), [*best, *worst])
    generator = np.random.default_rng(seed)
    drawn = generator.choice(others, min(count, len(others)), replace=False)
    return {'best': best, 'worst': worst, 'random': sorted(drawn.tolist())}


def draw_frame(
    folder: KittiFolder,
    frame: str,
    labels: KittiObjects,
    found: KittiObjects,
    range_m: tuple[float, float, float, float] = WHOLE_RANGE_M,
) -> tuple[Image, Image]:
    """Draw labels and detections of a frame over its image, and from above.

    Args:
        folder: image, calibration, and the scan if there is one.
        frame: its id.
        labels, found: the objects to draw.
        range_m: x_min, y_min, x_max, y_max of the view from above, reference frame.

    Returns:
        Two uint8 RGB pictures: of the image's size, and of 10 pixels per metre.
    """
    image_HW3 = read_png_rgb(folder.image(frame))
    calibration = read_calibration(folder.calib(frame))
    pose = calibration.T_cam_ref
    camera = calibration.camera(image_HW3.shape[1], image_HW3.shape[0])
    truth, boxes = labels.boxes(pose), found.boxes(pose)
    picture = draw_boxes(image_HW3, truth, camera, pose, colours=[TRUTH_COLOUR] * len(truth))
    scores = [] if found.scores_N is None else found.scores_N.tolist()
    captions = [f'{name} {score:.2f}' for name, score in zip(found.names, scores, strict=True)]
    scan = folder.scan(frame)
    points_N4 = read_scan(scan) if scan.is_file() else None
    colours = [class_colour(name) for name in found.names]
    bev = plot_bev(None, boxes, truth, points_N4, range_m, colours)
    return draw_boxes(picture, boxes, camera, pose, captions), bev


def drawn_objects(objects: KittiObjects, thresholds: Mapping[str, float]) -> KittiObjects:
    """The objects whose class has a threshold and whose score reaches it."""
    lowest = {name.lower(): score for name, score in thresholds.items()}
    scores = np.zeros(len(objects)) if objects.scores_N is None else objects.scores_N
    return objects.select(
        [
            i
            for i, (name, score) in enumerate(zip(objects.names, scores, strict=True))
            if name.lower() in lowest and score >= lowest[name.lower()]
        ]
    )


def _row(stem: str, scores: FrameScores, index: int) -> dict[str, Any]:
    counts = {
        'found': scores.found_F[index],
        'false': scores.false_F[index],
        'missed': scores.missed_F[index],
    }
    return {'picture': stem, **{name: int(number) for name, number in counts.items()}}
