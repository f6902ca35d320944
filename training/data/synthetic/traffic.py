"""
Everything that moves: vehicles in lanes, cyclists, pedestrians, and the sensors' own car.

Motion is given in road coordinates as a function of time, so that any frame of a drive can be
built without the frames before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic import people, vehicles
from cmkd_ros.training.data.synthetic.crossings import (
    ARM_M,
    LANE_M,
    ZEBRA_M,
    random_crossings,
)
from cmkd_ros.training.data.synthetic.road import CrossSection, Road
from cmkd_ros.training.data.synthetic.shapes import Shape

FloatArray = NDArray[np.float64]
VIEW_M = 120.0


@dataclass(frozen=True)
class Motion:
    """
    A path in road coordinates: constant speed, and a slow sway of the speed.

    Attributes:
        s, d: position at time 0.
        speed: metres per second along `heading`.
        heading: direction of travel relative to the road, radians.
        sway_m, sway_rad_s, sway_phase: s is moved by sway_m * sin(sway_rad_s * t + phase).
    """

    s: float
    d: float
    speed: float
    heading: float = 0.0
    sway_m: float = 0.0
    sway_rad_s: float = 0.0
    sway_phase: float = 0.0

    def at(self, time: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """(s, d) at these times in seconds."""
        sway = self.sway_m * np.sin(self.sway_rad_s * time + self.sway_phase)
        ahead = self.speed * np.asarray(time)
        return self.s + ahead * np.cos(self.heading) + sway, self.d + ahead * np.sin(self.heading)


@dataclass(frozen=True)
class Mover:
    """
    A road user.

    Attributes:
        kind: KITTI class name.
        size: length, width, height of the box that holds every phase of its shape.
        shapes: one shape, or the phases of a stride.
        motion: where it is when.
        stride_m: distance after which the phases repeat.
    """

    kind: str
    size: tuple[float, float, float]
    shapes: tuple[Shape, ...]
    motion: Motion
    stride_m: float = 1.0

    def shape_at(self, time: float) -> Shape:
        """The phase at this time."""
        count = len(self.shapes)
        step = np.floor(self.motion.speed * time / self.stride_m * count)
        return self.shapes[int(step) % count]


def mover(kind: str, shapes: tuple[Shape, ...], motion: Motion, stride_m: float = 1.0) -> Mover:
    """A road user whose box is centred on its shapes (all phases together)."""
    low = np.min([s.bounds_23[0] for s in shapes], axis=0)
    high = np.max([s.bounds_23[1] for s in shapes], axis=0)
    middle = (low + high) / 2
    centred = tuple(s.moved(-middle[0], -middle[1], -low[2]) for s in shapes)
    size = high - low
    return Mover(kind, (size[0], size[1], size[2]), centred, motion, stride_m)


def random_vehicle(rng: np.random.Generator, trucks: float = 0.06) -> tuple[str, Shape]:
    """KITTI class and shape of a vehicle as they are met on the road."""
    draw = rng.random()
    if draw < trucks:
        return 'Truck', vehicles.truck(rng)
    return ('Van', vehicles.van(rng)) if draw < trucks + 0.09 else ('Car', vehicles.car(rng))


@dataclass(frozen=True)
class Route:
    """
    Where the sensors' car drives.

    Attributes:
        section: what lies across the road.
        own: its motion.
        road: long enough for what it sees until the end.
    """

    section: CrossSection
    own: Motion
    road: Road

    @classmethod
    def random(cls, rng: np.random.Generator, seconds: float) -> Route:
        """A road and a speed for a drive of so many seconds; some drives stand still."""
        section = CrossSection.random(rng)
        speed = float(rng.uniform(4.0, 14.0)) if rng.random() > 0.06 else 0.0
        own = Motion(0.0, -section.lane / 2 + rng.normal(0.0, 0.12), speed)
        road = Road(rng, speed * seconds + VIEW_M + 30.0)
        crossings = random_crossings(rng, road.length)
        return cls(replace(section, crossings=crossings), own, road)

    def own_pose(self, time: float) -> tuple[float, float, float]:
        """World x, y and heading of the sensors' car."""
        s, d = self.own.at(time)
        x, y, yaw = self.road.pose(s, d)
        return float(x), float(y), float(yaw) + self.own.heading

    def own_ground(self, time: float) -> tuple[float, tuple[float, float]]:
        """Height of the road under the sensors' car, and its slopes ahead and to the left."""
        s, d = (float(v) for v in self.own.at(time))
        profile = self.road.profile
        return float(profile.height(s, d)), profile.slopes(s, self.own.heading)


