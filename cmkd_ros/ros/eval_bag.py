"""Bag -> node -> messages -> KITTI result files -> AP: what `cmkd eval-bag` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmkd_ros.evaluation.kitti_report import KittiReport
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.evaluation.report import evaluate_folders
from cmkd_ros.geometry import CameraModel
from cmkd_ros.kitti_files import write_results
from cmkd_ros.result_folder import result_folder
from cmkd_ros.ros.detection_messages import detections_from_message
from cmkd_ros.ros.detections_bag import write_detections_bag
from cmkd_ros.ros.replay import ReplayedFrame, replay_bag


def evaluate_bag(
    bag: Path,
    model: Path,
    labels: Path,
    *,
    out: Path | None = None,
    device: str = 'auto',
    precision: str = 'fp32',
    backend: str = 'torch',
    parameters: Mapping[str, Any] | None = None,
    image_topic: str = '',
    info_topic: str = '',
    progress: Callable[[int, int], None] | None = None,
) -> KittiReport:
    """KITTI AP of a model inside the node, over a bag whose frames have label files.

    The bag names its frames on `/frame_id`, as `cmkd make-bag` writes it; images of a bag without
    it are numbered from 000000.

    Args:
        bag: rosbag2 with image, camera_info and transforms.
        model: bundle.
        labels: folder of label files `<frame>.txt`.
        out: new folder for `results/*.txt` and the bag `detections`; None keeps neither.
        device, precision, backend, parameters: of the node.
        image_topic, info_topic: empty for the only one in the bag.
        progress: called with (images answered, images in all).

    Returns:
        The report; `extra` tells images, answers, drops and latencies in milliseconds.

    Raises:
        FileExistsError: `out` exists and is not empty.
        FileNotFoundError, ValueError, FailedError, TimeoutError: as `replay_bag` and
            `evaluate_folders`.
    """
    if not labels.is_dir():
        raise FileNotFoundError(f'{labels}: no such folder')
    with result_folder(out) as place:
        frames = replay_bag(
            bag,
            model=model,
            device=device,
            precision=precision,
            backend=backend,
            parameters=parameters,
            image_topic=image_topic,
            info_topic=info_topic,
            progress=progress,
        )
        results = place / 'results'
        results.mkdir()
        write_kitti_results(results, frames)
        write_detections_bag(place / 'detections', frames)
        report = evaluate_folders(labels, results)
    return report.with_extra({'replay': summary(frames)})


def write_kitti_results(folder: Path, frames: Sequence[ReplayedFrame]) -> None:
    """Write one result file a frame, in the frame of KITTI's labels.

    Raises:
        ValueError: two frames have one name.
    """
    name, count = Counter(frame.frame_id for frame in frames).most_common(1)[0]
    if count > 1:
        raise ValueError(f'the bag names {count} images {name}; a frame id must occur once')
    for frame in frames:
        found = detections_from_message(frame.message, frame.pose.T_cam_ref)
        objects = to_kitti_results(
            found.boxes,
            found.scores_N,
            found.class_names,
            _rectified(frame.camera),
            frame.T_label_ref,
        )
        write_results(folder / f'{frame.frame_id}.txt', objects)


def summary(frames: Sequence[ReplayedFrame]) -> dict[str, Any]:
    """Counts and latencies of a replay, for the report."""
    latency_ms = np.array([frame.latency_ms for frame in frames])
    equal = sum(
        frame.message.header.stamp.sec * 10**9 + frame.message.header.stamp.nanosec
        == frame.stamp_ns
        for frame in frames
    )
    return {
        'images': len(frames),
        'answered': equal,
        'dropped': len(frames) - equal,
        'latency_ms': {f'p{q}': float(np.percentile(latency_ms, q)) for q in (50, 95, 99)},
        'pose_sources': sorted({frame.pose.source for frame in frames}),
    }


def _rectified(camera: CameraModel) -> CameraModel:
    return CameraModel.from_projection(camera.projection_px_34, camera.width, camera.height)
