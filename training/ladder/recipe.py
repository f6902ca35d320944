"""Recipes of ladders: YAML files that say which rungs are compared, and on which frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cmkd_ros.model.spec import StrictModel, parse_model
from cmkd_ros.training.engine.recipe import Positive, SourceSpec, read_recipe

Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class SyntheticFrames(StrictModel):
    """Synthetic drives that the command makes itself; see docs/synthetic.md."""

    seed: Count  # the labelled drives have it, the unlabelled and the evaluated the two after it
    labelled: Positive  # frames
    unlabelled: Count
    evaluation: Positive
    width: Positive = 1242
    height: Positive = 375
    frames_per_drive: Positive = 5
    density: Annotated[float, Field(ge=0)] = 1.0
    workers: Positive = 1


class LadderData(StrictModel):
    """Where the frames come from: synthetic drives, or sources of one's own."""

    synthetic: SyntheticFrames | None = None
    labelled: SourceSpec | None = None
    unlabelled: SourceSpec | None = None
    evaluation: SourceSpec | None = None
    workers: Count = 0
    keep_in_memory: bool = False

    @model_validator(mode='after')
    def _one_kind(self) -> LadderData:
        own = (self.labelled, self.unlabelled, self.evaluation)
        if self.synthetic is not None and any(own):
            raise ValueError('expected either synthetic, or labelled and evaluation; found both')
        if self.synthetic is None and not (self.labelled and self.evaluation):
            raise ValueError('expected synthetic, or labelled and evaluation; found neither')
        for name, source in (('labelled', self.labelled), ('evaluation', self.evaluation)):
            if source is not None and not (source.labelled and source.layout == 'object'):
                raise ValueError(f'{name}: expected labelled frames in the object layout')
        return self


class TeacherPart(StrictModel):
    """One of the teachers of a ladder."""

    labels: Share = 1.0  # of the labelled frames, evenly spread


class StagePart(StrictModel):
    """One training of a rung."""

    share: Share = 1.0  # of the ladder's steps
    recipe: dict[str, Any]  # what differs from the ladder's `student`


class RungPart(StrictModel):
    """One way of teaching the student."""

    title: str
    teacher: str | None = None  # one of the ladder's `teachers`; none: labels teach
    unlabelled: bool | int = False  # the unlabelled frames too: all, or the first so many
    stages: tuple[StagePart, ...] = Field(min_length=1, max_length=2)

    @model_validator(mode='after')
    def _whole(self) -> RungPart:
        total = sum(stage.share for stage in self.stages)
        if abs(total - 1) > 1e-6:
            raise ValueError(f'expected shares of the stages that add up to 1, found {total:g}')
        if self.unlabelled < 0:
            raise ValueError(
                f'unlabelled: expected true, false or 0 and more frames, found {self.unlabelled}'
            )
        return self


class LadderRecipe(StrictModel):
    """A ladder: rungs that differ in what teaches, and in nothing else."""

    task: Literal['ladder']
    name: str
    seeds: tuple[Count, ...] = Field(min_length=1)
    steps: Positive  # optimiser steps of a rung, its stages together
    data: LadderData
    teacher: dict[str, Any]  # recipe of the teachers, without data, name and seed
    teachers: dict[str, TeacherPart]
    student: dict[str, Any]  # recipe of the students, likewise
    rungs: dict[str, RungPart] = Field(min_length=1)
    gains: tuple[tuple[str, str], ...] = ()  # (from, to): pairs of rungs whose difference is shown

    @model_validator(mode='after')
    def _names_are_known(self) -> LadderRecipe:
        for name, rung in self.rungs.items():
            if rung.teacher is not None and rung.teacher not in self.teachers:
                raise ValueError(
                    f'rungs.{name}.teacher: expected one of {", ".join(self.teachers)}, '
                    f'found {rung.teacher}'
                )
        unknown = [name for pair in self.gains for name in pair if name not in self.rungs]
        if unknown:
            raise ValueError(
                f'gains: expected names of rungs ({", ".join(self.rungs)}), found {unknown[0]}'
            )
        twice = sorted(set(self.teachers) & set(self.rungs))
        if twice:
            raise ValueError(f'{twice[0]}: expected another name for the rung than for the teacher')
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f'seeds: expected different ones, found {self.seeds}')
        return self

    @model_validator(mode='after')
    def _unlabelled_frames_are_there(self) -> LadderRecipe:
        synthetic = self.data.synthetic
        there = synthetic.unlabelled if synthetic is not None else self.data.unlabelled
        needy = [name for name, rung in self.rungs.items() if rung.unlabelled]
        if needy and not there:
            raise ValueError(
                f'rung {needy[0]} learns from unlabelled frames, but there are none: raise '
                'data.synthetic.unlabelled, or name a source in data.unlabelled, or take the rung '
                'out'
            )
        if synthetic is not None:
            self._numbers_fit(synthetic)
        return self

    def _numbers_fit(self, synthetic: SyntheticFrames) -> None:
        """Refuse numbers that are too high, or that cut a drive."""
        per_drive, there = synthetic.frames_per_drive, synthetic.unlabelled
        for name, rung in self.rungs.items():
            number = rung.unlabelled
            if number > there or (number is not True and number % per_drive and number != there):
                raise ValueError(
                    f'rungs.{name}.unlabelled: expected whole drives, multiples of '
                    f'data.synthetic.frames_per_drive = {per_drive}, up to '
                    f'data.synthetic.unlabelled = {there}, found {number}'
                )

    @property
    def unlabelled_numbers(self) -> tuple[int, ...]:
        """Numbers of unlabelled frames that rungs ask for, rising; all of them is none of these."""
        asked = [rung.unlabelled for rung in self.rungs.values()]
        return tuple(sorted({number for number in asked if number and number is not True}))


def load_ladder(name_or_path: str | Path, overrides: tuple[str, ...] = ()) -> LadderRecipe:
    """Read a ladder by path, or by name from `training/recipes/`.

    Args:
        name_or_path: 'x.yaml', or 'ladder_tiny', 'ladder_curve', 'ladder_full'.
        overrides: 'a.b=value' each.

    Raises:
        FileNotFoundError: no such recipe.
        ValueError: not a ladder, or a wrong key or value; names file, key, value and rule.
    """
    path, data = read_recipe(name_or_path, overrides)
    if data.get('task') != 'ladder':
        raise ValueError(f'{path}: task = {data.get("task")!r}: expected ladder')
    return parse_model(LadderRecipe, data, str(path))
