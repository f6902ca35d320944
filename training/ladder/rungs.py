"""From a ladder to the recipes of its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmkd_ros.model.spec import parse_model
from cmkd_ros.training.engine.recipe import (
    DistillRecipe,
    SourceSpec,
    TeacherRecipe,
    merge_keys,
)
from cmkd_ros.training.ladder.frames import LadderFrames
from cmkd_ros.training.ladder.recipe import LadderRecipe

STUDENT, TEACHER = 'student.cmkd', 'teacher.cmkd'


def teacher_recipe(
    ladder: LadderRecipe, name: str, seed: int, frames: LadderFrames, labels: SourceSpec
) -> TeacherRecipe:
    """The recipe of one teacher.

    Args:
        ladder: what it belongs to.
        name: of the teacher in `ladder.teachers`.
        seed: of initial weights, order and augmentation.
        frames: of the ladder; the evaluated ones are held out.
        labels: the frames that it learns from.

    Raises:
        ValueError: the ladder's `teacher` has a wrong key or value.
    """
    fixed = {
        'task': 'teacher',
        'name': f'{ladder.name}_{name}',
        'seed': seed,
        'data': _data(ladder, [labels], frames),
    }
    where = f'{ladder.name}, teacher {name}'
    return parse_model(TeacherRecipe, merge_keys(ladder.teacher, fixed), where)


def rung_recipes(
    ladder: LadderRecipe, name: str, seed: int, frames: LadderFrames, folder: Path
) -> list[DistillRecipe]:
    """The recipes of the stages of a rung, in order; all stages together have the ladder's steps.

    Args:
        ladder, seed, frames: as for a teacher.
        name: of the rung.
        folder: of the seed: the teachers and stages lie there.

    Raises:
        ValueError: the ladder's `student`, or what a stage changes, has a wrong key or value.
    """
    rung = ladder.rungs[name]
    more = frames.unlabelled_of(rung.unlabelled)
    sources = [frames.labelled] if more is None else [frames.labelled, more]
    if rung.teacher is not None:
        sources = [source.model_copy(update={'labelled': False}) for source in sources]
    shares = [stage.share for stage in rung.stages]
    steps = [round(share * ladder.steps) for share in shares]
    steps[-1] = ladder.steps - sum(steps[:-1])
    recipes = []
    for number, stage in enumerate(rung.stages):
        fixed: dict[str, Any] = {
            'task': 'distill',
            'name': f'{ladder.name}_{name}_{number + 1}',
            'seed': seed,
            'data': _data(ladder, sources, frames),
            'optimiser': {'steps': steps[number]},
            'teacher': None if rung.teacher is None else str(folder / rung.teacher / TEACHER),
        }
        if number:
            fixed['init'] = str(stage_folder(folder, name, number - 1) / STUDENT)
        keys = merge_keys(merge_keys(ladder.student, stage.recipe), fixed)
        where = f'{ladder.name}, rung {name}, stage {number + 1}'
        recipes.append(parse_model(DistillRecipe, keys, where))
    if recipes[-1].stage != 2:
        raise ValueError(f'{ladder.name}, rung {name}: its last stage must have stage: 2')
    return recipes


def stage_folder(folder: Path, rung: str, number: int) -> Path:
    """Where the run of a stage lies, in the folder of a seed."""
    return folder / rung / f'stage_{number + 1}'


def _data(ladder: LadderRecipe, sources: list[SourceSpec], frames: LadderFrames) -> dict[str, Any]:
    return {
        'sources': [source.model_dump(mode='json') for source in sources],
        'held_out': [frames.evaluation.model_dump(mode='json')],
        'workers': ladder.data.workers,
        'keep_in_memory': ladder.data.keep_in_memory,
    }
