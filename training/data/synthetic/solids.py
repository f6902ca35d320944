"""Corners of the solids that shapes are stretched from: a cube and spheres of triangles."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_CUBE_FACES = (
    (1, 3, 0), (4, 1, 0), (0, 3, 2), (2, 4, 0), (1, 7, 3), (5, 1, 4),
    (5, 7, 1), (3, 7, 2), (6, 4, 2), (2, 7, 6), (6, 5, 4), (7, 5, 6),
)  # fmt: skip
_ICOSAHEDRON_FACES = (
    (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4),
    (11, 10, 2), (10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8),
    (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1),
)  # fmt: skip


@cache
def unit_cube() -> tuple[FloatArray, NDArray[np.int64]]:
    """Vertices (8, 3) of a cube of edge 1 around the origin, and its faces (12, 3)."""
    vertices = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return vertices, np.array(_CUBE_FACES)


@cache
def unit_sphere(detail: int) -> FloatArray:
    """Corners (20 * 4 ** detail, 3, 3) of a sphere of radius 1 around the origin."""
    if detail == 0:
        return _on_sphere(_icosahedron()[np.array(_ICOSAHEDRON_FACES)])
    a, b, c = unit_sphere(detail - 1).transpose(1, 0, 2)
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    # Every triangle is cut in four: three at its corners, one between them.
    cut = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return _on_sphere(np.stack([np.stack(four, axis=1) for four in cut], axis=1).reshape(-1, 3, 3))


def _icosahedron() -> FloatArray:
    """Vertices (12, 3): corners of three golden rectangles that stand across each other."""
    golden = (1 + np.sqrt(5)) / 2
    rectangle = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]])
    return np.concatenate([rectangle, np.roll(rectangle, 1, axis=1), np.roll(rectangle, 2, axis=1)])


def _on_sphere(corners_T33: FloatArray) -> FloatArray:
    return corners_T33 / np.sqrt((corners_T33 * corners_T33).sum(-1, keepdims=True))
