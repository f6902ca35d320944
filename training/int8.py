"""A student in int8, and what that costs: KITTI AP beside fp32 on frames it was not fitted to."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.detector import Detector
from cmkd_ros.engines import OpenVinoEngine
from cmkd_ros.evaluation.kitti_ap import KittiReport
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.evaluation.report import evaluate_folders
from cmkd_ros.export import camera_of as graph_camera
from cmkd_ros.graph_cache import graph_of, int8_graph
from cmkd_ros.int8_graph import quantise, require_quantiser, save_int8
from cmkd_ros.kitti_files import write_results
from cmkd_ros.progress import show_progress
from cmkd_ros.training.data.identity import identify_object_frames
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.engine.leaks import check_leaks, lineage
from cmkd_ros.training.evaluate import camera_of, find_frames


@dataclass(frozen=True)
class Int8Export:
    """A quantised student.

    Attributes:
        file: where a detector with backend openvino and precision int8 looks for it.
        fp32, int8: AP on the same frames.
        cost: one sentence, also in the file.
    """

    file: Path
    fp32: KittiReport
    int8: KittiReport
    cost: str


def export_int8(
    model: Path,
    data: Path,
    split: Path | None = None,
    calibration: int = 200,
    frames: int = 300,
    allow_leak: bool = False,
) -> Int8Export:
    """Quantise a student with pictures of a KITTI folder and evaluate it on others.

    Args:
        model: student bundle.
        data: KITTI folder with labels.
        split: frame list; None takes every image.
        calibration: at most so many frames, spread over the list, give the scales; never more than
            half of it.
        frames: at most so many of the others are evaluated.
        allow_leak: evaluate frames that the student or its teacher learned from.

    Raises:
        FileNotFoundError, ValueError: a bundle, list or number that is wrong, or a leak.
        ImportError: no openvino or nncf.
        FailedError: as `quantise`.
    """
    require_quantiser()
    bundle = load_bundle(model)
    folder, names = find_frames(data, split)
    fitted, judged = divide(names, calibration, frames)
    check_leaks(
        str(model),
        lineage(bundle),
        identify_object_frames(KittiFolder(folder), judged, with_drives=True),
        allow_leak,
        'evaluate on other frames',
    )
    detector = Detector.from_bundle(bundle, backend='openvino')
    student = bundle.build()
    pictures = _frames(folder, fitted, detector.class_names)

    def inputs_of(index: int) -> Mapping[str, np.ndarray]:
        sample = pictures[index]
        image, cam_to_img, ref_to_cam = detector.tensors(
            sample.image_HW3, camera_of(sample), sample.ref_to_cam_44
        )
        camera = graph_camera(student, image, cam_to_img[0], ref_to_cam[0])
        return {
            name: tensor.numpy() for name, tensor in {'image': image, **camera._asdict()}.items()
        }

    graph = quantise(graph_of(student), range(len(fitted)), inputs_of)
    with tempfile.TemporaryDirectory() as place:
        file = save_int8(graph, Path(place) / 'int8.zip', '')
        reduced = copy.copy(detector)
        reduced.network = OpenVinoEngine(student, file, 'int8')
        fp32, int8 = _evaluate([detector, reduced], folder, judged, Path(place))
    cost = describe_cost(fp32, int8)
    return Int8Export(save_int8(graph, int8_graph(student), cost), fp32, int8, cost)


def divide(names: Sequence[str], calibration: int, frames: int) -> tuple[list[str], list[str]]:
    """Frames that give the scales, and others that are evaluated, each spread over the list.

    Raises:
        ValueError: fewer than one of either.
    """
    if calibration < 1 or frames < 1:
        raise ValueError(
            f'{calibration} frames to calibrate, {frames} to evaluate: expected 1 or more of each'
        )
    if len(names) < 2:
        raise ValueError('one frame: expected another one to evaluate')
    fitted = _spread(names, min(calibration, len(names) // 2))
    rest = sorted(set(names) - set(fitted))
    return fitted, _spread(rest, min(frames, len(rest)))


def describe_cost(fp32: KittiReport, int8: KittiReport) -> str:
    """What int8 costs, in the AP that papers compare."""
    name = next(iter(fp32.ap['strict']))
    averages = [report.ap['strict'][name]['3d'] for report in (fp32, int8)]
    before, after = (entry['R40'][1] if entry else 0.0 for entry in averages)
    return (
        f'{name} 3D moderate AP (R40) {after:.2f} instead of {before:.2f} on {int8.frames} frames'
    )


def _spread(names: Sequence[str], count: int) -> list[str]:
    return [names[i * len(names) // count] for i in range(count)]


def _frames(folder: Path, names: list[str], classes: tuple[str, ...]) -> KittiFrames:
    return KittiFrames(
        folder.parent, names, classes, split_folder=folder.name, with_points=False, range_m=None
    )


def _evaluate(
    detectors: Sequence[Detector],
    folder: Path,
    names: list[str],
    place: Path,
) -> list[KittiReport]:
    """One report per detector, each picture read once."""
    dataset = _frames(folder, names, detectors[0].class_names)
    places = [place / str(position) for position in range(len(detectors))]
    for results in places:
        results.mkdir()
    with show_progress('evaluating', len(names)) as step:
        for index, frame in enumerate(names):
            sample = dataset[index]
            camera = camera_of(sample)
            for detector, results in zip(detectors, places, strict=True):
                found = detector(sample.image_HW3, camera, sample.ref_to_cam_44)
                rows = to_kitti_results(
                    found.boxes, found.scores_N, found.class_names, camera, sample.ref_to_cam_44
                )
                write_results(results / f'{frame}.txt', rows)
            step(index + 1, len(names))
    return [evaluate_folders(folder / 'label_2', results) for results in places]
