"""
The road: a curved centre line, what lies across it, and the ground as triangles.

Road coordinates: s metres along the centre line, d metres to the left of it. The car that carries
the sensors starts at s = 0 and drives on the right, towards growing s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmkd_ros.training.data.synthetic.crossings import ARM_M, Crossing, crossing_within
from cmkd_ros.training.data.synthetic.hills import BANKED_M, Profile
from cmkd_ros.training.data.synthetic.shapes import Shape, merge, quads
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]
STEP_M = 0.5
SEGMENT_M = 2.0
BEHIND_M = 24.0
CURB_HEIGHT_M = 0.12
VERGE_END_M = 16.0
# The land around: how far it reaches, its mesh, and how far below the street it lies.
LAND_M, LAND_CELL_M, LAND_BELOW_M = 320.0, 12.0, 0.3
_ASPHALT, _PAVING, _KERB = (0.105, 0.105, 0.11), (0.24, 0.225, 0.21), (0.36, 0.35, 0.33)
_GRASS = (0.065, 0.095, 0.028)


@dataclass(frozen=True)
class Side:
    """
    One side of the road, distances from the centre line.

    Attributes:
        parking: 'none', 'parallel', 'oblique' or 'square' to the kerb.
        curb: where the kerb stands.
        walk: where the sidewalk ends.
        paved: whether paving or grass follows.
    """

    parking: str
    curb: float
    walk: float
    paved: bool


@dataclass(frozen=True)
class CrossSection:
    """
    What lies across the road.

    Attributes:
        lane: width of each of the two lanes.
        left, right: the sides.
        centre_mark: 'none', 'dashed' or 'solid'.
        edge_marks: whether lines bound the lanes.
        wear: how patched the asphalt is, 0 to 1.
        shade: brightness of the asphalt, around 1.
        crossings: streets that cross it.
    """

    lane: float
    left: Side
    right: Side
    centre_mark: str
    edge_marks: bool
    wear: float
    shade: float
    crossings: tuple[Crossing, ...] = ()

    @classmethod
    def random(cls, rng: np.random.Generator) -> CrossSection:
        lane = float(rng.uniform(3.0, 3.7))
        return cls(
            lane=lane,
            left=_random_side(rng, lane),
            right=_random_side(rng, lane),
            centre_mark=str(rng.choice(['none', 'dashed', 'solid'], p=[0.25, 0.6, 0.15])),
            edge_marks=bool(rng.random() < 0.5),
            wear=float(rng.uniform(0.0, 1.0)),
            shade=float(rng.uniform(0.7, 1.5)),
        )

    def side(self, sign: int) -> Side:
        """The left side for +1, the right one for -1."""
        return self.left if sign > 0 else self.right

    def kerb_height(self, s: float, d: float) -> float:
        """Height of the ground above the road's surface: 0 on asphalt."""
        on_road = -self.right.curb < d < self.left.curb
        crossed = on_road or crossing_within(self.crossings, s, s) is not None
        return 0.0 if crossed else CURB_HEIGHT_M


def _random_side(rng: np.random.Generator, lane: float) -> Side:
    parking = str(rng.choice(['none', 'parallel', 'oblique', 'square'], p=[0.2, 0.5, 0.14, 0.16]))
    width = {'none': 0.35, 'parallel': 2.15, 'oblique': 4.5, 'square': 4.9}[parking]
    curb = lane + width
    return Side(parking, curb, curb + float(rng.uniform(1.6, 3.4)), bool(rng.random() < 0.3))


