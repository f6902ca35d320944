"""
Ups and downs of a road: its height and its slope across, as functions of the way along it.

Letters: P points every `step` metres along the road.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
# The slope across holds up to here from the centre line; the land beyond is level with that.
BANKED_M = 12.0
STEEPEST, MOST_BANKED = 0.08, 0.03
_KNOTS_M = (45.0, 90.0)


@dataclass(frozen=True)
class Profile:
    """
    Heights along a road.

    Attributes:
        heights_P: height of the centre line, metres.
        grades_P: metres up per metre along the road.
        banks_P: metres up per metre to the left.
        start: where the first point lies along the road, metres.
        step: distance between points, metres.
    """

    heights_P: FloatArray
    grades_P: FloatArray
    banks_P: FloatArray
    start: float
    step: float

    @classmethod
    def random(cls, rng: np.random.Generator, count: int, start: float, step: float) -> Profile:
        """Flat land for some drives, rolling land for the others; the height at s = 0 is 0."""
        hilly = float(rng.choice([0.004, 0.02, 0.035], p=[0.25, 0.45, 0.3]))
        s = start + np.arange(count) * step
        knots = [start]
        while knots[-1] < s[-1]:
            knots.append(knots[-1] + rng.uniform(*_KNOTS_M))
        grades = np.clip(rng.normal(0.0, hilly, len(knots)), -STEEPEST, STEEPEST)
        banks = np.clip(rng.normal(0.0, 0.3 * hilly, len(knots)), -MOST_BANKED, MOST_BANKED)
        grades_P = np.interp(s, knots, grades)
        heights_P = np.concatenate([[0.0], np.cumsum(grades_P[:-1]) * step])
        heights_P -= np.interp(0.0, s, heights_P)
        return cls(heights_P, grades_P, np.interp(s, knots, banks), start, step)

    @classmethod
    def level(cls, start: float = 0.0, step: float = 1.0) -> Profile:
        """No ups and downs at all."""
        return cls(np.zeros(2), np.zeros(2), np.zeros(2), start, step)

    def height(self, s: ArrayLike, d: ArrayLike) -> FloatArray:
        """Height of the ground at road coordinates, metres."""
        bank = self._along(self.banks_P, s)
        return self._along(self.heights_P, s) + bank * np.clip(d, -BANKED_M, BANKED_M)

    def slopes(self, s: float, turn: float) -> tuple[float, float]:
        """Slope ahead and to the left of something turned by `turn` radians from the road."""
        grade, bank = float(self._along(self.grades_P, s)), float(self._along(self.banks_P, s))
        cos, sin = float(np.cos(turn)), float(np.sin(turn))
        return cos * grade + sin * bank, cos * bank - sin * grade

    def _along(self, values_P: FloatArray, s: ArrayLike) -> FloatArray:
        """Values between the points; beyond the ends they stay."""
        last = len(values_P) - 1
        position = np.clip((np.asarray(s, dtype=np.float64) - self.start) / self.step, 0.0, last)
        index = np.minimum(np.floor(position).astype(np.int64), last - 1)
        share = position - index
        return values_P[index] * (1 - share) + values_P[index + 1] * share


def rotation(yaw: float, slopes: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
    """
    Rotation (3, 3) of something that stands on sloping ground.

    Args:
        yaw: about the world's z, radians.
        slopes: of the ground ahead of it and to its left.

    Returns:
        Columns forward, left and up in the world.
    """
    cos, sin = np.cos(yaw), np.sin(yaw)
    ahead = np.array([cos, sin, slopes[0]]) / np.sqrt(1 + slopes[0] ** 2)
    left = np.array([-sin, cos, slopes[1]])
    left -= ahead * (ahead * left).sum()
    left /= np.sqrt((left * left).sum())
    up = [
        ahead[1] * left[2] - ahead[2] * left[1],
        ahead[2] * left[0] - ahead[0] * left[2],
        ahead[0] * left[1] - ahead[1] * left[0],
    ]
    return np.stack([ahead, left, np.array(up)], axis=1)
