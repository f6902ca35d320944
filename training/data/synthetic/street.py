"""
The world of one drive: a road, what stands beside it, parked vehicles, daylight and traffic.

Built once per drive from its random generator alone; frames are views of it at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic import scenery
from cmkd_ros.training.data.synthetic.crossings import ARM_M, crossing_within
from cmkd_ros.training.data.synthetic.daylight import Daylight
from cmkd_ros.training.data.synthetic.road import (
    CURB_HEIGHT_M,
    ground_segments,
    terrain,
)
from cmkd_ros.training.data.synthetic.shapes import Shape
from cmkd_ros.training.data.synthetic.surfaces import Noise
from cmkd_ros.training.data.synthetic.traffic import Route, Traffic, random_vehicle

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """
    A shape at a place of the world.

    Attributes:
        shape: in its own frame.
        x, y, z, yaw: pose, metres and radians; z is where the shape's z = 0 lies.
        kind: KITTI class name, empty for scenery.
        size: (length, width, height) of the labelled box, centred on the shape's origin.
        offset: what the textures add to the local x (road pieces: their s; houses: a number that
            makes their windows differ).
        slopes: of the ground ahead and to the left, by which it is tilted.
    """

    shape: Shape
    x: float
    y: float
    z: float
    yaw: float
    kind: str = ''
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    offset: float = 0.0
    slopes: tuple[float, float] = (0.0, 0.0)


class Street:
    """
    Everything of one drive.

    Args:
        rng: the drive's generator.
        seconds: how long the drive takes.
        density: amount of traffic and parked cars, around 1.
    """

    def __init__(self, rng: np.random.Generator, seconds: float, density: float) -> None:
        # First of all, so that `Route.random` with the same generator gives the same route.
        self.route = Route.random(rng, seconds)
        self.section, self.road = self.route.section, self.route.road
        self.length = self.road.length
        self.traffic = Traffic(rng, self.route, seconds, density)
        self.daylight = Daylight.random(rng)
        self.noise = Noise(rng)
        self.fixed: list[Thing] = [Thing(terrain(self.road), 0.0, 0.0, 0.0, 0.0)]
        for shape, s in ground_segments(self.road, self.section, rng):
            x, y, yaw = self.road.pose(s, 0.0)
            self.fixed.append(Thing(shape, float(x), float(y), 0.0, float(yaw), offset=s))
        for sign in (-1, 1):
            self.fixed += self._parked(rng, sign, density)
            self.fixed += self._roadside(rng, sign)
            self.fixed += self._buildings(rng, sign)

    def moving(self, time: float) -> Iterator[Thing]:
        """The road users at this time."""
        for mover in self.traffic.movers:
            s, d = (float(v) for v in mover.motion.at(time))
            if abs(d) < ARM_M and s < self.length:
                yield self._place(
                    mover.shape_at(time),
                    s,
                    d,
                    mover.motion.heading,
                    self.section.kerb_height(s, d),
                    tilted=mover.kind not in ('Pedestrian', 'Cyclist'),
                    kind=mover.kind,
                    size=mover.size,
                )

    def _place(
        self,
        shape: Shape,
        s: float,
        d: float,
        turn: float,
        z: float,
        *,
        tilted: bool = False,
        kind: str = '',
        size: tuple[float, float, float] = (0.0, 0.0, 0.0),
        offset: float = 0.0,
    ) -> Thing:
        """Put a shape onto the ground, `z` above the road's surface, upright or tilted with it."""
        x, y, yaw = self.road.pose(s, d)
        ground = float(self.road.profile.height(s, d))
        slopes = self.road.profile.slopes(s, turn) if tilted else (0.0, 0.0)
        return Thing(
            shape, float(x), float(y), z + ground, float(yaw) + turn, kind, size, offset, slopes
        )

    def _crossed(self, low: float, high: float) -> bool:
        return crossing_within(self.section.crossings, low, high) is not None

    def _parked(self, rng: np.random.Generator, sign: int, density: float) -> Iterator[Thing]:
        side, lane = self.section.side(sign), self.section.lane
        if side.parking == 'none':
            return
        share = min(0.95, rng.uniform(0.25, 0.9) * density)
        towards = 0.0 if sign < 0 else np.pi
        s = rng.uniform(-6.0, 2.0)
        while s < self.length:
            pitch = {'parallel': 0.0, 'oblique': 3.1, 'square': 2.7}[side.parking]
            if rng.random() > share or self._crossed(s - 6.0, s + 9.0):
                s += rng.uniform(4.0, 7.0) if pitch == 0.0 else pitch
                continue
            kind, shape = random_vehicle(rng, trucks=0.015 if pitch == 0.0 else 0.0)
            length, width, height = np.diff(shape.bounds_23, axis=0)[0]
            reverse = rng.random() < (0.08 if pitch == 0.0 else 0.3)
            turn = towards + reverse * np.pi + rng.normal(0.0, 0.02)
            if side.parking == 'parallel':
                s += length / 2 + rng.uniform(0.5, 1.3)
                d = side.curb - 0.15 - width / 2 - rng.uniform(0.0, 0.15)
            else:
                lean = np.pi / 2 if side.parking == 'square' else np.pi / 3
                turn -= lean
                d = max(side.curb - 0.3 - length / 2 * np.sin(lean) - width / 4, lane + 1.9)
            size = (length, width, height)
            yield self._place(shape, s, sign * d, turn, 0.0, tilted=True, kind=kind, size=size)
            s += length / 2 + 0.1 if pitch == 0.0 else pitch + rng.uniform(0.0, 0.3)

    def _roadside(self, rng: np.random.Generator, sign: int) -> Iterator[Thing]:
        """Trees, lamps, signs and bins between the kerb and the houses."""
        side, z = self.section.side(sign), CURB_HEIGHT_M
        inwards = np.pi / 2 if sign < 0 else -np.pi / 2
        tree_d = float(rng.choice([side.curb + 0.6, side.walk + rng.uniform(0.8, 3.0)]))
        rows: list[tuple[float, float, str]] = []
        if rng.random() < 0.75:
            rows.append((rng.uniform(7.0, 16.0), tree_d, 'tree'))
        rows.append((rng.uniform(24.0, 34.0), side.curb + 0.4, 'lamp'))
        rows.append((rng.uniform(18.0, 45.0), side.curb + 0.45, 'sign'))
        rows.append((rng.uniform(16.0, 50.0), side.walk - 0.5, 'box'))
        rows.append((rng.uniform(5.0, 14.0), side.walk + rng.uniform(1.5, 4.0), 'bush'))
        if side.parking == 'none' and rng.random() < 0.4:
            rows.append((3.0, side.curb + 0.35, 'bollard'))
        spruces = rng.random() < 0.2
        for pitch, d, kind in rows:
            s = rng.uniform(-15.0, 5.0)
            while s < self.length:
                shape, turn = self._roadside_shape(rng, kind, inwards, spruces, sign)
                spread = 0.0 if kind in ('lamp', 'bollard') else 0.3
                wanted = kind == 'bollard' or rng.random() < 0.85
                if wanted and not self._crossed(s - 1.2, s + 1.2):
                    yield self._place(shape, s, sign * d, turn, z, offset=float(rng.random()) * 9)
                s += pitch * rng.uniform(1 - spread, 1 + spread)

    @staticmethod
    def _roadside_shape(
        rng: np.random.Generator, kind: str, inwards: float, spruces: bool, sign: int
    ) -> tuple[Shape, float]:
        if kind == 'lamp':
            return scenery.lamp_post(rng), inwards
        if kind == 'sign':
            return scenery.traffic_sign(rng), 0.0 if sign < 0 else np.pi
        if kind == 'box':
            return scenery.street_box(rng), inwards + rng.choice([0.0, np.pi / 2])
        if kind == 'bollard':
            return scenery.bollard(), 0.0
        if kind == 'bush':
            return scenery.bush(rng), float(rng.uniform(0, 6))
        return (scenery.conifer if spruces else scenery.tree)(rng), float(rng.uniform(0, 6))

    def _buildings(self, rng: np.random.Generator, sign: int) -> Iterator[Thing]:
        """Houses with gaps, garden walls or hedges before them, now and then a car in a drive."""
        side, z = self.section.side(sign), CURB_HEIGHT_M
        setback = float(rng.choice([0.3, rng.uniform(3.0, 8.0)]))
        if setback < 1.0 and not side.paved:
            setback += 1.5
        gap = rng.uniform(0.0, 4.0) if setback < 2.0 else rng.uniform(4.0, 14.0)
        fence = str(rng.choice(['none', 'hedge', 'wall'])) if setback > 2.5 else 'none'
        s = rng.uniform(-25.0, -15.0)
        while s < self.length:
            length, depth = rng.uniform(9.0, 24.0), rng.uniform(8.0, 12.0)
            middle = s + length / 2
            crossing = crossing_within(self.section.crossings, s - 2.5, s + length + 2.5)
            if crossing is not None:
                s = crossing.s + crossing.half + rng.uniform(2.6, 5.0)
                continue
            if rng.random() < 0.85:
                shape = scenery.building(rng, length, depth)
                d = side.walk + setback + depth / 2 + rng.uniform(0.0, 0.8)
                number = float(rng.integers(1000))
                yield self._place(shape, middle, sign * d, 0.0 if sign < 0 else np.pi, z - 0.1,
                                  offset=number)  # fmt: skip
            else:
                shape = scenery.tree(rng)
                yield self._place(shape, middle, sign * (side.walk + 7.0), 0.0, z, offset=1.0)
            if fence != 'none':
                build = scenery.hedge if fence == 'hedge' else scenery.wall
                d = side.walk + 0.5
                yield self._place(build(rng, length), middle, sign * d, 0.0, z - 0.1, tilted=True,
                                  offset=middle)  # fmt: skip
            drive = s + length + gap / 2
            free = gap > 4.0 and setback > 2.5 and not self._crossed(drive - 3.0, drive + 3.0)
            if free and rng.random() < 0.5:
                yield self._driveway_car(rng, sign, drive, side.walk + 3.2)
            s += length + gap * rng.uniform(0.8, 1.3)

    def _driveway_car(self, rng: np.random.Generator, sign: int, s: float, d: float) -> Thing:
        kind, shape = random_vehicle(rng, trucks=0.0)
        length, width, height = np.diff(shape.bounds_23, axis=0)[0]
        turn = float(rng.choice([-np.pi / 2, np.pi / 2])) + rng.normal(0.0, 0.05)
        size = (length, width, height)
        z = CURB_HEIGHT_M
        return self._place(shape, s, sign * d, turn, z, tilted=True, kind=kind, size=size)
