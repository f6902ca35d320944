"""
What stands beside a street: buildings, trees, hedges, walls, poles, signs, bins.

Every function returns a shape in its own frame; buildings and walls lie along x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.shapes import (
    NORMAL_GRID,
    Shape,
    blob,
    box,
    cross,
    from_faces,
    loft,
    merge,
    painted,
    quads,
    tube,
)
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]
_FACADES = (
    (0.55, 0.50, 0.40), (0.48, 0.36, 0.26), (0.60, 0.58, 0.54), (0.34, 0.15, 0.10),
    (0.42, 0.42, 0.40), (0.56, 0.44, 0.22), (0.30, 0.27, 0.24), (0.50, 0.30, 0.22),
)  # fmt: skip
_ROOFS = ((0.22, 0.07, 0.045), (0.08, 0.075, 0.075), (0.16, 0.08, 0.06), (0.11, 0.10, 0.10))
_LEAVES = ((0.055, 0.10, 0.022), (0.045, 0.085, 0.030), (0.085, 0.125, 0.025), (0.11, 0.10, 0.03))
_GREY = (0.26, 0.27, 0.28)


def building(rng: np.random.Generator, length: float, depth: float) -> Shape:
    """A house or a block; windows come from the facade's texture."""
    height = float(rng.choice([2, 2, 3, 4, 5]) * 2.9 + 0.5)
    wall = np.array(_FACADES[rng.integers(len(_FACADES))]) * rng.uniform(0.75, 1.1)
    roof = np.array(_ROOFS[rng.integers(len(_ROOFS))])
    x, y = length / 2, depth / 2
    # Walls begin below ground, which may slope.
    parts = [loft([_rectangle(x, y, -2.0), _rectangle(x, y, height)], wall, Material.FACADE)]
    if height < 13 and rng.random() < 0.75:
        ridge, over = height + depth * rng.uniform(0.22, 0.38), 0.35
        eaves = height - 0.15
        slopes = [
            [(-x - over, -y - over, eaves), (x + over, -y - over, eaves), (x + over, 0, ridge),
             (-x - over, 0, ridge)],
            [(x + over, y + over, eaves), (-x - over, y + over, eaves), (-x - over, 0, ridge),
             (x + over, 0, ridge)],
        ]  # fmt: skip
        parts.append(quads(slopes, roof, Material.ROOF))
        gables = [[(side * x, -y, height), (side * x, y, height), (side * x, 0, ridge - 0.2)]
                  for side in (-1, 1)]  # fmt: skip
        vertices = np.array(gables).reshape(-1, 3)
        parts.append(from_faces(vertices, [[0, 1, 2], [3, 4, 5]], wall, Material.FACADE))
    else:
        parts.append(
            box((0, 0, height + 0.1), (length + 0.4, depth + 0.4, 0.35), roof, Material.ROOF)
        )
    return merge(parts)


def tree(rng: np.random.Generator) -> Shape:
    """A trunk, branches, and a crown of leaf clusters that lets some light through."""
    height = float(rng.uniform(5.0, 10.0))
    crown = np.array([rng.uniform(1.3, 2.3), 0.0, rng.uniform(0.30, 0.40) * height])
    crown[1] = crown[0] * rng.uniform(0.85, 1.15)
    centre = np.array([0.0, 0.0, height - crown[2]])
    leaf = np.array(_LEAVES[rng.integers(len(_LEAVES))]) * rng.uniform(0.8, 1.3)
    bark = np.array([0.11, 0.085, 0.06]) * rng.uniform(0.6, 1.3)
    radius = float(rng.uniform(0.10, 0.22))
    top = (0.0, 0.0, height - 1.2 * crown[2])
    parts = [tube((0, 0, 0), top, (radius, radius * 0.7), bark, Material.BARK, 8)]
    for _ in range(3):
        tip = centre + rng.uniform(-0.6, 0.6, 3) * crown
        start = (0.0, 0.0, top[2] * 0.93)
        parts.append(tube(start, tip, (radius * 0.5, 0.03), bark, Material.BARK, 5))
    parts.append(_leaves(rng, centre, crown, leaf, count=420, size=0.46))
    parts.append(blob(centre, crown * 0.7, leaf * 0.5, Material.FOLIAGE, 1))
    return merge(parts)


