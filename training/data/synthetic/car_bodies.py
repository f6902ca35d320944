"""
Bodies of cars and vans: a lofted lower part, and a cabin of windows, pillars and a roof.

Lengths run from the rear (-x) to the front; shares of the length from 0 to 1 do so too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.shapes import Shape, loft, merge, quads
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]
Point = tuple[float, float, float]
WINDOW = (0.016, 0.020, 0.024)


@dataclass(frozen=True)
class CarStyle:
    """
    Side view of a car in shares of length (from the rear, 0 to 1) and of height (0 to 1).

    Attributes:
        belt: height of the lower edge of the windows.
        bonnet: height of the bonnet's front edge.
        boot: height of the boot's rear edge.
        cabin: where the cabin's foot begins and ends.
        roof: where the roof begins and ends.
    """

    belt: float
    bonnet: float
    boot: float
    cabin: tuple[float, float]
    roof: tuple[float, float]


def lower_body(
    length: float, width: float, height: float, style: CarStyle, colour: FloatArray
) -> Shape:
    """The body below the windows: rounded bumpers, a bonnet that falls, sides that bulge."""
    belt, foot = style.belt, style.cabin[1]
    fall = style.bonnet + 0.35 * (belt - style.bonnet)
    profile = [
        *((0.0, style.boot - 0.08), (0.015, style.boot - 0.01), (0.05, style.boot)),
        *((max(style.cabin[0], 0.07), belt), (0.5, belt), (foot, belt)),
        *((foot + 0.6 * (0.965 - foot), fall), (0.97, style.bonnet - 0.02)),
        *((0.99, style.bonnet - 0.06), (1.0, style.bonnet - 0.15)),
    ]
    share_x, top = np.array(profile).T
    where = [0.0, 0.015, 0.05, 0.16, 0.75, 0.93, 0.98, 1.0]
    bottom = np.interp(share_x, where, [0.27, 0.19, 0.15, 0.13, 0.13, 0.14, 0.17, 0.24])
    half = np.interp(share_x, where, [0.40, 0.45, 0.485, 0.5, 0.5, 0.475, 0.43, 0.37]) * width
    x = (share_x - 0.5) * length
    # Half a cross-section from the sill up: (share of half width, share of the height).
    outline = [(0.86, 0.0), (0.96, 0.16), (1.0, 0.55), (0.955, 0.9), (0.88, 1.0)]
    ring = outline + [(-y, z) for y, z in outline[::-1]]
    rings = [
        [(xi, y * hi, (bi + z * (ti - bi)) * height) for y, z in ring]
        for xi, hi, bi, ti in zip(x, half, bottom, top, strict=True)
    ]
    return loft(rings, colour, Material.PAINT)


def cabin(
    length: float,
    width: float,
    height: float,
    style: CarStyle,
    colour: FloatArray,
    rear_windows: bool = True,
) -> Shape:
    """Windows, pillars and roof; a delivery van has no windows behind the front doors."""
    frame = _CabinFrame(
        foot=tuple(np.array(style.cabin) * length - length / 2),
        roof=tuple(np.array(style.roof) * length - length / 2),
        heights=(style.belt * height - 0.01, height),
        halves=(0.45 * width, 0.355 * width),
    )
    glass, metal = frame.sides(rear_windows)
    for end in (0.0, 1.0):
        pane, rim = frame.end(end)
        (glass if rear_windows or end == 1.0 else metal).append(pane)
        metal += rim
    skin = [quads(glass, WINDOW, Material.GLASS), quads(metal, colour, Material.PAINT)]
    return merge([*skin, frame.crown(colour)])


@dataclass(frozen=True)
class _CabinFrame:
    """
    A frustum: where the cabin's foot and roof begin and end, their heights and half widths.

    Places on it: s along the cabin from the rear, t from the foot to the roof, both 0 to 1.
    """

    foot: tuple[float, ...]
    roof: tuple[float, ...]
    heights: tuple[float, float]
    halves: tuple[float, float]

    # C pillar, rear windows, B pillar, front windows, A pillar; sill, glass, roof rail.
    PILLARS = (0.0, 0.07, 0.47, 0.53, 0.93, 1.0)
    BANDS = (0.0, 0.10, 0.82, 1.0)

    def point(self, s: float, t: float, across: float) -> Point:
        """A point of the skin; `across` is -1 on the right side and 1 on the left."""
        low = self.foot[0] + s * (self.foot[1] - self.foot[0])
        high = self.roof[0] + s * (self.roof[1] - self.roof[0])
        half = self.halves[0] + t * (self.halves[1] - self.halves[0])
        z = self.heights[0] + t * (self.heights[1] - self.heights[0])
        # The roof's edge lies below its crown.
        return low + t * (high - low), across * half, z - 0.06 * t * t

    def sides(self, rear_windows: bool) -> tuple[list[list[Point]], list[list[Point]]]:
        """Quadrilaterals of glass and of metal on both sides."""
        glass: list[list[Point]] = []
        metal: list[list[Point]] = []
        for across in (-1.0, 1.0):
            for i, (s0, s1) in enumerate(zip(self.PILLARS, self.PILLARS[1:], strict=False)):
                for j, (t0, t1) in enumerate(zip(self.BANDS, self.BANDS[1:], strict=False)):
                    quad = [self.point(s, t, across) for s, t in _around(s0, s1, t0, t1)]
                    window = j == 1 and (i == 3 or (i == 1 and rear_windows))
                    (glass if window else metal).append(quad)
        return glass, metal

    def end(self, s: float) -> tuple[list[Point], list[list[Point]]]:
        """Pane and rim of the rear (s = 0) or the front (s = 1)."""
        edges = (-1.0, -0.84, 0.84, 1.0)
        cells = [
            [self.point(s, t, across) for across, t in _around(edges[i], edges[i + 1], *band)]
            for i in range(3)
            for band in zip(self.BANDS, self.BANDS[1:], strict=False)
        ]
        # The cell in the middle of the three by three.
        return cells[4], cells[:4] + cells[5:]

    def crown(self, colour: FloatArray) -> Shape:
        """A roof that rises from its edges to the full height."""
        (rear, half, edge), (front, _, _) = self.point(0.0, 1.0, 1.0), self.point(1.0, 1.0, 1.0)
        rings = []
        for share, top in ((0.0, edge + 0.02), (0.2, self.heights[1]), (0.75, self.heights[1]),
                           (1.0, edge + 0.02)):  # fmt: skip
            x = rear + share * (front - rear)
            ring = [(x, -half, edge), (x, -0.6 * half, top), (x, 0.6 * half, top), (x, half, edge)]
            rings.append(ring)
        return loft(rings, colour, Material.PAINT)


def _around(a0: float, a1: float, b0: float, b1: float) -> list[tuple[float, float]]:
    """Corners of a rectangle in order."""
    return [(a0, b0), (a1, b0), (a1, b1), (a0, b1)]
