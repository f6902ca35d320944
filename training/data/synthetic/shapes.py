"""
Triangle meshes with a colour and a material on every triangle, and the primitives to build them.

Letters: T triangles, V vertices, R rings of a loft, K points of a ring. A shape lives in its own
frame: x forward, y left, z up, metres, standing on z = 0 around the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmkd_ros.training.data.synthetic.hills import rotation
from cmkd_ros.training.data.synthetic.solids import unit_cube, unit_sphere
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]
# Faces that meet at less than this angle look like one curved surface.
CREASE_COSINE = 0.72
# Last-bit differences between the mathematics libraries of two machines vanish on this grid.
NORMAL_GRID = 2.0**-14


@dataclass(frozen=True)
class Shape:
    """
    A mesh of any topology.

    Attributes:
        corners_T33: float64 corner positions.
        normals_T33: float64 unit normals at the corners (equal over a flat triangle).
        colours_T3: float32 linear RGB albedo in [0, 1].
        materials_T: uint8 `Material`.
    """

    corners_T33: FloatArray
    normals_T33: FloatArray
    colours_T3: NDArray[np.float32]
    materials_T: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.materials_T)

    @property
    def bounds_23(self) -> FloatArray:
        """Smallest and largest coordinates."""
        points = self.corners_T33.reshape(-1, 3)
        return np.stack([points.min(0), points.max(0)])

    def part(self, start: int, end: int) -> Shape:
        """Return some consecutive triangles."""
        return Shape(*(values[start:end] for values in vars(self).values()))

    def moved(
        self,
        x: float,
        y: float,
        z: float = 0.0,
        yaw: float = 0.0,
        slopes: tuple[float, float] = (0.0, 0.0),
    ) -> Shape:
        """Return the shape turned about z by `yaw`, tilted as ground of these slopes, shifted."""
        if slopes != (0.0, 0.0):
            R = rotation(yaw, slopes)
            corners = rotated(self.corners_T33, R) + np.array([x, y, z])
            return replace(self, corners_T33=corners, normals_T33=rotated(self.normals_T33, R))
        cos, sin = np.cos(yaw), np.sin(yaw)
        corners = turned(self.corners_T33, cos, sin) + np.array([x, y, z])
        return replace(self, corners_T33=corners, normals_T33=turned(self.normals_T33, cos, sin))

    def fitted(self, size_3: ArrayLike) -> Shape:
        """Return the shape stretched to fill (length, width, height), centred, bottom on z = 0."""
        low, high = self.bounds_23
        scale = np.asarray(size_3, dtype=np.float64) / (high - low)
        middle = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
        normals = self.normals_T33 / scale
        normals /= np.sqrt((normals * normals).sum(-1, keepdims=True))
        return replace(self, corners_T33=(self.corners_T33 - middle) * scale, normals_T33=normals)


def turned(vectors: NDArray, cos: float | np.floating, sin: float | np.floating) -> NDArray:
    """Rotate vectors (..., 3) about z, element by element (BLAS rounds by machine)."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return _vectors(cos * x - sin * y, sin * x + cos * y, z)


def rotated(vectors: NDArray, R_33: NDArray) -> NDArray:
    """Rotate vectors (..., 3), element by element as `turned`."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return _vectors(*(row[0] * x + row[1] * y + row[2] * z for row in R_33))


def cross(a: NDArray, b: NDArray) -> NDArray:
    """Vector product over the last axis (numpy's own takes 0.1 ms to begin)."""
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return _vectors(ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)


def _vectors(x: NDArray, y: NDArray, z: NDArray) -> NDArray:
    """Vectors (..., 3) of these components; for a few triangles twice as quick as `np.stack`."""
    out = np.empty((*x.shape, 3), dtype=x.dtype)
    out[..., 0], out[..., 1], out[..., 2] = x, y, z
    return out


def merge(shapes: Sequence[Shape]) -> Shape:
    """One shape of all triangles."""
    return Shape(
        np.concatenate([s.corners_T33 for s in shapes]),
        np.concatenate([s.normals_T33 for s in shapes]),
        np.concatenate([s.colours_T3 for s in shapes]),
        np.concatenate([s.materials_T for s in shapes]),
    )


def from_faces(
    vertices_V3: ArrayLike, faces_T3: ArrayLike, colour: ArrayLike, material: Material
) -> Shape:
    """Build a shape from indexed triangles; neighbours across a soft edge are shaded smoothly."""
    vertices = np.asarray(vertices_V3, dtype=np.float64)
    faces = np.asarray(faces_T3, dtype=np.int64)
    corners = vertices[faces]
    crosses = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.sqrt((crosses * crosses).sum(1))
    kept = areas > 1e-12
    faces, corners, crosses, areas = faces[kept], corners[kept], crosses[kept], areas[kept]
    unit = crosses / areas[:, None]
    same_vertex = faces[..., None] == faces.ravel()
    soft = same_vertex & np.repeat(unit @ unit.T > CREASE_COSINE, 3, axis=1)[:, None]
    sums = soft.reshape(3 * len(faces), -1) @ np.repeat(crosses, 3, axis=0)
    normals = sums / np.sqrt((sums * sums).sum(1, keepdims=True))
    normals = np.round(normals / NORMAL_GRID) * NORMAL_GRID
    return painted(corners, normals.reshape(-1, 3, 3), colour, material)


def painted(
    corners_T33: FloatArray, normals_T33: FloatArray, colour: ArrayLike, material: Material
) -> Shape:
    """Build a shape whose triangles share a material; `colour` is (3,) or (T, 3)."""
    colours = np.empty((len(corners_T33), 3), dtype=np.float32)
    colours[:] = colour
    materials = np.full(len(corners_T33), int(material), dtype=np.uint8)
    return Shape(corners_T33, normals_T33, colours, materials)


def quads(corners_Q43: ArrayLike, colour: ArrayLike, material: Material) -> Shape:
    """Flat quadrilaterals, corners in order around each; `colour` is (3,) or (Q, 3)."""
    corners = np.asarray(corners_Q43, dtype=np.float64).reshape(-1, 4, 3)
    triangles = np.stack([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]], axis=1).reshape(-1, 3, 3)
    normals = cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    normals /= np.sqrt((normals * normals).sum(1, keepdims=True))
    normals_T33 = np.repeat(np.repeat(normals, 2, axis=0)[:, None], 3, axis=1)
    colours = np.broadcast_to(np.asarray(colour, dtype=np.float32), (len(corners), 3))
    return painted(triangles, normals_T33, np.repeat(colours, 2, axis=0), material)


