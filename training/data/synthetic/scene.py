"""
Triangles in the world, ready for rays: what stands still once per drive, what moves per frame.

Letters: T triangles, N rays or points, I things. Embree only says which triangle a ray hits;
where, is computed here from the triangle's plane, so that it rounds alike on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore import EmbreeDevice
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.footprint import Footprint
from cmkd_ros.training.data.synthetic.hills import rotation
from cmkd_ros.training.data.synthetic.shapes import cross, merge, rotated
from cmkd_ros.training.data.synthetic.street import Street, Thing
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]
# Corners and rotations lie on these grids: what the sine of two machines differs vanishes on them.
GRID_M = 2.0**-12
GRID_TURN = 2.0**-20
# Movers beyond are left out: their shadows could just not reach the picture.
SEEN_M, BEHIND_SEEN_M = 180.0, 30.0


class Geometry:
    """
    Triangles of many things in the world.

    Args:
        things: the things; their places in the sequence plus `first_index` number them.
    """

    def __init__(self, things: Sequence[Thing], first_index: int = 0) -> None:
        self._first_index = first_index
        whole = merge([t.shape.moved(t.x, t.y, t.z, t.yaw, t.slopes) for t in things])
        corners = np.round(whole.corners_T33 / GRID_M) * GRID_M
        faces = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        faces /= np.maximum(np.sqrt((faces * faces).sum(1, keepdims=True)), 1e-12)
        self.corners_9T, self.normals_9T = _planes(corners), _planes(whole.normals_T33)
        self.faces_3T = np.ascontiguousarray(faces.T)
        self.offsets_T = (faces * corners[:, 0]).sum(1)
        self.colours_3T, self.materials_T = _planes(whole.colours_T3), whole.materials_T
        counts = [len(t.shape) for t in things]
        self.things_T = np.repeat(np.arange(len(things)) + first_index, counts).astype(np.int32)
        self.poses_I4 = np.array(
            [[t.x, t.y, *on_grid(np.cos(t.yaw), np.sin(t.yaw))] for t in things]
        ).reshape(-1, 4)
        self._bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        starts = self._bounds[:-1]
        self.low_I3 = (
            np.minimum.reduceat(corners.min(1), starts) if len(things) else np.zeros((0, 3))
        )
        self.high_I3 = (
            np.maximum.reduceat(corners.max(1), starts) if len(things) else np.zeros((0, 3))
        )
        #: Things that are more than ground.
        self.raised_I = np.maximum.reduceat(self.materials_T, starts) > Material.GRASS
        self.caster = _caster(self.corners_9T)
        self._footprints: dict[bytes, Footprint] = {}
        self._alone: dict[int, EmbreeScene] = {}

    def caster_of(self, thing: int) -> EmbreeScene:
        """A ray tracer over one thing alone, given its number."""
        if thing not in self._alone:
            start, end = self._bounds[thing - self._first_index :][:2]
            self._alone[thing] = _caster(self.corners_9T[:, start:end])
        return self._alone[thing]

    def footprint(self, direction_3: FloatArray) -> Footprint:
        """Where rays in this direction may meet what is more than ground."""
        key = direction_3.tobytes()
        if key not in self._footprints:
            low, high = self.low_I3[self.raised_I], self.high_I3[self.raised_I]
            self._footprints[key] = Footprint(low, high, direction_3)
        return self._footprints[key]


class Scene:
    """
    The world at one time, as seen from the sensors' car.

    Args:
        fixed: the street's fixed things (built once per drive).
        time: seconds since the drive began.
        lidar_height_m: height of the reference frame above the ground.
    """

    def __init__(self, street: Street, fixed: Geometry, time: float, lidar_height_m: float) -> None:
        self.street, self.time, self.lidar_height_m = street, time, lidar_height_m
        x, y, heading = street.route.own_pose(time)
        ground, slopes = street.route.own_ground(time)
        # The reference frame is tilted as the road under the car.
        self.R_world_ref = np.round(rotation(heading, slopes) / GRID_TURN) * GRID_TURN
        own = np.array([x, y, ground]) + lidar_height_m * self.R_world_ref[:, 2]
        self.own_3 = np.round(own / GRID_M) * GRID_M
        # What is far from the car is seen by nothing.
        placed = list(street.moving(time))
        self._movers = [i for i, t in enumerate(placed) if _near(t, own, self.R_world_ref)]
        moving = [placed[i] for i in self._movers]
        self.things: list[Thing] = [*street.fixed, *moving]
        self._geometries = [fixed]
        if moving:
            self._geometries.append(Geometry(moving, first_index=len(street.fixed)))
        self._corners_9T: FloatArray = self._joined('corners_9T')
        self._normals_9T: FloatArray = self._joined('normals_9T')
        self.colours_3T: FloatArray = self._joined('colours_3T')
        self.materials_T: NDArray[np.uint8] = self._joined('materials_T')
        self.things_T: IntArray = self._joined('things_T')
        self._faces_3T, self._offsets_T = self._joined('faces_3T'), self._joined('offsets_T')
        self.faces_3T: FloatArray = self._faces_3T.astype(np.float32)
        self.poses_I4 = np.concatenate([g.poses_I4 for g in self._geometries])
        # Distance of the triangles' planes from the camera and from the LiDAR.
        self._heights: dict[bytes, FloatArray] = {}

    def _joined(self, name: str) -> NDArray:
        return np.concatenate([getattr(g, name) for g in self._geometries], axis=-1)

    def cast(
        self,
        origin_3: NDArray[np.float64],
        directions_3N: FloatArray,
        near_movers_M: NDArray[np.intp] | None = None,
    ) -> IntArray:
        """
        First triangle that each ray from a point of the world hits, -1 for none.

        Args:
            origin_3: where the rays start.
            directions_3N: float32, of any length.
            near_movers_M: the rays that may hit something that moves; None for all.
        """
        first = _run(self._geometries[0].caster, origin_3, directions_3N, 'INTERSECT')
        if len(self._geometries) == 1:
            return first
        count = len(self._geometries[0].things_T)
        if near_movers_M is None:
            near_movers_M = np.arange(len(first))
        directions = directions_3N.take(near_movers_M, axis=1)
        moving = _run(self._geometries[1].caster, origin_3, directions, 'INTERSECT')
        hit = np.flatnonzero(moving >= 0)
        directions, moving, hit = directions[:, hit], moving[hit] + count, near_movers_M[hit]
        behind = self.distances(origin_3, directions, moving) > np.where(
            first[hit] >= 0, self.distances(origin_3, directions, first[hit]), np.float32(np.inf)
        )
        first[hit[~behind]] = moving[~behind]
        return first

    def meets_alone(
        self, thing: int, origin_3: NDArray[np.float64], directions_3N: FloatArray
    ) -> NDArray[np.bool_]:
        """Whether each ray would hit the thing if nothing else were there."""
        geometry = self._geometries[0 if thing < len(self.street.fixed) else 1]
        return _run(geometry.caster_of(thing), origin_3, directions_3N, 'OCCLUDED') >= 0

    @property
    def mover_corners_I83(self) -> NDArray[np.float64]:
        """Corners of boxes along the world's axes around everything that moves."""
        if len(self._geometries) == 1:
            return np.zeros((0, 8, 3))
        low, high = self._geometries[1].low_I3, self._geometries[1].high_I3
        choice = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)])
        return np.where(choice, high[:, None], low[:, None])

    def velocities(self, step_s: float) -> NDArray[np.float64]:
        """Velocity (I, 3) of every thing relative to the sensors' car, in the world, m/s."""
        route, later = self.street.route, self.time + step_s
        x, y, _ = route.own_pose(later)
        x0, y0, _ = route.own_pose(self.time)
        z, z0 = route.own_ground(later)[0], route.own_ground(self.time)[0]
        out = np.tile(-np.array([x - x0, y - y0, z - z0]), (len(self.things), 1))
        moved = list(self.street.moving(later))
        for i, before in enumerate(self.things[len(self.street.fixed) :]):
            after = moved[self._movers[i]] if self._movers[i] < len(moved) else before
            # At the end of its way something vanishes, and the others move up in the list.
            if after.size == before.size:
                step = [after.x - before.x, after.y - before.y, after.z - before.z]
                out[len(self.street.fixed) + i] += step
        return np.round(out / step_s / GRID_M) * GRID_M

    def distances(
        self, origin_3: NDArray[np.float64], directions_3N: FloatArray, triangles_N: IntArray
    ) -> FloatArray:
        """Multiple of the direction at which rays from one point meet their triangles."""
        key = origin_3.tobytes()
        if key not in self._heights:
            heights = self._offsets_T - dot(self._faces_3T, origin_3)
            self._heights[key] = heights.astype(np.float32)
        slope = dot(self.faces_3T.take(triangles_N, axis=1), directions_3N)
        return self._heights[key].take(triangles_N) / np.where(
            np.abs(slope) < 1e-7, np.float32(1e-7), slope
        )

    def covered(self, points_3N: FloatArray, direction_3: FloatArray) -> NDArray[np.bool_]:
        """Whether anything lies beyond each point in this direction."""
        hidden = np.zeros(points_3N.shape[1], dtype=bool)
        for geometry in self._geometries:
            # The sun reaches everything from afar; only few points lie near what moves.
            if geometry is self._geometries[0] and direction_3[2] < 1:
                hidden = _run(geometry.caster, points_3N, direction_3, 'OCCLUDED') >= 0
                continue
            near = geometry.footprint(direction_3).may_cover(points_3N)
            points = points_3N.take(near, axis=1)
            hidden[near] |= _run(geometry.caster, points, direction_3, 'OCCLUDED') >= 0
        return hidden

    def smooth_normals(self, points_3N: FloatArray, triangles_N: IntArray) -> FloatArray:
        """Unit normals (3, N) interpolated from the corners of the triangles."""
        a, b, c = (self._corners_9T[i : i + 3].take(triangles_N, axis=1) for i in (0, 3, 6))
        ab, ac, ap = b - a, c - a, points_3N - a
        d00, d01, d11 = dot(ab, ab), dot(ab, ac), dot(ac, ac)
        d20, d21 = dot(ap, ab), dot(ap, ac)
        scale = 1 / np.maximum(d00 * d11 - d01 * d01, np.float32(1e-12))
        v = np.clip((d11 * d20 - d01 * d21) * scale, 0, 1)
        w = np.clip((d00 * d21 - d01 * d20) * scale, 0, 1)
        a, b, c = (self._normals_9T[i : i + 3].take(triangles_N, axis=1) for i in (0, 3, 6))
        mixed = a * (1 - v - w) + b * v + c * w
        return mixed / np.maximum(np.sqrt(dot(mixed, mixed)), np.float32(1e-6))

    def to_world(self, directions_3N: FloatArray) -> FloatArray:
        """Directions of the reference frame, in the world."""
        x, y, z = directions_3N
        rows = self.R_world_ref.astype(np.float32)
        return np.stack([row[0] * x + row[1] * y + row[2] * z for row in rows])

    def place_in_world(self, point_3: NDArray[np.float64]) -> NDArray[np.float64]:
        """A point of the reference frame, in the world."""
        return rotated(point_3, self.R_world_ref) + self.own_3

    def boxes_in_ref(self, things_N: NDArray[np.intp]) -> NDArray[np.float64]:
        """
        Boxes (N, 7) around things in the reference frame, gravity centre.

        A thing may be tilted against the reference frame; as in KITTI only its yaw is kept.
        """
        boxes = np.zeros((len(things_N), 7))
        for row, thing in zip(boxes, (self.things[i] for i in things_N), strict=True):
            R = rotation(thing.yaw, thing.slopes)
            centre = np.array([thing.x, thing.y, thing.z]) + R[:, 2] * thing.size[2] / 2
            row[:3] = rotated(centre - self.own_3, self.R_world_ref.T)
            row[3:6] = thing.size
            ahead = rotated(R[:, 0], self.R_world_ref.T)
            row[6] = np.arctan2(ahead[1], ahead[0])
        return boxes


