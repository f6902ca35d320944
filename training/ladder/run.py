"""Climbing a ladder: its teachers, rungs and evaluations, each once, by one or several processes.

OUT/ladder.yaml                the resolved recipe
OUT/drives/                    synthetic frames, where the recipe wants them
OUT/seed_0/full/               a teacher: its run, evaluation/ and result.json
OUT/seed_0/RUNG/stage_1, ...   the runs of a rung; evaluation/ and result.json beside them
OUT/ladder.json, *.png         see summary.py and curves.py; renewed after every result
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.progress import show_progress
from cmkd_ros.training.engine.sources import frames_of
from cmkd_ros.training.engine.train import run_distill, run_teacher
from cmkd_ros.training.evaluate import evaluate_bundle
from cmkd_ros.training.ladder.claim import claimed
from cmkd_ros.training.ladder.curves import draw_curves
from cmkd_ros.training.ladder.frames import LadderFrames, provide_frames, some_labels
from cmkd_ros.training.ladder.recipe import LadderRecipe, load_ladder
from cmkd_ros.training.ladder.rungs import (
    STUDENT,
    TEACHER,
    rung_recipes,
    stage_folder,
    teacher_recipe,
)
from cmkd_ros.training.ladder.summary import RESULT, collect, write_summary

LOG = logging.getLogger('cmkd.ladder')
Report = Callable[[Path, Path, Path, Path], object]


@dataclass(frozen=True)
class _Site:
    """A ladder and the folder in which it is climbed."""

    ladder: LadderRecipe
    out: Path
    frames: LadderFrames

    def folder(self, seed: int) -> Path:
        return self.out.resolve() / f'seed_{seed}'


def climb(
    recipe_name: str | Path,
    overrides: tuple[str, ...],
    out: Path,
    seeds: tuple[int, ...] = (),
    report: Report | None = None,
) -> Path:
    """Train and evaluate the rungs of a ladder; what is finished already is not repeated.

    Several processes may climb the same ladder in the same folder: each takes the rungs that no
    other one works on. A training that was cut off goes on from its checkpoint.

    Args:
        recipe_name: recipe file or name; its task is `ladder`.
        overrides: 'key=value' changes to the recipe.
        out: folder of the ladder.
        seeds: only these of the recipe's; empty: all.
        report: called as (run folder, evaluation folder, data, frame list) for every evaluated
            student, to draw what it learned.

    Returns:
        `out`/ladder.json.

    Raises:
        FileExistsError: `out` holds something else, or another ladder.
        FileNotFoundError, ValueError: one sentence on what is wrong and where.
    """
    ladder = load_ladder(recipe_name, overrides)
    unknown = sorted(set(seeds) - set(ladder.seeds))
    if unknown:
        raise ValueError(f'seed: expected some of {list(ladder.seeds)}, found {unknown}')
    _claim_folder(out, ladder)
    site = _Site(ladder, out, provide_frames(ladder.data, out, ladder.unlabelled_numbers))
    for seed in seeds or ladder.seeds:
        for name in ladder.rungs:  # wrong keys are found before anything is trained
            rung_recipes(ladder, name, seed, site.frames, site.folder(seed))
    waiting = []
    for seed in seeds or ladder.seeds:
        for name in ladder.rungs:
            if not _climb_rung(site, seed, name, report):
                waiting.append(f'{name} of seed {seed}')
    if waiting:
        LOG.info('others are at %s', ', '.join(waiting))
    return _refresh(site)


def _claim_folder(out: Path, ladder: LadderRecipe) -> None:
    """Make the folder, or take it up if it holds the same ladder."""
    note = out / 'ladder.yaml'
    document = ladder.model_dump(mode='json')
    if not note.is_file():
        if out.exists() and any(out.iterdir()):
            raise FileExistsError(f'{out}: exists and holds no ladder; choose another --out')
        out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(note, yaml.safe_dump(document, sort_keys=False))
    elif yaml.safe_load(note.read_text(encoding='utf-8')) != document:
        raise FileExistsError(
            f'{note}: the ladder there has another recipe; choose another --out, or the same '
            'recipe and overrides'
        )


def _climb_rung(site: _Site, seed: int, name: str, report: Report | None) -> bool:
    """Train and evaluate a rung; False where another process is at it."""
    place = site.folder(seed) / name
    if (place / RESULT).is_file():
        return True
    with _lock(place.with_suffix('.lock'), wait=False) as mine:
        if not mine:
            return False
        teacher = site.ladder.rungs[name].teacher
        if teacher is not None:
            _train_teacher(site, seed, teacher)
        recipes = rung_recipes(site.ladder, name, seed, site.frames, site.folder(seed))
        seconds = 0.0
        for number, recipe in enumerate(recipes):
            run = stage_folder(site.folder(seed), name, number)
            if not (run / STUDENT).is_file():
                LOG.info('\n== seed %d, rung %s, stage %d', seed, name, number + 1)
                seconds += _timed(partial(run_distill, recipe, run, resume=run.exists()))
        _evaluate(site, place, run / STUDENT, seconds, report)
    return True


def _train_teacher(site: _Site, seed: int, name: str) -> None:
    """Train and evaluate a teacher, or wait for the process that does."""
    place = site.folder(seed) / name
    with _lock(place.with_suffix('.lock')):
        if (place / RESULT).is_file():
            return
        LOG.info('\n== seed %d, teacher %s', seed, name)
        share = site.ladder.teachers[name].labels
        labels = some_labels(site.frames.labelled, share, site.out)
        recipe = teacher_recipe(site.ladder, name, seed, site.frames, labels)
        seconds = 0.0
        if not (place / TEACHER).is_file():
            seconds = _timed(partial(run_teacher, recipe, place, resume=place.exists()))
        _evaluate(site, place, place / TEACHER, seconds, None)


def _evaluate(
    site: _Site, place: Path, bundle: Path, seconds: float, report: Report | None
) -> None:
    """Evaluate on the held-out frames, and note the result, which ends the work on it."""
    if int(os.environ.get('RANK', 0)):
        return
    source, folder = site.frames.evaluation, place / 'evaluation'
    split = site.out / 'evaluation.txt'
    write_text_atomically(split, ''.join(f'{frame}\n' for frame in frames_of(source)))
    shutil.rmtree(folder, ignore_errors=True)  # of an evaluation that was cut off
    with show_progress(f'evaluating {place.name}') as step:
        data = source.root / source.folder
        evaluate_bundle(bundle, data, split, out=folder, pictures=0, progress=step)
    if report is not None:
        report(bundle.parent, folder, source.root / source.folder, split)
    note = {'bundle': str(bundle.relative_to(site.out.resolve())), 'seconds': round(seconds, 1)}
    write_text_atomically(place / RESULT, json.dumps(note, indent=1) + '\n')
    _refresh(site)


def _refresh(site: _Site) -> Path:
    """Write table, JSON and pictures anew from all results that are there."""
    path = site.out / 'ladder.json'
    if int(os.environ.get('RANK', 0)) == 0:
        with claimed(site.out / 'ladder.lock'):
            results = collect(site.ladder, site.out)
            write_summary(site.ladder, results, path)
            draw_curves(site.ladder, results, site.out)
    return path


def _lock(path: Path, wait: bool = True) -> AbstractContextManager[bool]:
    # The processes of torchrun work on one run together: one lock for all would stop the others.
    if 'RANK' in os.environ:
        path = path.with_suffix(f'.{os.environ["RANK"]}.lock')
    return claimed(path, wait)


def _timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