class Road:
    """A centre line of straight and curved pieces, from `BEHIND_M` behind the start to `length`."""

    def __init__(self, rng: np.random.Generator, length: float) -> None:
        count = int((BEHIND_M + length) / STEP_M) + 2
        curvature = np.zeros(count)
        # Straight around the start, so that the first frame looks along the road.
        begin = int((BEHIND_M + rng.uniform(0, 30)) / STEP_M)
        while begin < count:
            end = begin + int(rng.uniform(30, 90) / STEP_M)
            curvature[begin:end] = rng.choice([0.0, 1.0, -1.0]) / rng.uniform(130, 500)
            begin = end
        self.length = length
        self._yaw = np.cumsum(curvature) * STEP_M
        steps = np.stack([np.cos(self._yaw), np.sin(self._yaw)], -1) * STEP_M
        start = int(BEHIND_M / STEP_M)
        points = np.concatenate([[[0.0, 0.0]], np.cumsum(steps, axis=0)[:-1]])
        self._points = points - points[start]
        self._yaw -= self._yaw[start]
        self.profile = Profile.random(rng, count, -BEHIND_M, STEP_M)

    def pose(self, s: ArrayLike, d: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
        """World x, y and the road's heading at road coordinates; straight on beyond the ends."""
        s, d = np.broadcast_arrays(np.asarray(s, dtype=np.float64), d)
        position = (s + BEHIND_M) / STEP_M
        index = np.clip(np.floor(position).astype(np.int64), 0, len(self._yaw) - 2)
        beyond = position - index
        share = np.clip(beyond, 0.0, 1.0)
        yaw = self._yaw[index] * (1 - share) + self._yaw[index + 1] * share
        x = self._points[index, 0] + beyond * (self._points[index + 1, 0] - self._points[index, 0])
        y = self._points[index, 1] + beyond * (self._points[index + 1, 1] - self._points[index, 1])
        return x - d * np.sin(yaw), y + d * np.cos(yaw), yaw


def ground_segments(
    road: Road, section: CrossSection, rng: np.random.Generator
) -> list[tuple[Shape, float]]:
    """
    The ground in pieces of `SEGMENT_M`, each with the s where it begins.

    A piece is given in the frame of its first centre point, so that its local x and y are road
    coordinates: the marks are painted by them.
    """
    tone = {s: rng.uniform(0.75, 1.2) for s in ('paving', 'grass')}
    count = int(np.ceil((BEHIND_M + road.length) / SEGMENT_M))
    ends = -BEHIND_M + np.arange(count + 1, dtype=np.float64) * SEGMENT_M
    plain, crossed = (
        _laid(road, ends, strips) for strips in (_strips(section, tone), _crossing_strips(section))
    )
    pieces = []
    for i, (x, y, yaw) in enumerate(zip(*road.pose(ends[:-1], 0.0), strict=True)):
        middle = ends[i] + SEGMENT_M / 2
        crossing = crossing_within(section.crossings, middle, middle)
        laid = plain if crossing is None else crossed
        parts = [strip.part(2 * i, 2 * i + 2) for strip in laid]
        for end in (i, i + 1):
            if crossing is not None and abs(abs(ends[end] - crossing.s) - crossing.half) < 0.1:
                parts.append(_kerb_ends(road, section, float(ends[end])))
        piece = merge(parts).moved(-x, -y).moved(0.0, 0.0, 0.0, -yaw)
        pieces.append((piece, float(ends[i])))
    return pieces


def _laid(road: Road, ends_S: NDArray[np.floating], strips: list[tuple]) -> list[Shape]:
    """The strips in the world, each two triangles between one end and the next."""
    shapes = []
    for d0, d1, z0, z1, colour, material in strips:
        inner, outer = (_edge(road, ends_S, d, z) for d, z in ((d0, z0), (d1, z1)))
        corners = [inner[:-1], inner[1:], outer[1:], outer[:-1]]
        shapes.append(quads(np.stack(corners, axis=1), colour, material))
    return shapes


def _edge(road: Road, ends_S: NDArray[np.floating], d: float, z: float) -> FloatArray:
    """Points (S, 3) of the world along a strip's edge."""
    x, y, _ = road.pose(ends_S, d)
    return np.stack([x, y, z + road.profile.height(ends_S, d)], -1)


def _kerb_ends(road: Road, section: CrossSection, s: float) -> Shape:
    """The step from the pavements down to a street that crosses here."""
    faces = []
    for sign in (-1, 1):
        side = section.side(sign)
        corners = []
        for d, z in ((side.curb, 0.0), (BANKED_M, 0.0), (BANKED_M, CURB_HEIGHT_M),
                     (side.curb, CURB_HEIGHT_M)):  # fmt: skip
            x, y, _ = road.pose(s, sign * d)
            corners.append((float(x), float(y), z + float(road.profile.height(s, sign * d))))
        faces.append(corners)
    return quads(faces, _KERB, Material.CURB)


def _crossing_strips(section: CrossSection) -> list[tuple]:
    """As `_strips`, where another street crosses: asphalt to both sides."""
    asphalt = np.array(_ASPHALT) * section.shade
    bounds = [-ARM_M, -BANKED_M, -section.right.curb, section.left.curb, BANKED_M, ARM_M]
    return [
        (d0, d1, 0.0, 0.0, asphalt, Material.ROAD)
        for d0, d1 in zip(bounds, bounds[1:], strict=False)
    ]


def _strips(section: CrossSection, tone: dict[str, float]) -> list[tuple]:
    """(d from, d to, z from, z to, colour, material) of the strips, from right to left."""
    asphalt = np.array(_ASPHALT) * section.shade
    paving, grass = np.array(_PAVING) * tone['paving'], np.array(_GRASS) * tone['grass']
    strips: list[tuple] = [
        (-section.right.curb, section.left.curb, 0.0, 0.0, asphalt, Material.ROAD)
    ]
    for sign in (-1, 1):
        side, high = section.side(sign), CURB_HEIGHT_M
        rest = (paving, Material.SIDEWALK) if side.paved else (grass, Material.GRASS)
        outward: list[tuple] = [
            (side.curb, side.curb, 0.0, high, _KERB, Material.CURB),
            (side.curb, side.curb + 0.15, high, high, _KERB, Material.CURB),
            (side.curb + 0.15, side.walk, high, high, paving, Material.SIDEWALK),
            (side.walk, side.walk + VERGE_END_M, high, high, *rest),
            (
                side.walk + VERGE_END_M,
                side.walk + VERGE_END_M + 5.0,
                high,
                -2 * LAND_BELOW_M,
                grass,
                Material.GRASS,
            ),
        ]
        for d0, d1, z0, z1, colour, material in outward:
            ordered = (d0, d1, z0, z1) if sign > 0 else (-d1, -d0, z1, z0)
            strips.append((*ordered, colour, material))
    return strips


def terrain(road: Road) -> Shape:
    """Grass to the horizon, a little below the street."""
    s = np.arange(-BEHIND_M, road.length + 1.0, 4.0)
    line = np.stack(road.pose(s, 0.0)[:2], -1)
    low, high = line.min(0) - LAND_M, line.max(0) + LAND_M
    x, y = (np.arange(low[i], high[i] + LAND_CELL_M, LAND_CELL_M) for i in (0, 1))
    heights = road.profile.height(s, 0.0)
    # As high as the nearest point of the road, or the lower of its two banks.
    lowest = np.minimum(road.profile.height(s, BANKED_M), road.profile.height(s, -BANKED_M))
    points = np.empty((len(x), len(y), 3))
    for i, column in enumerate(x):
        squared = (column - line[:, 0]) ** 2 + (y[:, None] - line[:, 1]) ** 2
        nearest = squared.argmin(1)
        z = np.minimum(lowest, heights)[nearest] - LAND_BELOW_M
        points[i] = np.stack([np.full(len(y), column), y, z], -1)
    corners = [points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]]
    return quads(np.stack(corners, axis=2).reshape(-1, 4, 3), _GRASS, Material.GRASS)
