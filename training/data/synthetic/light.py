"""
Radiance along rays that hit the scene: sun with shadows, sky, reflections, haze.

Letters: N rays. Vectors lie as planes of x, y and z: numpy is quickest along the last axis.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.scene import Scene, dot
from cmkd_ros.training.data.synthetic.surfaces import SURFACES, Material, haze_table
from cmkd_ros.training.data.synthetic.textures import Points, paint

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]
_UP = np.array([0.0, 0.0, 1.0], dtype=np.float32)
_GROUND = np.array([0.11, 0.11, 0.10], dtype=np.float32)
# Shadow rays start this far above the surface.
_LIFT_M = np.float32(0.02)
_SKY = len(Material)
# So many rays at a time fit the processor's cache.
_PIECE = 32768


class Light:
    """Shades the rays of one scene that start at one point."""

    def __init__(self, scene: Scene, origin_3: NDArray[np.float64], pixel_rad: float) -> None:
        self._scene = scene
        self.origin_3, self._origin_f32 = origin_3, origin_3.astype(np.float32)
        self._pixel_rad = np.float32(pixel_rad)
        self._daylight = scene.street.daylight
        self._sun = self._daylight.sun_direction()
        self._poses = np.ascontiguousarray(scene.poses_I4.T, dtype=np.float32)
        self._numbers = np.array([t.offset for t in scene.things], dtype=np.float32)
        self._bases = np.array([t.z for t in scene.things], dtype=np.float32)

    def shade(
        self,
        directions_3N: FloatArray,
        triangles_N: IntArray,
        rays_M: NDArray[np.intp],
        radiance_3N: FloatArray,
        depth_N: FloatArray,
    ) -> None:
        """
        Write what comes along some of the rays.

        Args:
            directions_3N: float32, of length 1 along the optical axis.
            triangles_N: what `Scene.cast` found for them.
            rays_M: the rays wanted, by their places.
            radiance_3N: receives their linear RGB.
            depth_N: receives their depth along the optical axis, inf for the sky.
        """
        for material, rays in self._by_material(triangles_N, rays_M):
            directions = directions_3N.take(rays, axis=1)
            if material == _SKY:
                light, depth_N[rays] = self._sky(directions), np.inf
            else:
                light, depth_N[rays] = self._surface(
                    Material(material), directions, triangles_N.take(rays)
                )
            for plane, values in zip(radiance_3N, light, strict=True):
                plane[rays] = values

    def _by_material(
        self, triangles_N: IntArray, rays_M: NDArray[np.intp]
    ) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Rays that hit the same material, piece by piece."""
        triangles = triangles_N.take(rays_M)
        materials = self._scene.materials_T.take(triangles)
        materials[triangles < 0] = _SKY
        for material in np.flatnonzero(np.bincount(materials)):
            rays = rays_M[materials == material]
            for start in range(0, len(rays), _PIECE):
                yield int(material), rays[start : start + _PIECE]

    def _sky(self, directions_3N: FloatArray) -> FloatArray:
        unit = directions_3N / _length(directions_3N)
        return self._daylight.sky_behind(unit, self._scene.street.noise)

    def _surface(
        self, material: Material, directions_3N: FloatArray, triangles_N: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        scene = self._scene
        reach = scene.distances(self.origin_3, directions_3N, triangles_N)
        points = self._origin_f32[:, None] + directions_3N * reach
        length = _length(directions_3N)
        rays = directions_3N / length
        distance = reach * length
        faces = scene.faces_3T.take(triangles_N, axis=1)
        towards = dot(faces, rays)
        faces *= np.where(towards > 0, np.float32(-1), np.float32(1))
        albedo = paint(
            material,
            self._points(material, points, distance, np.abs(towards), faces, triangles_N),
            scene.colours_3T.take(triangles_N, axis=1),
            scene.street.section,
            scene.street.noise,
        )
        normals = self._normals(material, points, faces, triangles_N)
        colour: FloatArray = albedo * self._irradiance(material, points, faces, normals)
        if SURFACES[material].gloss > 0:
            colour = self._glossy(material, colour, rays, normals)
        return self._hazy(colour, distance), reach

    def _points(
        self,
        material: Material,
        points_3N: FloatArray,
        distance_N: FloatArray,
        slant_N: FloatArray,
        faces_3N: FloatArray,
        triangles_N: IntArray,
    ) -> Points:
        things = self._scene.things_T.take(triangles_N)
        pose_x, pose_y, cos, sin = (column.take(things) for column in self._poses)
        (x, y, z), (face_x, face_y, face_z) = points_3N, faces_3N
        dx, dy = x - pose_x, y - pose_y
        number = self._numbers.take(things)
        local_x = cos * dx + sin * dy
        if material <= Material.CURB:
            local_x += number
        return Points(
            local_x,
            cos * dy - sin * dx,
            z - self._bases.take(things),
            x,
            y,
            cos * face_x + sin * face_y,
            cos * face_y - sin * face_x,
            face_z,
            distance_N * self._pixel_rad,
            slant_N,
            number,
        )

    def _normals(
        self,
        material: Material,
        points_3N: FloatArray,
        faces_3N: FloatArray,
        triangles_N: IntArray,
    ) -> FloatArray:
        """Shading normals: interpolated on curved things, towards the viewer."""
        if material < Material.FOLIAGE or material == Material.PLATE:
            return faces_3N
        smooth = self._scene.smooth_normals(points_3N, triangles_N)
        if material != Material.FOLIAGE:
            behind = dot(smooth, faces_3N) < 0
            smooth *= np.where(behind, np.float32(-1), np.float32(1))
        return smooth

    def _irradiance(
        self,
        material: Material,
        points_3N: FloatArray,
        faces_3N: FloatArray,
        normals_3N: FloatArray,
    ) -> FloatArray:
        sun, sky = _rgb(self._daylight.sun), _rgb(self._daylight.sky)
        slope = np.float32(0.5) + np.float32(0.5) * normals_3N[2]
        ground_light = np.float32(0.35) * sky + np.float32(0.10) * sun
        lifted = points_3N + faces_3N * _LIFT_M
        ambient = slope * sky
        if material <= Material.GRASS:
            roofed = self._scene.covered(lifted, _UP)
            ambient *= np.where(roofed, np.float32(0.45), np.float32(1))
        light = ambient + (1 - slope) * ground_light
        if max(self._daylight.sun) <= 0:
            return light
        facing = dot(normals_3N, self._sun)
        if material == Material.FOLIAGE:
            # Leaves let light through: the shadow side of a crown is not black.
            facing = np.float32(0.25) + np.float32(0.6) * facing
            bright = np.flatnonzero(facing > 0)
            start = lifted.take(bright, axis=1) + np.float32(0.35) * self._sun[:, None]
        else:
            bright = np.flatnonzero((facing > 0) & (dot(faces_3N, self._sun) > 0))
            start = lifted.take(bright, axis=1)
        bright = bright[~self._scene.covered(start, self._sun)]
        sunlit = np.zeros_like(facing)
        sunlit[bright] = facing[bright]
        return light + sunlit * sun

    def _glossy(
        self,
        material: Material,
        colour_3N: FloatArray,
        rays_3N: FloatArray,
        normals_3N: FloatArray,
    ) -> FloatArray:
        """Paint and glass with what they mirror: sky above, dark ground and houses below."""
        gloss = np.float32(SURFACES[material].gloss)
        against = dot(rays_3N, normals_3N)
        mirrored = rays_3N - 2 * against * normals_3N
        graze = np.clip(1 + against, 0, 1)
        squared = graze * graze
        share = gloss + (np.float32(0.75) - gloss) * squared * squared * graze
        up = np.clip(mirrored[2], -1, 1)
        sky = self._daylight.sky_radiance(up)
        # Houses and trees stand before the horizon.
        open_sky = np.clip(up * 5 - np.float32(0.4), 0, 1)
        seen = sky * open_sky + _GROUND[:, None] * (1 - open_sky)
        colour = colour_3N * (1 - share) + seen * share
        if max(self._daylight.sun) > 0:
            glint = np.clip(dot(mirrored, self._sun) * 50 - 49, 0, 1)
            colour += glint * glint * share * 25
        return colour

    def _hazy(self, colour_3N: FloatArray, distance_N: FloatArray) -> FloatArray:
        table = haze_table(self._daylight.haze_per_m)
        index = np.clip(distance_N * 4, 0, len(table) - 1).astype(np.intp)
        kept = table.take(index)
        return colour_3N * kept + _rgb(self._daylight.horizon) * (1 - kept)


def _rgb(colour: tuple[float, float, float]) -> FloatArray:
    """Column (3, 1) of a colour."""
    return np.array(colour, dtype=np.float32)[:, None]


def _length(vectors_3N: FloatArray) -> FloatArray:
    return np.sqrt(dot(vectors_3N, vectors_3N))
