"""Where other streets cross the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ARM_M = 96.0
# The zebra's middle and half its width, from the edge of the crossing street.
ZEBRA_M, ZEBRA_HALF_M = 2.2, 1.4
LANE_M = 1.8


@dataclass(frozen=True)
class Crossing:
    """
    A street at right angles to the road.

    Attributes:
        s: where its middle meets the road, metres along it.
        half: half of its width, metres.
        zebra: whether stripes lead people over the road beside it.
    """

    s: float
    half: float
    zebra: bool


def random_crossings(rng: np.random.Generator, length: float) -> tuple[Crossing, ...]:
    """Draw the crossings of a road; a quarter of the roads have none."""
    found: list[Crossing] = []
    if rng.random() < 0.25:
        return ()
    s = rng.uniform(14.0, 90.0)
    while s < length - 15.0:
        # Even, so that the edges fall between two pieces of ground.
        found.append(Crossing(2.0 * round(s / 2), 4.0, bool(rng.random() < 0.6)))
        s += rng.uniform(60.0, 150.0)
    return tuple(found)


def crossing_within(crossings: tuple[Crossing, ...], low: float, high: float) -> Crossing | None:
    """Return the first crossing whose street touches this stretch of the road."""
    for crossing in crossings:
        if crossing.s + crossing.half > low and crossing.s - crossing.half < high:
            return crossing
    return None