def box(centre: ArrayLike, size: ArrayLike, colour: ArrayLike, material: Material) -> Shape:
    """A box with sides along the axes."""
    vertices, faces = unit_cube()
    return from_faces(vertices * np.asarray(size) + np.asarray(centre), faces, colour, material)


def loft(
    rings_RK3: ArrayLike,
    colour: ArrayLike,
    material: Material,
    lids: tuple[bool, bool] = (True, True),
) -> Shape:
    """A skin over closed rings of equally many points, with lids on the first and last ring."""
    rings = np.asarray(rings_RK3, dtype=np.float64)
    # Own vertices: a lid is a flat face, whatever the angle of the skin.
    ends = [ring for ring, wanted in zip((rings[0], rings[-1]), lids, strict=True) if wanted]
    vertices = np.concatenate([rings.reshape(-1, 3), *ends])
    return from_faces(vertices, _loft_faces(*rings.shape[:2], lids), colour, material)


@cache
def _loft_faces(count: int, points: int, lids: tuple[bool, bool]) -> NDArray[np.int64]:
    """Faces (T, 3) over so many rings of so many points; the vertices of the lids follow last."""
    start = np.arange(count - 1)[:, None] * points + np.arange(points)[None]
    after = np.arange(count - 1)[:, None] * points + (np.arange(points)[None] + 1) % points
    sides = np.stack(
        [
            np.stack([start, after, after + points], -1),
            np.stack([start, after + points, start + points], -1),
        ]
    ).reshape(-1, 3)
    faces, vertices = [sides], count * points
    fan = np.stack(
        [np.zeros(points - 2, dtype=int), np.arange(1, points - 1), np.arange(2, points)], -1
    )
    for wanted, lid in zip(lids, (fan[:, ::-1], fan), strict=True):
        if wanted:
            faces.append(lid + vertices)
            vertices += points
    return np.concatenate(faces)


def tube(
    start: ArrayLike,
    end: ArrayLike,
    radii: tuple[float, float],
    colour: ArrayLike,
    material: Material,
    sides: int = 8,
    lids: tuple[bool, bool] = (True, True),
) -> Shape:
    """A round bar from `start` to `end` with a radius at each of them."""
    a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
    axis = (b - a) / np.sqrt(((b - a) ** 2).sum())
    across = cross(axis, np.array([0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0]))
    across /= np.sqrt((across * across).sum())
    up = cross(axis, across)
    angles = np.arange(sides) * (2 * np.pi / sides)
    ring = np.cos(angles)[:, None] * across + np.sin(angles)[:, None] * up
    return loft([a + radii[0] * ring, b + radii[1] * ring], colour, material, lids)


def blob(
    centre: ArrayLike, radii: ArrayLike, colour: ArrayLike, material: Material, detail: int = 1
) -> Shape:
    """An ellipsoid with sides along the axes."""
    corners = unit_sphere(detail)
    radii_3 = np.asarray(radii, dtype=np.float64)
    normals = corners / radii_3
    normals /= np.sqrt((normals * normals).sum(-1, keepdims=True))
    normals = np.round(normals / NORMAL_GRID) * NORMAL_GRID
    return painted(corners * radii_3 + np.asarray(centre), normals, colour, material)
