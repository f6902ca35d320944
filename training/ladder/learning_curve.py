"""Learning curves in a ladder: rungs that differ in the number of unlabelled frames only."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cmkd_ros.training.ladder.frames import count_unlabelled
from cmkd_ros.training.ladder.recipe import LadderRecipe

_FEWEST = 3  # points; two are a gain, not a curve


@dataclass(frozen=True)
class CurvePoint:
    """One rung of a curve.

    Attributes:
        unlabelled: number of unlabelled frames.
        rung: its name.
    """

    unlabelled: int
    rung: str


@dataclass(frozen=True)
class LearningCurve:
    """Rungs with the same teacher and stages.

    Attributes:
        teacher: of the ladder's, that all of them have.
        points: at least three, by rising number of frames.
    """

    teacher: str
    points: tuple[CurvePoint, ...]


def find_learning_curves(ladder: LadderRecipe) -> list[LearningCurve]:
    """The learning curves of a ladder, in the order of its rungs.

    Nothing in the recipe names them: they are the sets of at least three rungs that have the same
    teacher and stages, and different numbers of unlabelled frames.
    """
    groups: dict[str, dict[int, str]] = {}
    teachers = {}
    for name, rung in ladder.rungs.items():
        if rung.teacher is None:
            continue  # labels teach, and unlabelled frames have none
        alike = json.dumps(rung.model_dump(mode='json', include={'teacher', 'stages'}))
        count = count_unlabelled(ladder.data, rung.unlabelled)
        groups.setdefault(alike, {}).setdefault(count, name)
        teachers[alike] = rung.teacher
    return [
        LearningCurve(
            teachers[alike], tuple(CurvePoint(count, rungs[count]) for count in sorted(rungs))
        )
        for alike, rungs in groups.items()
        if len(rungs) >= _FEWEST
    ]
