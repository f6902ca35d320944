"""The two training commands, `train_teacher` and `distill`: from a recipe to a bundle."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from statistics import median
from typing import Any

import lightning
import torch

from cmkd_ros.checkpoint import Bundle, load_bundle, load_strictly, save_bundle
from cmkd_ros.model.spec import AnchorHeadSpec, NetworkSpec, load_spec, parse_model
from cmkd_ros.model.student import Student, build_student
from cmkd_ros.training.data.augment import RandomFlip
from cmkd_ros.training.data.frames import Augmentation, ConcatFrames
from cmkd_ros.training.data.identity import identify
from cmkd_ros.training.data.loader import ResumableLoader, make_loader
from cmkd_ros.training.data.used_data import UsedData
from cmkd_ros.training.engine.distill_module import DistillModule
from cmkd_ros.training.engine.init_image import start_image_part
from cmkd_ros.training.engine.initialise import copy_matching
from cmkd_ros.training.engine.leaks import (
    Lineage,
    check_leaks,
    held_out_frames,
    lineage_to_json,
    student_lineage,
    teacher_lineage,
)
from cmkd_ros.training.engine.provenance import describe_run
from cmkd_ros.training.engine.recipe import (
    DistillRecipe,
    RunRecipe,
    TeacherRecipe,
    load_recipe,
)
from cmkd_ros.training.engine.run import fit, open_run_folder, write_metrics
from cmkd_ros.training.engine.sources import open_frames, teacher_augmentation
from cmkd_ros.training.engine.teacher_module import TeacherModule
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher
from cmkd_ros.training.teacher.spec import TeacherSpec, load_teacher_spec

LOG = logging.getLogger('cmkd.train')


def train_teacher(
    recipe_name: str | Path,
    overrides: tuple[str, ...],
    out: Path,
    resume: bool = False,
    allow_leak: bool = False,
) -> Path:
    """Train a LiDAR teacher on labelled frames.

    Args:
        recipe_name: recipe file or name; its task is `teacher`.
        overrides: 'key=value' changes to the recipe.
        out: folder of the run.
        resume: go on with the run in `out`.
        allow_leak: learn from frames that are kept for evaluation (`data.held_out`), and say so in
            the bundle.

    Returns:
        The bundle `out`/teacher.cmkd.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: one sentence on what is wrong and where.
    """
    recipe = load_recipe(recipe_name, overrides)
    if not isinstance(recipe, TeacherRecipe):
        raise ValueError(f'{recipe_name}: not a recipe for a teacher; use `cmkd distill` for it')
    return run_teacher(recipe, out, resume, allow_leak)


def run_teacher(
    recipe: TeacherRecipe, out: Path, resume: bool = False, allow_leak: bool = False
) -> Path:
    """`train_teacher` by a recipe that is read already."""
    spec = load_teacher_spec(recipe.teacher)
    frames = open_frames(
        recipe.data,
        spec.classes,
        spec.grid.range_m,
        with_depth=False,
        with_image=False,
        with_plane=any(recipe.augment.paste.values()) and recipe.augment.paste_on_planes,
    )
    start = None if recipe.init is None else load_bundle(recipe.init)
    lineage = teacher_lineage(UsedData.of(identify(frames)), start)
    data = _check_data(recipe, lineage, allow_leak)
    checkpoint = open_run_folder(out, recipe, resume)
    lightning.seed_everything(recipe.seed, verbose=False)
    teacher = build_teacher(spec, with_head=True)
    if start is not None and checkpoint is None:
        initialise_teacher(teacher, start)
    augment = teacher_augmentation(recipe.augment, recipe.data, spec.classes, out)
    LOG.info('training teacher %s on %d frames', spec.name, len(frames))
    loader = _loader(frames, recipe, augment, depth_stride=8, redraw_empty=True)
    metrics = fit(
        TeacherModule(teacher, recipe.optimiser, recipe.weights),
        loader,
        recipe,
        out,
        checkpoint,
    )
    write_metrics(out, metrics)
    bundle = Bundle(
        kind='teacher',
        spec=spec.model_dump(mode='json'),
        tensors=teacher.state_dict(),
        provenance=describe_run(recipe, frames.frame_ids) | data | {'metrics': metrics},
    )
    return save_bundle(out / 'teacher.cmkd', bundle)


def distill(
    recipe_name: str | Path,
    overrides: tuple[str, ...],
    out: Path,
    resume: bool = False,
    allow_leak: bool = False,
) -> Path:
    """Distil a teacher into a camera student, one stage.

    Arguments, errors: as `train_teacher`, with a recipe whose task is `distill`.

    Returns:
        The bundle `out`/student.cmkd; after stage 1 it has no head.
    """
    recipe = load_recipe(recipe_name, overrides)
    if not isinstance(recipe, DistillRecipe):
        raise ValueError(f'{recipe_name}: not a recipe for a student; use `cmkd train-teacher`')
    return run_distill(recipe, out, resume, allow_leak)


def run_distill(
    recipe: DistillRecipe, out: Path, resume: bool = False, allow_leak: bool = False
) -> Path:
    """`distill` by a recipe that is read already."""
    spec = load_spec(recipe.student)
    if recipe.teacher is None:
        _check_labels_teach(recipe, spec)
        teacher_bundle, taught_by, teacher, range_m = None, 'labels', None, spec.grid.range_m
    else:
        teacher_bundle = load_bundle(recipe.teacher)
        teacher_spec, teacher = build_teacher_of(
            teacher_bundle, with_head=recipe.stage == 2, spec_name=recipe.teacher_spec
        )
        check_grids(spec, teacher_spec, teacher_bundle.source)
        taught_by, range_m = teacher_spec.name, teacher_spec.grid.range_m
    frames = open_frames(recipe.data, spec.classes, range_m, with_depth=recipe.weights.depth > 0)
    stage_1 = None if recipe.init is None else load_bundle(recipe.init)
    data = _check_data(
        recipe,
        student_lineage(UsedData.of(identify(frames)), teacher_bundle, stage_1),
        allow_leak,
    )
    checkpoint = open_run_folder(out, recipe, resume)
    student = start_student(recipe, spec, teacher_bundle, stage_1, afresh=checkpoint is None)
    LOG.info(
        'distilling %s into %s, stage %d, %d frames',
        taught_by, spec.name, recipe.stage, len(frames),
    )  # fmt: skip
    loader = _loader(
        frames, recipe, RandomFlip(recipe.flip), spec.image.stride_px, recipe.redraw_empty
    )
    module = DistillModule(student, teacher, spec, recipe.optimiser, recipe.weights, recipe.labels)
    metrics = fit(module, loader, recipe, out, checkpoint)
    write_metrics(out, metrics)
    return save_bundle(
        out / 'student.cmkd',
        _student_bundle(
            student, spec, recipe, frames, data | {'metrics': metrics} | _parents(teacher_bundle)
        ),
    )


def start_student(
    recipe: DistillRecipe,
    spec: NetworkSpec,
    teacher: Bundle | None,
    stage_1: Bundle | None,
    afresh: bool,
) -> Student:
    """The student with the weights that its run starts from.

    Args:
        recipe: seed, stage and where weights come from.
        spec: of the student.
        teacher, stage_1: bundles that parts are taken from, if any.
        afresh: False leaves that to a checkpoint.
    """
    lightning.seed_everything(recipe.seed, verbose=False)
    # With head in both stages, so that one seed gives all runs the same initial weights.
    student = build_student(spec, with_head=True)
    if recipe.stage == 1:
        student.bev_backbone = student.head = None
    if recipe.stage == 2 and afresh:
        initialise_stage_2(student, teacher if recipe.start_from_teacher else None, stage_1)
    elif recipe.init_image is not None and afresh:
        start_image_part(student, recipe.init_image)
    return student


def _check_labels_teach(recipe: DistillRecipe, spec: NetworkSpec) -> None:
    if recipe.labels is None and isinstance(spec.head, AnchorHeadSpec):
        raise ValueError(
            f'recipe {recipe.name}: nothing teaches the head of {spec.name}; give a teacher, or '
            'labels with weights for cls, box and dir'
        )


def check_grids(student: NetworkSpec, teacher: TeacherSpec, source: str) -> None:
    """Whether both BEV maps have one size and cover one area.

    Args:
        student, teacher: their specs.
        source: the teacher's file, for the message.

    Raises:
        ValueError: they differ; names both.
    """
    x, y, _ = student.grid.cells_xyz
    own, given = student.grid.range_m, teacher.grid.range_m
    shape = (student.bev_channels, y, x)
    area = [abs(own[i] - given[i]) < 1e-3 for i in (0, 1, 3, 4)]
    if shape != teacher.bev_shape or not all(area):
        raise ValueError(
            f"{source}: the teacher's grid does not fit the student {student.name}: expected a BEV "
            f'map of {_shown(shape, own)}, found {_shown(teacher.bev_shape, given)}; name a '
            'teacher_spec of the same range and cells, or take another teacher'
        )


def _shown(shape: tuple[int, int, int], range_m: tuple[float, ...]) -> str:
    channels, rows, columns = shape
    x_min, y_min, _, x_max, y_max, _ = range_m
    return (
        f'{channels} channels and {rows} x {columns} cells over x {x_min:g}..{x_max:g} m, '
        f'y {y_min:g}..{y_max:g} m'
    )


def build_teacher_of(
    bundle: Bundle, with_head: bool, spec_name: str | None = None
) -> tuple[TeacherSpec, LidarTeacher]:
    """Spec and network of a teacher bundle.

    Args:
        bundle: of a teacher.
        with_head: False leaves the head out, when only the BEV map is wanted.
        spec_name: spec to run the weights in instead of the bundle's own; teachers are
            convolutional, so that one that was trained on its own range serves a student's.

    Raises:
        ValueError: the bundle is a student, or its weights do not fit.
    """
    if bundle.kind != 'teacher':
        raise ValueError(
            f'{bundle.source}: a camera student was given where a LiDAR teacher is needed; '
            'train one with `cmkd train-teacher`'
        )
    spec = parse_model(TeacherSpec, bundle.spec, f'{bundle.source} (spec)')
    if spec_name is not None:
        spec = load_teacher_spec(spec_name)
    teacher = build_teacher(spec, with_head=True)
    load_strictly(teacher, bundle.tensors, bundle.source)
    if not with_head:
        teacher.bev_backbone = teacher.head = None
    return spec, teacher


def initialise_teacher(teacher: LidarTeacher, start: Bundle) -> None:
    """Start a teacher from another one, or from the BEV backbone and head of a student.

    Raises:
        ValueError: weights that are missing or do not fit.
    """
    whole = tuple(f'{name}.' for name, _ in teacher.named_children())
    parts = whole if start.kind == 'teacher' else ('bev_backbone.', 'head.')
    LOG.info('%s', copy_matching(teacher, start.tensors, parts, start.source))


def initialise_stage_2(student: Student, teacher: Bundle | None, stage_1: Bundle | None) -> None:
    """Start a stage-2 student: the teacher's BEV backbone and head, then the stage-1 weights.

    What neither gives keeps its initial values.

    Raises:
        ValueError: a stage-1 bundle that does not fit, or one that is a teacher.
    """
    parts = ('bev_backbone.', 'head.')
    if teacher is not None:
        LOG.info('%s', copy_matching(student, teacher.tensors, parts, teacher.source))
    if stage_1 is None:
        return
    _ = stage_1.network_spec  # a teacher is refused here
    trained = [name for name, _ in student.named_children() if f'{name}.' not in parts]
    prefixes = tuple(f'{name}.' for name in trained)
    LOG.info('%s', copy_matching(student, stage_1.tensors, prefixes, stage_1.source))


def _loader(
    frames: ConcatFrames,
    recipe: RunRecipe,
    augment: Augmentation,
    depth_stride: int,
    redraw_empty: bool,
) -> ResumableLoader:
    return make_loader(
        frames,
        recipe.optimiser.batch_size,
        recipe.seed,
        workers=recipe.data.workers,
        augment=augment,
        canvas=recipe.data.canvas_hw,
        depth_stride=depth_stride,
        redraw_empty=redraw_empty,
        rank=int(os.environ.get('RANK', 0)),
        world_size=int(os.environ.get('WORLD_SIZE', 1)),
        pin_memory=torch.cuda.is_available(),
    )


def _student_bundle(
    student: Student,
    spec: NetworkSpec,
    recipe: DistillRecipe,
    frames: ConcatFrames,
    provenance: dict[str, Any],
) -> Bundle:
    # The focal length of the training camera: of up to 100 frames, as KITTI's differ a little.
    step = max(1, len(frames) // 100)
    focal = [float(frames[i].cam_to_img_34[0, 0]) for i in range(0, len(frames), step)]
    return Bundle(
        kind='student',
        spec=spec.model_dump(mode='json'),
        tensors=student.state_dict(),
        with_head=recipe.stage == 2,
        train_fx_px=median(focal),
        provenance=describe_run(recipe, frames.frame_ids) | provenance,
    )


def _check_data(recipe: RunRecipe, used: Lineage, allow_leak: bool) -> dict[str, Any]:
    """Refuse leaks; what was learned from and compared, for the provenance."""
    found = check_leaks(
        f'recipe {recipe.name}',
        used,
        held_out_frames(recipe.data),
        allow_leak,
        'take other data.sources, or say in data.held_out what is kept for evaluation',
    )
    return {'data': lineage_to_json(used), 'leak_check': found}


def _parents(teacher: Bundle | None) -> dict[str, Any]:
    if teacher is None:
        return {}
    # The teacher's hashes stand in the student's own `data`.
    return {'teacher': {k: v for k, v in teacher.provenance.items() if k != 'data'}}