def _near(thing: Thing, own_3: NDArray[np.float64], R_world_ref: NDArray[np.float64]) -> bool:
    """Whether a thing lies ahead of the car or close to it."""
    dx, dy = thing.x - own_3[0], thing.y - own_3[1]
    ahead = dx * R_world_ref[0, 0] + dy * R_world_ref[1, 0]
    return bool(ahead > -BEHIND_SEEN_M and dx * dx + dy * dy < SEEN_M * SEEN_M)


def on_grid(*values: float) -> tuple[float, ...]:
    """Numbers rounded to what every machine agrees on."""
    return tuple(float(np.round(value / GRID_TURN) * GRID_TURN) for value in values)


@cache
def _device() -> EmbreeDevice:
    return EmbreeDevice()


def _caster(corners_9T: FloatArray) -> EmbreeScene:
    """A ray tracer over these triangles."""
    scene = EmbreeScene(device=_device(), robust=True)
    TriangleMesh(scene, corners_9T.T.reshape(-1, 3, 3))
    return scene


def _run(caster: EmbreeScene, origins: FloatArray, directions: FloatArray, query: str) -> IntArray:
    """What embree finds along rays; their origins or directions (3, N) may be one (3,) for all."""
    shape = np.broadcast_shapes(origins.T.shape, directions.T.shape)
    start, ahead = (
        np.broadcast_to(a.T.astype(np.float32, copy=False), shape) for a in (origins, directions)
    )
    return caster.run(start, ahead, query=query)


def _planes(values: NDArray) -> NDArray[np.float32]:
    """Numbers (K, T) of triangles (T, ...), so that each lies beside those of the next one."""
    return np.ascontiguousarray(values.reshape(len(values), -1).T, dtype=np.float32)


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Products (N,) of vectors (3, N); either may be one (3,) for all."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
