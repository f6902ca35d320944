"""The main job end to end on one machine: drive -> teacher -> student -> bag -> node -> AP.

Every stage leaves a product in the output folder; a stage whose product is there is not repeated,
and a training that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cmkd_ros.evaluation.kitti_report import KittiReport
from cmkd_ros.evaluation.report import print_table, write_json
from cmkd_ros.evaluation.visualize import draw_boxes, plot_bev, write_png
from cmkd_ros.geometry import Boxes3D
from cmkd_ros.kitti_files import KittiObjects, read_calibration, read_results
from cmkd_ros.training.data.bag import make_bag
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.engine.train import distill, train_teacher
from cmkd_ros.training.evaluate import camera_of, evaluate_bundle, find_frames

LOG = logging.getLogger('cmkd.demo')
CLASSES = ('Car', 'Pedestrian', 'Cyclist')
SEED = 1
EvaluateBag = Callable[..., KittiReport]


@dataclass(frozen=True)
class _Size:
    """How much of everything a demo takes."""

    frames: int
    frames_per_drive: int
    overrides: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # teacher, stages 1 and 2


NORMAL = _Size(frames=128, frames_per_drive=8, overrides=((), (), ()))
# For tests: every wire, no accuracy.
QUICK = _Size(
    frames=12,
    frames_per_drive=3,
    overrides=(
        ('optimiser.epochs=1', 'optimiser.batch_size=2'),
        ('optimiser.epochs=1', 'optimiser.batch_size=2'),
        ('optimiser.epochs=1', 'optimiser.batch_size=2'),
    ),
)


def run_demo(
    out: Path, *, evaluate_bag: EvaluateBag, kitti: Path | None = None, quick: bool = False
) -> Path:
    """Run the demo; what it made and found is printed and lies in `out`.

    Args:
        out: folder for everything.
        evaluate_bag: `cmkd_ros.ros.eval_bag.evaluate_bag`: the node is run through it.
        kitti: KITTI folder to use instead of the synthetic drive; with ImageSets/train.txt and
            val.txt if it has them, else every frame serves for both.
        quick: a minute of training only.

    Returns:
        `out`.
    """
    size = QUICK if quick else NORMAL
    out.mkdir(parents=True, exist_ok=True)
    data = kitti or _drive(out / 'drive', size)
    train, val = _splits(data, out)
    sources = (f'data.sources=[{{root: "{data.resolve()}", frames: "{train.resolve()}"}}]',)
    unlabelled = (sources[0].replace('}]', ', labelled: false}]'),)
    teach, learn = (partial(run, allow_leak=train == val) for run in (train_teacher, distill))
    teacher = _train(
        teach, 'demo_teacher', sources + size.overrides[0], out / 'teacher', 'teacher.cmkd'
    )
    link: tuple[str, ...] = (f'teacher={teacher.resolve()}',)
    stage_1 = _train(
        learn, 'demo_stage1', unlabelled + link + size.overrides[1], out / 'stage1',
        'student.cmkd',
    )  # fmt: skip
    link += (f'init={stage_1.resolve()}',)
    student = _train(
        learn, 'demo_stage2', unlabelled + link + size.overrides[2], out / 'stage2',
        'student.cmkd',
    )  # fmt: skip
    bag = _once(out / 'bag', 'writing the bag', lambda: make_bag(data, out / 'bag', frames=val))
    _announce('how well the LiDAR teacher sees the unseen frames')
    print_table(evaluate_bundle(teacher, data, val, allow_leak=train == val))
    report = _replay(evaluate_bag, bag, student, find_frames(data, val)[0] / 'label_2', out)
    _pictures(data, val, out)
    _summary(out, report, student)
    return out


def _drive(folder: Path, size: _Size) -> Path:
    complete = folder / 'MANIFEST.tsv'
    if not complete.is_file():
        _announce(f'rendering {size.frames} frames of synthetic drives')
        generate_drive(
            folder, size.frames, SEED, frames_per_drive=size.frames_per_drive, workers=2,
            progress=_every(20, 'frames rendered'),
        )  # fmt: skip
    return folder


def _splits(data: Path, out: Path) -> tuple[Path, Path]:
    """Frame lists for training and for evaluation."""
    train, val = (data / 'ImageSets' / f'{name}.txt' for name in ('train', 'val'))
    if train.is_file() and val.is_file():
        return train, val
    LOG.info(
        '%s has no ImageSets/train.txt and val.txt: its frames serve for training and for '
        'evaluation, so the numbers say nothing about new data', data,
    )  # fmt: skip
    folder, frames = find_frames(data, train if train.is_file() else None)
    every = out / 'frames.txt'
    every.write_text(''.join(f'{frame}\n' for frame in frames))
    return every, every


def _train(
    run: Callable[..., Path], recipe: str, overrides: tuple[str, ...], folder: Path, product: str
) -> Path:
    def make() -> None:
        run(recipe, overrides, folder, resume=folder.exists())

    return _once(folder / product, f'training {recipe} (in {folder})', make)


def _once(product: Path, what: str, make: Callable[[], object]) -> Path:
    if product.exists():
        LOG.info('%s is there already', product)
    else:
        _announce(what)
        make()
    return product


def _replay(
    evaluate_bag: EvaluateBag, bag: Path, student: Path, labels: Path, out: Path
) -> KittiReport:
    """The bag through the real node in a process of its own."""
    _announce('replaying the bag through the ROS 2 node')
    place = out / 'node'
    shutil.rmtree(place, ignore_errors=True)
    report = evaluate_bag(
        bag, student, labels, out=place, progress=_every(20, 'frames through the node')
    )
    print_table(report)
    write_json(report, out / 'ap.json')
    return report


def _pictures(data: Path, val: Path, out: Path, count: int = 8) -> None:
    """Overlay and BEV pictures of evenly spread frames, and detections.json of all of them."""
    folder, frames = find_frames(data, val)
    results = {frame: read_results(out / 'node' / 'results' / f'{frame}.txt') for frame in frames}
    rows = {frame: _rows(objects, folder, frame) for frame, objects in results.items()}
    (out / 'detections.json').write_text(json.dumps(rows, indent=1) + '\n')
    chosen = frames[:: max(1, len(frames) // count)][:count]
    dataset = KittiFrames(folder.parent, chosen, CLASSES, split_folder=folder.name)
    (out / 'pictures').mkdir(exist_ok=True)
    for sample in (dataset[i] for i in range(len(chosen))):
        objects = results[sample.frame_id]
        boxes = _boxes(objects, folder, sample.frame_id)
        captions = [f'{n} {s:.2f}' for n, s in zip(objects.names, _scores(objects), strict=True)]
        overlay = draw_boxes(
            sample.image_HW3, boxes, camera_of(sample), sample.ref_to_cam_44, captions
        )
        write_png(out / 'pictures' / f'{sample.frame_id}_boxes.png', overlay)
        plot_bev(
            out / 'pictures' / f'{sample.frame_id}_bev.png',
            boxes,
            Boxes3D(sample.boxes_M7),
            sample.points_N4,
        )


def _boxes(objects: KittiObjects, folder: Path, frame: str) -> Boxes3D:
    pose = read_calibration(folder / 'calib' / f'{frame}.txt').T_cam_ref
    return Boxes3D.from_kitti(
        objects.locations_N3, objects.dimensions_N3, objects.rotations_y_N, pose
    )


def _scores(objects: KittiObjects) -> list[float]:
    return [] if objects.scores_N is None else objects.scores_N.tolist()


def _rows(objects: KittiObjects, folder: Path, frame: str) -> list[dict[str, object]]:
    boxes = _boxes(objects, folder, frame).array_N7.tolist()
    rows = zip(objects.names, _scores(objects), boxes, strict=True)
    return [{'class': name, 'score': score, 'box': box} for name, score, box in rows]


def _summary(out: Path, report: KittiReport, student: Path) -> None:
    replay = report.extra['replay']
    LOG.info(
        '\n%d of %d frames answered by the node, latency p50 %.0f ms\n'
        'model       %s\npictures    %s\ndetections  %s\nAP          %s\n'
        'bag with the detections  %s',
        replay['answered'], replay['images'], replay['latency_ms']['p50'],
        student, out / 'pictures', out / 'detections.json', out / 'ap.json',
        out / 'node' / 'detections',
    )  # fmt: skip


def _announce(what: str) -> None:
    LOG.info('\n== %s', what)


def _every(step: int, what: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if done and (done % step == 0 or done == total):
            LOG.info('%d of %d %s', done, total, what)

    return report