def conifer(rng: np.random.Generator) -> Shape:
    """A dark spruce: stacked cones on a short trunk."""
    height, radius = float(rng.uniform(4.0, 9.0)), float(rng.uniform(1.0, 1.7))
    leaf = np.array([0.025, 0.055, 0.025]) * rng.uniform(0.8, 1.5)
    parts = [tube((0, 0, 0), (0, 0, 1.0), (0.14, 0.12), (0.08, 0.06, 0.045), Material.BARK, 7)]
    for i in range(5):
        low, high = 0.6 + i * 0.17 * height, 0.6 + (i * 0.17 + 0.3) * height
        wide = radius * (1 - i * 0.18)
        parts.append(
            tube((0, 0, low), (0, 0, min(high, height)), (wide, 0.04), leaf, Material.FOLIAGE, 9)
        )
    return merge(parts)


def hedge(rng: np.random.Generator, length: float) -> Shape:
    """A trimmed hedge."""
    height, leaf = float(rng.uniform(0.8, 1.8)), np.array(_LEAVES[rng.integers(3)]) * 0.8
    body = box((0, 0, height / 2), (length, 0.7, height), leaf, Material.FOLIAGE)
    area = length * height
    fringe = _leaves(
        rng,
        np.array([0.0, 0.0, height * 0.55]),
        np.array([length / 2, 0.37, height * 0.5]),
        leaf,
        count=int(min(16 * area, 220)),
        size=0.22,
        boxy=True,
    )
    return merge([body, fringe])


def bush(rng: np.random.Generator) -> Shape:
    """A round shrub."""
    radii = rng.uniform([0.5, 0.5, 0.5], [1.1, 1.1, 1.0])
    leaf = np.array(_LEAVES[rng.integers(len(_LEAVES))])
    centre = np.array([0.0, 0.0, radii[2] * 0.8])
    return merge(
        [
            _leaves(rng, centre, radii, leaf, count=70, size=0.34),
            blob(centre, radii * 0.75, leaf * 0.6, Material.FOLIAGE, 1),
        ]
    )


def wall(rng: np.random.Generator, length: float) -> Shape:
    """A garden wall or a board fence."""
    height = float(rng.uniform(0.6, 1.9))
    colour = np.array([(0.30, 0.17, 0.10), (0.40, 0.38, 0.35), (0.13, 0.08, 0.05)][rng.integers(3)])
    body = box((0, 0, height / 2), (length, 0.16, height), colour, Material.ROOF)
    posts = [
        box((x, 0, height / 2 + 0.04), (0.22, 0.22, height + 0.08), colour * 0.8, Material.BARK)
        for x in np.arange(-length / 2, length / 2 + 0.01, 2.5)
    ]
    return merge([body, *posts])


def lamp_post(rng: np.random.Generator) -> Shape:
    """A street lamp; its arm points along +x."""
    height = float(rng.uniform(6.0, 8.5))
    return merge(
        [
            tube((0, 0, 0), (0, 0, height), (0.085, 0.055), _GREY, Material.METAL, 8),
            tube((0, 0, height), (1.3, 0, height + 0.15), (0.05, 0.04), _GREY, Material.METAL, 6),
            box((1.45, 0, height + 0.12), (0.6, 0.22, 0.12), _GREY, Material.METAL),
        ]
    )


