"""
Triangles in the world, ready for rays: what stands still once per drive, what moves per frame.

Letters: T triangles, N rays or points, I things. Embree only says which triangle a ray hits;
where, is computed here from the triangle's plane, so that it rounds alike on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.shapes import cross, merge, turned
from cmkd_ros.training.data.synthetic.street import Street, Thing

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]
# Corners and rotations lie on these grids: what the sine of two machines differs vanishes on them.
GRID_M = 2.0**-12
GRID_TURN = 2.0**-20


class Geometry:
    """
    Triangles of many things in the world.

    :param things: the things; their places in the sequence plus `first_index` number them.
    """

    def __init__(self, things: Sequence[Thing], first_index: int = 0) -> None:
        whole = merge([t.shape.moved(t.x, t.y, t.z, t.yaw) for t in things])
        corners = np.round(whole.corners_T33 / GRID_M) * GRID_M
        faces = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        faces /= np.maximum(np.sqrt((faces * faces).sum(1, keepdims=True)), 1e-12)
        self.corners_T33 = corners.astype(np.float32)
        self.normals_T33 = whole.normals_T33.astype(np.float32)
        self.planes_T3 = faces
        self.offsets_T = (faces * corners[:, 0]).sum(1)
        self.colours_T3, self.materials_T = whole.colours_T3, whole.materials_T
        counts = [len(t.shape) for t in things]
        self.things_T = np.repeat(np.arange(len(things)) + first_index, counts).astype(np.int32)
        self.poses_I4 = np.array(
            [[t.x, t.y, *on_grid(np.cos(t.yaw), np.sin(t.yaw))] for t in things]
        ).reshape(-1, 4)
        self.caster = caster(self.corners_T33)


class Scene:
    """
    The world at one time, as seen from the sensors' car.

    :param fixed: the street's fixed things (built once per drive).
    :param time: seconds since the drive began.
    :param lidar_height_m: height of the reference frame above the ground.
    """

    def __init__(self, street: Street, fixed: Geometry, time: float, lidar_height_m: float) -> None:
        self.street, self.time, self.lidar_height_m = street, time, lidar_height_m
        x, y, self.heading = street.route.own_pose(time)
        self.own_3 = np.round(np.array([x, y, lidar_height_m]) / GRID_M) * GRID_M
        self._cos, self._sin = on_grid(np.cos(self.heading), np.sin(self.heading))
        moving = list(street.moving(time))
        self.things: list[Thing] = [*street.fixed, *moving]
        self._geometries = [fixed]
        if moving:
            self._geometries.append(Geometry(moving, first_index=len(street.fixed)))
        self.corners_T33: FloatArray = self._joined('corners_T33')
        self.normals_T33: FloatArray = self._joined('normals_T33')
        self.colours_T3: FloatArray = self._joined('colours_T3')
        self.materials_T: NDArray[np.uint8] = self._joined('materials_T')
        self.things_T: IntArray = self._joined('things_T')
        self._planes_T3, self._offsets_T = self._joined('planes_T3'), self._joined('offsets_T')
        self.faces_T3: FloatArray = self._planes_T3.astype(np.float32)
        self.poses_I4 = self._joined('poses_I4')
        # Distance of the triangles' planes from the camera and from the LiDAR.
        self._heights: dict[bytes, FloatArray] = {}

    def _joined(self, name: str) -> NDArray:
        return np.concatenate([getattr(g, name) for g in self._geometries])

    def cast(self, origin_3: NDArray[np.float64], directions_N3: FloatArray) -> IntArray:
        """First triangle that each ray from a point of the world hits, -1 for none."""
        origins = np.broadcast_to(origin_3.astype(np.float32), directions_N3.shape).copy()
        first = self._geometries[0].caster.run(origins, directions_N3, query='INTERSECT')
        if len(self._geometries) == 1:
            return first
        moving = self._geometries[1].caster.run(origins, directions_N3, query='INTERSECT')
        moving += len(self._geometries[0].things_T)
        hit = np.flatnonzero(moving >= len(self._geometries[0].things_T))
        directions = directions_N3[hit]
        behind = self.distances(origin_3, directions, moving[hit]) > np.where(
            first[hit] >= 0, self.distances(origin_3, directions, first[hit]), np.float32(np.inf)
        )
        first[hit[~behind]] = moving[hit[~behind]]
        return first

    def distances(
        self, origin_3: NDArray[np.float64], directions_N3: FloatArray, triangles_N: IntArray
    ) -> FloatArray:
        """Multiple of the direction at which rays from one point meet their triangles."""
        key = origin_3.tobytes()
        if key not in self._heights:
            heights = self._offsets_T - (self._planes_T3 * origin_3).sum(1)
            self._heights[key] = heights.astype(np.float32)
        slope = _dot(self.faces_T3[triangles_N], directions_N3)
        return self._heights[key][triangles_N] / np.where(
            np.abs(slope) < 1e-7, np.float32(1e-7), slope
        )

    def covered(self, points_N3: FloatArray, direction_3: FloatArray) -> NDArray[np.bool_]:
        """Whether anything lies beyond each point in this direction."""
        directions = np.broadcast_to(direction_3, points_N3.shape).astype(np.float32)
        hidden = np.zeros(len(points_N3), dtype=bool)
        for geometry in self._geometries:
            hidden |= geometry.caster.run(points_N3, directions, query='OCCLUDED') >= 0
        return hidden

    def smooth_normals(self, points_N3: FloatArray, triangles_N: IntArray) -> FloatArray:
        """Unit normals interpolated from the corners of the triangles."""
        corners = self.corners_T33[triangles_N]
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        ab, ac, ap = b - a, c - a, points_N3 - a
        d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
        d20, d21 = _dot(ap, ab), _dot(ap, ac)
        scale = 1 / np.maximum(d00 * d11 - d01 * d01, np.float32(1e-12))
        v = np.clip((d11 * d20 - d01 * d21) * scale, 0, 1)[:, None]
        w = np.clip((d00 * d21 - d01 * d20) * scale, 0, 1)[:, None]
        normals = self.normals_T33[triangles_N]
        mixed = normals[:, 0] * (1 - v - w) + normals[:, 1] * v + normals[:, 2] * w
        return mixed / np.maximum(np.sqrt(_dot(mixed, mixed)), np.float32(1e-6))[:, None]

    def to_world(self, directions_N3: FloatArray) -> FloatArray:
        """Directions of the reference frame, in the world."""
        return turned(directions_N3, np.float32(self._cos), np.float32(self._sin))

    def place_in_world(self, point_3: NDArray[np.float64]) -> NDArray[np.float64]:
        """A point of the reference frame, in the world."""
        return turned(point_3, self._cos, self._sin) + self.own_3

    def things_in_ref(self, things_N: NDArray[np.intp]) -> NDArray[np.float64]:
        """x, y and yaw (N, 3) of things in the reference frame."""
        places = np.array([[self.things[i].x, self.things[i].y, 0.0] for i in things_N])
        ref = turned(places.reshape(-1, 3) - self.own_3, self._cos, -self._sin)
        yaws = np.array([self.things[i].yaw - self.heading for i in things_N])
        return np.column_stack([ref[:, :2], yaws])


def on_grid(*values: float) -> tuple[float, ...]:
    """Numbers rounded to what every machine agrees on."""
    return tuple(float(np.round(value / GRID_TURN) * GRID_TURN) for value in values)


def caster(corners_T33: FloatArray) -> EmbreeScene:
    """A ray tracer over these triangles."""
    scene = EmbreeScene(robust=True)
    indices = np.arange(3 * len(corners_T33), dtype=np.int32).reshape(-1, 3)
    TriangleMesh(scene, np.ascontiguousarray(corners_T33.reshape(-1, 3)), indices)
    return scene


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]