class Traffic:
    """
    All movers of a drive but the sensors' car; none passes through another.

    Args:
        route: of the sensors' car.
        seconds: how long the drive takes.
        density: amount of traffic, around 1.
    """

    def __init__(
        self, rng: np.random.Generator, route: Route, seconds: float, density: float
    ) -> None:
        self.own, section, speed = route.own, route.section, route.own.speed
        self.movers: list[Mover] = []
        self._rng, self._section, self._seconds, self._density = rng, section, seconds, density
        self._reach = VIEW_M + speed * seconds
        self._paths: list[tuple[FloatArray, FloatArray, float, float]] = []
        self._admit_path(self.own, (4.4, 1.8, 1.6), 2.0)
        self._lane_ahead()
        self._oncoming()
        self._crossing_traffic()
        self._cyclists()
        self._pedestrians()

    def _lane_ahead(self) -> None:
        rng = self._rng
        speed = self.own.speed + rng.uniform(-0.6, 1.5) if self.own.speed else 0.0
        s = self.own.s + rng.uniform(9.0, 45.0) + self._seconds * 0.6
        while s < self._reach:
            if rng.random() < min(0.8, 0.55 * self._density):
                self._admit_vehicle(Motion(s, self._lane_d(-1), speed, 0.0, *self._sway()))
            s += rng.uniform(11.0, 40.0)

    def _oncoming(self) -> None:
        rng = self._rng
        speed = rng.uniform(5.0, 13.0)
        s = rng.uniform(6.0, 30.0)
        while s < self._reach + speed * self._seconds:
            if rng.random() < min(0.8, 0.6 * self._density):
                self._admit_vehicle(Motion(s, self._lane_d(1), speed, np.pi, *self._sway()))
            s += rng.uniform(11.0, 40.0)

    def _crossing_traffic(self) -> None:
        """Vehicles on the streets that cross: waiting at the line, or driving over."""
        rng = self._rng
        for crossing in self._section.crossings:
            for sign in (-1, 1):
                s, heading = crossing.s + sign * LANE_M, sign * np.pi / 2
                line = self._section.side(-sign).curb + 2 * ZEBRA_M
                d = line + rng.uniform(2.5, 4.5)
                waiting = rng.random() < 0.5
                speed = 0.0 if waiting else rng.uniform(5.0, 10.0)
                d += 0.0 if waiting else rng.uniform(0.0, 40.0)
                while d < ARM_M - 6.0:
                    if rng.random() < min(0.8, 0.55 * self._density):
                        self._admit_vehicle(Motion(s, -sign * d, speed, heading))
                    d += rng.uniform(6.5, 9.0) if waiting else rng.uniform(12.0, 40.0)

    def _cyclists(self) -> None:
        rng = self._rng
        for _ in range(rng.poisson(2.6 * self._density * self._reach / VIEW_M)):
            sign = int(rng.choice([-1, 1]))
            d = sign * (self._section.lane - rng.uniform(0.2, 0.6))
            heading = 0.0 if sign < 0 else np.pi
            motion = Motion(rng.uniform(5.0, self._reach), d, rng.uniform(2.5, 6.0), heading)
            rider, colour = people.Person.random(rng), rng.uniform(0.02, 0.6, 3) ** 1.5
            turn = rng.random()
            self._admit(
                'Cyclist',
                motion,
                partial(_riding, rider, colour, turn),
                people.CRANK_TURN_M,
                (1.8, 0.6, 1.75),
            )

    def _pedestrians(self) -> None:
        rng = self._rng
        for _ in range(rng.poisson(7.0 * self._density * self._reach / VIEW_M)):
            sign = int(rng.choice([-1, 1]))
            side = self._section.side(sign)
            walk = (side.curb + 0.5, side.walk - 0.2)
            s, draw = rng.uniform(5.0, self._reach), rng.random()
            zebras = [c for c in self._section.crossings if c.zebra]
            if zebras and rng.random() < 0.25:
                at = zebras[rng.integers(len(zebras))]
                s, draw = at.s + rng.choice([-1, 1]) * (at.half + ZEBRA_M), 1.0
            pace = rng.uniform(0.8, 1.7)
            if draw < 0.72:
                heading = float(rng.choice([0.0, np.pi]))
            elif draw < 0.9:
                pace, heading = 0.0, float(rng.uniform(-np.pi, np.pi))
            else:
                # Across the road.
                heading = -sign * np.pi / 2
                walk = (0.0, side.curb)
            motion = Motion(s, sign * rng.uniform(*walk), pace, heading)
            walker = people.Person.random(rng)
            phases = tuple(i / people.PHASES for i in range(people.PHASES)) if pace else (None,)
            self._admit(
                'Pedestrian',
                motion,
                partial(_walking, walker, phases),
                people.STRIDE_M,
                (0.7, 0.7, 1.75),
            )

    def _lane_d(self, sign: int) -> float:
        return float(sign * self._section.lane / 2 + self._rng.normal(0.0, 0.15))

    def _sway(self) -> tuple[float, float, float]:
        rng = self._rng
        return float(rng.uniform(0.0, 1.2)), float(rng.uniform(0.2, 0.7)), float(rng.uniform(0, 6))

    def _admit_vehicle(self, motion: Motion) -> None:
        kind, shape = random_vehicle(self._rng)
        self._admit(kind, motion, lambda: (shape,), 1.0, None)

    def _admit(
        self,
        kind: str,
        motion: Motion,
        build: Callable[[], tuple[Shape, ...]],
        stride_m: float,
        size: tuple[float, float, float] | None,
    ) -> None:
        """Add the road user unless it would touch another; its shapes are built only then."""
        if size is None:
            extent = np.diff(build()[0].bounds_23, axis=0)[0]
            size = (extent[0], extent[1], extent[2])
        if self._admit_path(motion, size, 0.35):
            self.movers.append(mover(kind, build(), motion, stride_m))

    def _admit_path(self, motion: Motion, size: tuple[float, float, float], gap: float) -> bool:
        times = np.arange(0.0, self._seconds + 0.25, 0.25)
        s, d = motion.at(times)
        cos, sin = abs(np.cos(motion.heading)), abs(np.sin(motion.heading))
        along, across = cos * size[0] + sin * size[1], sin * size[0] + cos * size[1]
        for s2, d2, along2, across2 in self._paths:
            near = np.abs(s - s2) < (along + along2) / 2 + gap + 0.5
            if (near & (np.abs(d - d2) < (across + across2) / 2 + gap)).any():
                return False
        self._paths.append((s, d, along, across))
        return True


def _riding(rider: people.Person, colour: FloatArray, turn: float) -> tuple[Shape, ...]:
    """A cyclist at four phases of the crank."""
    return tuple(people.cyclist(rider, colour, turn + i / 4) for i in range(4))


def _walking(walker: people.Person, phases: tuple[float | None, ...]) -> tuple[Shape, ...]:
    return tuple(people.pedestrian(walker, phase) for phase in phases)