def traffic_sign(rng: np.random.Generator) -> Shape:
    """A plate on a pole that faces -x: round, triangular or square."""
    height, kind = float(rng.uniform(2.1, 2.6)), int(rng.integers(3))
    sides, size = ((14, 0.32), (3, 0.45), (4, 0.42))[kind]
    rim = ((0.55, 0.02, 0.02), (0.55, 0.02, 0.02), (0.02, 0.10, 0.40))[kind]
    inner = ((0.75, 0.75, 0.75), (0.75, 0.75, 0.75), (0.05, 0.18, 0.55))[kind]
    turn = (0.0, np.pi / 2, np.pi / 4)[kind]
    angles = turn + np.arange(sides) * (2 * np.pi / sides)
    parts = [tube((0, 0, 0), (0, 0, height + 0.3), (0.035, 0.035), _GREY, Material.METAL, 6)]
    for x, scale, colour in ((-0.05, 1.0, rim), (-0.07, 0.76, inner)):
        ring = np.stack(
            [0 * angles + x, size * scale * np.cos(angles), height + size * scale * np.sin(angles)],
            -1,
        )
        parts.append(loft([ring, ring + [0.012, 0, 0]], colour, Material.PLATE))
    return merge(parts)


def street_box(rng: np.random.Generator) -> Shape:
    """A bin, a switch cabinet or a container: box-shaped like a vehicle, but none."""
    size = rng.uniform([0.5, 0.4, 0.9], [1.3, 0.8, 1.5])
    colour = np.array([(0.03, 0.10, 0.04), (0.22, 0.23, 0.22), (0.03, 0.05, 0.12),
                       (0.35, 0.26, 0.03)][rng.integers(4)])  # fmt: skip
    body = box((0, 0, size[2] * 0.48), size * [1, 1, 0.96], colour, Material.METAL)
    lid = box((0, 0, size[2] * 0.96), size * [1.05, 1.05, 0.08], colour * 0.6, Material.RUBBER)
    return merge([body, lid])


def bollard() -> Shape:
    """A short post with a white band."""
    return merge(
        [
            tube((0, 0, 0), (0, 0, 0.9), (0.06, 0.06), (0.05, 0.05, 0.05), Material.METAL, 7),
            tube((0, 0, 0.7), (0, 0, 0.82), (0.064, 0.064), (0.7, 0.7, 0.7), Material.PLATE, 7),
        ]
    )


def _leaves(
    rng: np.random.Generator,
    centre: FloatArray,
    radii: FloatArray,
    colour: FloatArray,
    count: int,
    size: float,
    boxy: bool = False,
) -> Shape:
    """Clusters of leaves: small tilted squares near the surface of an ellipsoid or a block."""
    outward = rng.uniform(-1.0, 1.0, (count, 3))
    reach = (
        np.abs(outward).max(1, keepdims=True)
        if boxy
        else np.sqrt((outward * outward).sum(1, keepdims=True))
    )
    outward /= np.maximum(reach, 0.05)
    middle = centre + outward * radii * rng.uniform(0.72, 1.0, (count, 1))
    across = rng.uniform(-1.0, 1.0, (count, 3))
    along = cross(across, outward + rng.uniform(-0.7, 0.7, (count, 3)))
    across, along = (
        v / np.maximum(np.sqrt((v * v).sum(1, keepdims=True)), 1e-3) for v in (across, along)
    )
    half = size / 2 * rng.uniform(0.6, 1.2, (count, 1))
    corners = np.stack(
        [middle + half * (a * across + b * along) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))],
        axis=1,
    )
    triangles = np.stack([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]], axis=1).reshape(-1, 3, 3)
    # Shaded as part of the round crown, not as single squares.
    normals = (triangles - centre) / radii + [0.0, 0.0, 0.15]
    normals /= np.maximum(np.sqrt((normals * normals).sum(-1, keepdims=True)), 1e-3)
    normals = np.round(normals / NORMAL_GRID) * NORMAL_GRID
    shades = np.repeat(colour * rng.uniform(0.55, 1.35, (count, 1)), 2, axis=0)
    return painted(triangles, normals, shades, Material.FOLIAGE)


def _rectangle(x: float, y: float, z: float) -> list[tuple[float, float, float]]:
    return [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)]
