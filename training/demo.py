"""The main job end to end on one machine: drive -> (training) -> bag -> node -> AP and pictures.

Without training the model that comes with the package looks at streets it has never seen. Every
stage leaves a product in the output folder; a stage whose product is there is not repeated, and a
training that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.evaluation.kitti_report import KittiReport
from cmkd_ros.evaluation.report import print_table, write_json
from cmkd_ros.kitti_files import KittiObjects, read_calibration, read_results
from cmkd_ros.model.spec import config_folder
from cmkd_ros.progress import show_progress
from cmkd_ros.training.data.bag import make_bag
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.engine.train import distill, train_teacher
from cmkd_ros.training.evaluate import evaluate_bundle, find_frames
from cmkd_ros.training.pictures import draw_evaluation

LOG = logging.getLogger('cmkd.demo')
MODEL_IN_THE_BOX = config_folder() / 'models' / 'demo.cmkd'
PICTURES = 3  # of the best, of the worst, of random frames
EvaluateBag = Callable[..., KittiReport]


@dataclass(frozen=True)
class _Plan:
    """What a demo does; kept in its folder, which serves one plan only."""

    frames: int
    frames_per_drive: int
    seed: int = 1  # not one of those that the model in the package learned from
    kitti: str | None = None
    trains: bool = False
    overrides: tuple[str, ...] = ()  # of all three trainings


def _choose_plan(kitti: Path | None, train: bool, quick: bool) -> _Plan:
    root = str(kitti.resolve()) if kitti else None
    if not (train or kitti):
        return _Plan(frames=6 if quick else 48, frames_per_drive=3 if quick else 4)
    if quick:  # every wire, no accuracy
        overrides = ('optimiser.epochs=1', 'optimiser.batch_size=2')
        return _Plan(12, 3, kitti=root, trains=True, overrides=overrides)
    return _Plan(128, 8, kitti=root, trains=True)


def run_demo(
    out: Path,
    *,
    evaluate_bag: EvaluateBag,
    kitti: Path | None = None,
    train: bool = False,
    quick: bool = False,
) -> Path:
    """Run the demo; what it made and found is printed and lies in `out`.

    Args:
        out: folder for everything.
        evaluate_bag: `cmkd_ros.ros.eval_bag.evaluate_bag`: the node is run through it.
        kitti: KITTI folder to train on and evaluate instead of a synthetic drive; with
            ImageSets/train.txt and val.txt if it has them, else every frame serves for both.
        train: teach a teacher and a student here and now; so too where the box has no model.
        quick: fewer frames and a minute of training at most.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` holds something else, or a demo of another plan.
        FileNotFoundError, ValueError: data that is wrong; the message names it.
    """
    plan = _choose_plan(kitti, train or not MODEL_IN_THE_BOX.is_file(), quick)
    _claim(out, plan)
    data = kitti or _render(out / 'drive', plan)
    if plan.trains:
        train_list, val = _splits(data, out)
        student = _train(data, train_list, val, plan, out)
    else:
        val, student = _every_frame(data, out), MODEL_IN_THE_BOX
        _announce(f'taking the model in the box, {student}')
    bag = _once(out / 'bag', 'writing the bag', lambda: make_bag(data, out / 'bag', frames=val))
    report = _replay(evaluate_bag, bag, student, find_frames(data, val)[0] / 'label_2', out)
    _detections_and_pictures(data, val, out)
    _summary(out, report, student)
    return out


def _claim(out: Path, plan: _Plan) -> None:
    """Make the folder, or take it up if it holds the same plan."""
    text = json.dumps(asdict(plan), indent=1) + '\n'
    note = out / 'demo.json'
    if note.is_file():
        if note.read_text(encoding='utf-8') != text:
            raise FileExistsError(
                f'{out}: holds a demo with other options (demo.json there); choose another --out'
            )
    elif out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out}: exists and holds no demo; choose another --out')
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(note, text)


def _render(folder: Path, plan: _Plan) -> Path:
    if not (folder / 'MANIFEST.tsv').is_file():
        _announce(f'rendering {plan.frames} frames of synthetic drives')
        with show_progress('rendering', plan.frames) as step:
            generate_drive(
                folder, plan.frames, plan.seed, frames_per_drive=plan.frames_per_drive, workers=2,
                progress=step,
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
    every = _every_frame(data, out, train if train.is_file() else None)
    return every, every


def _every_frame(data: Path, out: Path, of: Path | None = None) -> Path:
    """A list of all frames, or of those in another list."""
    every = out / 'frames.txt'
    every.write_text(''.join(f'{frame}\n' for frame in find_frames(data, of)[1]))
    return every


def _train(data: Path, train: Path, val: Path, plan: _Plan, out: Path) -> Path:
    """Teacher, stage 1, stage 2; the student's bundle."""
    same = train == val
    teach, learn = (partial(run, allow_leak=same) for run in (train_teacher, distill))
    source = f'root: "{data.resolve()}", frames: "{train.resolve()}"'
    options = (f'data.sources=[{{{source}}}]', *plan.overrides)
    teacher = _run(teach, 'demo_teacher', options, out / 'teacher', 'teacher.cmkd')
    options = (f'data.sources=[{{{source}, labelled: false}}]', *plan.overrides)
    options += (f'teacher={teacher.resolve()}',)
    stage_1 = _run(learn, 'demo_stage1', options, out / 'stage1', 'student.cmkd')
    options += (f'init={stage_1.resolve()}',)
    student = _run(learn, 'demo_stage2', options, out / 'stage2', 'student.cmkd')
    _announce('how well the LiDAR teacher sees these frames')
    print_table(evaluate_bundle(teacher, data, val, allow_leak=same))
    return student


def _run(
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
    with show_progress('replaying') as step:
        report = evaluate_bag(bag, student, labels, out=place, progress=step)
    print_table(report)
    write_json(report, out / 'ap.json')
    return report


def _detections_and_pictures(data: Path, val: Path, out: Path) -> None:
    folder, frames = find_frames(data, val)
    results = out / 'node' / 'results'
    rows = {
        frame: list(_rows(read_results(results / f'{frame}.txt'), folder, frame))
        for frame in frames
    }
    write_text_atomically(out / 'detections.json', json.dumps(rows, indent=1) + '\n')
    shutil.rmtree(out / 'pictures', ignore_errors=True)
    draw_evaluation(out / 'pictures', KittiFolder(folder), results, frames, PICTURES)


def _rows(objects: KittiObjects, folder: Path, frame: str) -> Iterator[dict[str, object]]:
    pose = read_calibration(folder / 'calib' / f'{frame}.txt').T_cam_ref
    boxes = objects.boxes(pose)
    scores = [] if objects.scores_N is None else objects.scores_N.tolist()
    for name, score, box in zip(objects.names, scores, boxes.array_N7.tolist(), strict=True):
        yield {'class': name, 'score': score, 'box': box}


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
