"""
Cars, vans and trucks: lofted bodies with glass cabins, wheels, lamps and plates.

A vehicle points along +x and fills its (length, width, height) exactly, because KITTI's boxes
are tight. Front and rear differ (lamps, windscreen, bonnet), so that a heading can be learnt.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmkd_ros.training.data.synthetic.car_bodies import WINDOW, CarStyle, cabin, lower_body
from cmkd_ros.training.data.synthetic.shapes import Shape, box, loft, merge, quads, tube
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]

TYRE, HUB, DARK = (0.012, 0.012, 0.013), (0.30, 0.30, 0.32), (0.02, 0.02, 0.022)
WHITE_LAMP, RED_LAMP = (0.75, 0.75, 0.70), (0.45, 0.02, 0.015)
# Linear albedo; how often the colour is seen on a road.
Palette = tuple[tuple[tuple[float, float, float], float], ...]
CAR_COLOURS: Palette = (
    ((0.78, 0.78, 0.78), 0.17),
    ((0.42, 0.44, 0.46), 0.20),
    ((0.17, 0.18, 0.19), 0.16),
    ((0.018, 0.018, 0.020), 0.17),
    ((0.025, 0.06, 0.22), 0.09),
    ((0.45, 0.02, 0.02), 0.08),
    ((0.10, 0.26, 0.42), 0.04),
    ((0.03, 0.13, 0.06), 0.03),
    ((0.55, 0.36, 0.05), 0.02),
    ((0.34, 0.28, 0.20), 0.04),
)


CAR_STYLES: tuple[tuple[CarStyle, tuple[float, float, float]], ...] = (
    # style, mean (length, width, height)
    (CarStyle(0.62, 0.50, 0.58, (0.02, 0.78), (0.09, 0.56)), (3.72, 1.60, 1.53)),  # hatchback
    (CarStyle(0.61, 0.49, 0.55, (0.13, 0.73), (0.29, 0.54)), (4.25, 1.68, 1.45)),  # saloon
    (CarStyle(0.60, 0.49, 0.57, (0.01, 0.74), (0.06, 0.55)), (4.30, 1.68, 1.50)),  # estate
    (CarStyle(0.60, 0.52, 0.58, (0.01, 0.77), (0.06, 0.57)), (4.15, 1.72, 1.68)),  # SUV
    (CarStyle(0.60, 0.52, 0.57, (0.02, 0.88), (0.12, 0.60)), (3.45, 1.56, 1.52)),  # city car
    (CarStyle(0.57, 0.48, 0.56, (0.02, 0.86), (0.07, 0.60)), (4.05, 1.68, 1.66)),  # people carrier
)
STYLE_SHARES = (0.36, 0.18, 0.16, 0.10, 0.12, 0.08)


def car(rng: np.random.Generator) -> Shape:
    """A passenger car of a random kind, size and colour; sizes average 3.9 x 1.65 x 1.53 m."""
    style, mean = CAR_STYLES[rng.choice(len(CAR_STYLES), p=STYLE_SHARES)]
    length, width, height = np.array(mean) * rng.normal(1.0, [0.045, 0.02, 0.025]).clip(0.9, 1.1)
    colour = _pick(rng, CAR_COLOURS) * rng.uniform(0.8, 1.1)
    parts = [
        lower_body(length, width, height, style, colour),
        cabin(length, width, height, style, colour),
        *_wheels(length, width, radius=0.2 * height + 0.005, share=(0.18, 0.815)),
        *_car_details(length, width, height, style),
    ]
    return merge(parts).fitted((length, width, height))


def van(rng: np.random.Generator) -> Shape:
    """A delivery van or minibus (KITTI's Van): one box with a short bonnet."""
    length, width, height = rng.uniform([4.6, 1.8, 1.9], [5.6, 2.0, 2.4])
    colours = ((0.78, 0.78, 0.78), 0.5), ((0.42, 0.43, 0.44), 0.2), ((0.5, 0.33, 0.03), 0.1)
    colour = _pick(rng, (*colours, ((0.05, 0.1, 0.3), 0.2)))
    style = CarStyle(0.55, 0.46, 0.55, (0.002, 0.91), (0.012, 0.73))
    glazed = bool(rng.random() < 0.4)
    parts = [
        lower_body(length, width, height, style, colour),
        cabin(length, width, height, style, colour, rear_windows=glazed),
        *_wheels(length, width, radius=0.34, share=(0.18, 0.80)),
        *_car_details(length, width, height, style),
    ]
    return merge(parts).fitted((length, width, height))


def truck(rng: np.random.Generator) -> Shape:
    """A lorry (KITTI's Truck): a cab before a cargo box on a dark frame."""
    length, width, height = rng.uniform([6.5, 2.3, 2.9], [10.0, 2.55, 3.7])
    cab_colour, box_colour = _pick(rng, CAR_COLOURS), _pick(rng, CAR_COLOURS[:3])
    front, cab = length / 2, 1.9
    cab_height = min(height * 0.82, 2.7)
    low, width_in = 0.55, width - 0.06
    parts = [
        _rounded_block(-front, front - cab - 0.15, width, (0.95, height), box_colour),
        _rounded_block(front - cab, front, width_in, (low, cab_height), cab_colour),
        box((0, 0, 0.78), (length - 0.3, 0.9, 0.3), DARK, Material.METAL),
        _plane_x(front + 0.012, width * 0.84, (cab_height * 0.58, cab_height * 0.88), WINDOW),
        *_wheels(length, width, radius=0.48, share=(0.16, 0.86)),
        *_wheels(length, width, radius=0.48, share=(0.29,)),
    ]
    for side in (-1, 1):
        window = [
            (front - 1.35, 0.6),
            (front - 0.35, 0.6),
            (front - 0.45, 0.88),
            (front - 1.35, 0.88),
        ]
        y = side * (width_in / 2 + 0.012)
        corners = [(x, y, z * cab_height) for x, z in window]
        parts.append(quads([corners], WINDOW, Material.GLASS))
        parts.append(_lamp((front, side * width * 0.38, 0.8), (0.3, 0.16), WHITE_LAMP))
        parts.append(_lamp((-front, side * width * 0.4, 1.05), (0.25, 0.14), RED_LAMP))
    return merge(parts).fitted((length, width, height))


def _pick(rng: np.random.Generator, palette: Palette) -> FloatArray:
    shares = np.array([share for _, share in palette])
    return np.array(palette[rng.choice(len(shares), p=shares / shares.sum())][0])


def _wheels(length: float, width: float, radius: float, share: tuple[float, ...]) -> list[Shape]:
    """Wheels at these shares of the length, on both sides, inside of dark arches."""
    parts = []
    size = (2.4 * radius, 0.2, 2.4 * radius)
    for along in share:
        x = (along - 0.5) * length
        left = _wheel().fitted(size).moved(0.0, width / 2 - 0.1, -0.16 * radius)
        parts += [left.moved(x, 0.0), left.moved(x, 0.0, 0.0, np.pi)]
    return parts


@cache
def _wheel() -> Shape:
    """A wheel that shows its hub to the left, in its arch."""
    outside = (False, True)
    parts = [
        tube((0, 0, 0), (0, 0.94, 0), (1.2, 1.2), DARK, Material.RUBBER, 12, outside),
        tube((0, 0, 0), (0, 0.98, 0), (1.0, 1.0), TYRE, Material.RUBBER, 14, outside),
        tube((0, 0.9, 0), (0, 1.0, 0), (0.62, 0.62), HUB, Material.METAL, 9, outside),
    ]
    return merge(parts)


def _car_details(length: float, width: float, height: float, style: CarStyle) -> list[Shape]:
    """Lamps, grille, plates: small plates just outside of the body."""
    front, rear = length / 2, -length / 2
    parts = [
        _plane_x(front + 0.004, width * 0.5, (0.27 * height, 0.36 * height), DARK),
        _plane_x(front + 0.010, 0.5, (0.29 * height, 0.29 * height + 0.11), None),
        _plane_x(rear - 0.010, 0.5, (0.36 * height, 0.36 * height + 0.11), None),
        _plane_x(rear - 0.006, width * 0.7, (0.20 * height, 0.28 * height), DARK),
    ]
    front_size, rear_size = (0.18 * width, 0.075 * height), (0.13 * width, 0.11 * height)
    front_z, rear_z = (style.bonnet - 0.09) * height, (style.boot - 0.10) * height
    for side in (-1, 1):
        parts.append(_lamp((front - 0.06, side * width * 0.29, front_z), front_size, WHITE_LAMP))
        parts.append(_lamp((rear + 0.06, side * width * 0.36, rear_z), rear_size, RED_LAMP))
    return parts


def _lamp(
    centre: tuple[float, float, float], size: tuple[float, float], colour: ArrayLike
) -> Shape:
    """A lamp of this width and height."""
    return box(centre, (0.1, *size), colour, Material.LAMP)


def _plane_x(
    x: float, width: float, heights: tuple[float, float], colour: ArrayLike | None
) -> Shape:
    """An upright plate across the vehicle; a white number plate without colour."""
    low, high = heights
    half = width / 2
    corners = [(x, -half, low), (x, half, low), (x, half, high), (x, -half, high)]
    if colour is None:
        return quads([corners], (0.8, 0.8, 0.75), Material.PLATE)
    return quads([corners], colour, Material.GLASS if colour is WINDOW else Material.RUBBER)


def _rounded_block(
    rear: float, front: float, width: float, heights: tuple[float, float], colour: FloatArray
) -> Shape:
    """A block with bevelled upright edges and roof, along x."""
    low, high = heights
    bevel = 0.06
    rings = []
    for x, inset in ((rear, bevel), (rear + bevel, 0.0), (front - bevel, 0.0), (front, bevel)):
        half, top = width / 2 - inset, high - inset
        ring = [(x, half, low), (x, half, top - bevel), (x, half - bevel, top)]
        rings.append(ring + [(x, -y, z) for x, y, z in ring[::-1]])
    return loft(rings, colour, Material.PAINT)
