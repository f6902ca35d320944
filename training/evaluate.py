"""From a bundle and a KITTI folder to result files, AP and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cmkd_ros.checkpoint import Bundle, load_bundle
from cmkd_ros.detector import Detections, Detector
from cmkd_ros.evaluation.kitti_ap import KittiReport
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.evaluation.report import evaluate_folders, write_json
from cmkd_ros.geometry import Boxes3D, CameraModel
from cmkd_ros.kitti_files import read_frame_list, write_results
from cmkd_ros.model.post import find_boxes
from cmkd_ros.result_folder import result_folder
from cmkd_ros.training.data.frames import Range
from cmkd_ros.training.data.identity import identify_object_frames
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.sample import Sample
from cmkd_ros.training.engine.leaks import check_leaks, lineage
from cmkd_ros.training.engine.train import build_teacher_of
from cmkd_ros.training.pictures import draw_evaluation

Progress = Callable[[int, int], None]


def evaluate_bundle(
    model: Path,
    data: Path,
    split: Path | None = None,
    *,
    out: Path | None = None,
    device: str = 'auto',
    precision: str = 'fp32',
    backend: str = 'torch',
    pictures: int = 4,
    allow_leak: bool = False,
    progress: Progress | None = None,
) -> KittiReport:
    """KITTI AP of a student or teacher bundle on labelled frames.

    Args:
        model: bundle; a teacher is given the scans, a student only the images.
        data: KITTI folder: holds `training/image_2`, ... or `image_2`, ... itself.
        split: frame list; None takes every image.
        out: new folder for `results/*.txt`, `ap.json` and `pictures/` (see `draw_evaluation`); None
            keeps nothing.
        device, precision, backend: as `Detector`.
        pictures: how many of the best, of the worst and of random frames to draw; needs `out`.
        allow_leak: evaluate frames that the bundle or its teacher learned from, and report that.
        progress: called with (frames done, frames in all).

    Raises:
        FileExistsError: `out` exists and is not empty.
        FileNotFoundError, ValueError: a bundle, list, frame or number that is wrong, or a leak; the
            message names it.
    """
    if pictures < 0:
        raise ValueError(f'pictures: expected 0 or more of each kind, found {pictures}')
    bundle = load_bundle(model)
    folder, frames = find_frames(data, split)
    checked = check_leaks(
        str(model),
        lineage(bundle),
        identify_object_frames(KittiFolder(folder), frames, with_drives=True),
        allow_leak,
        'evaluate on other frames',
    )
    predict = _predictor(bundle, device, precision, backend)
    dataset = KittiFrames(
        folder.parent,
        frames,
        predict.classes,
        split_folder=folder.name,
        with_points=predict.needs_points,
        range_m=predict.range_m,
    )
    with result_folder(out) as place:
        (place / 'results').mkdir()
        for index in range(len(dataset)):
            sample = dataset[index]
            camera = camera_of(sample)
            found = predict(sample, camera)
            results = to_kitti_results(
                found.boxes, found.scores_N, found.class_names, camera, sample.ref_to_cam_44
            )
            write_results(place / 'results' / f'{sample.frame_id}.txt', results)
            if progress:
                progress(index + 1, len(dataset))
        report = evaluate_folders(folder / 'label_2', place / 'results', split)
        report = report.with_extra({'leak_check': checked})
        write_json(report, place / 'ap.json')
        if out is not None and pictures:
            draw_evaluation(
                place / 'pictures', KittiFolder(folder), place / 'results', frames, pictures
            )
    return report


def find_frames(data: Path, split: Path | None) -> tuple[Path, list[str]]:
    """The folder that holds image_2 and the frames to read from it.

    Raises:
        FileNotFoundError: neither `data`/training/image_2 nor `data`/image_2 exists.
        ValueError: no frames.
    """
    folder = data / 'training' if (data / 'training' / 'image_2').is_dir() else data
    if not (folder / 'image_2').is_dir():
        raise FileNotFoundError(
            f'{data}: expected training/image_2 or image_2 in it, found neither'
        )
    if split is not None:
        frames = list(read_frame_list(split))
    else:
        frames = sorted(path.stem for path in (folder / 'image_2').glob('*.png'))
    if not frames:
        raise ValueError(f'{split or folder / "image_2"}: no frames in it')
    return Path(os.path.abspath(folder)), frames


def camera_of(sample: Sample) -> CameraModel:
    """The camera of a KITTI frame."""
    height, width = sample.image_HW3.shape[:2]
    return CameraModel.from_projection(sample.cam_to_img_34, width, height)


@dataclass(frozen=True)
class _Predictor:
    """A student or teacher as a function from a sample to detections."""

    classes: tuple[str, ...]
    needs_points: bool
    range_m: Range | None
    run: Callable[[Sample, CameraModel], Detections]

    def __call__(self, sample: Sample, camera: CameraModel) -> Detections:
        return self.run(sample, camera)


def _predictor(bundle: Bundle, device: str, precision: str, backend: str) -> _Predictor:
    if bundle.kind == 'student':
        detector = Detector.from_bundle(bundle, device, precision, backend)
        return _Predictor(
            detector.class_names,
            False,
            None,
            lambda sample, camera: detector(sample.image_HW3, camera, sample.ref_to_cam_44),
        )
    spec, teacher = build_teacher_of(bundle, with_head=True)
    head = teacher.eval().head
    if head is None:
        raise ValueError(f'{bundle.source}: a teacher without head cannot detect')

    @torch.inference_mode()
    def run(sample: Sample, camera: CameraModel) -> Detections:
        output = teacher([torch.from_numpy(sample.points_N4)])
        found = find_boxes(head, output.head, spec.post)[0]
        return Detections(
            Boxes3D(found.boxes_K7.double().numpy()),
            found.scores_K.double().numpy(),
            tuple(spec.classes[i] for i in found.labels_K.tolist()),
        )

    return _Predictor(spec.classes, True, spec.grid.range_m, run)
