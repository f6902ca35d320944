"""
Radiance along rays that hit the scene: sun with shadows, sky, reflections, haze.

Letters: N rays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.scene import Scene
from cmkd_ros.training.data.synthetic.surfaces import Material, haze_table, surface_column
from cmkd_ros.training.data.synthetic.textures import Points, paint

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int32]
_UP = np.array([0.0, 0.0, 1.0], dtype=np.float32)
_GROUND = np.array([0.11, 0.11, 0.10], dtype=np.float32)
# Shadow rays start this far above the surface.
_LIFT_M = np.float32(0.02)


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

    def radiance(
        self, directions_N3: FloatArray, triangles_N: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """
        Light along rays.

        Args:
            directions_N3: float32, of length 1 along the optical axis.
            triangles_N: what `Scene.cast` found for them.

        Returns:
            Linear RGB (N, 3), and the depth (N,) along the optical axis, inf for the sky.
        """
        out = np.empty((len(triangles_N), 3), dtype=np.float32)
        depth = np.full(len(triangles_N), np.inf, dtype=np.float32)
        hit = triangles_N >= 0
        missed = np.flatnonzero(~hit)
        out[missed] = self._sky(directions_N3.take(missed, axis=0))
        chosen = np.flatnonzero(hit)
        out[chosen], depth[chosen] = self._surface(
            directions_N3.take(chosen, axis=0), triangles_N[chosen]
        )
        return out, depth

    def _sky(self, directions_N3: FloatArray) -> FloatArray:
        unit = directions_N3 / _length(directions_N3)[:, None]
        return self._daylight.sky_behind(unit, self._scene.street.noise)

    def _surface(
        self, directions_N3: FloatArray, triangles_N: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        scene = self._scene
        reach = scene.distances(self.origin_3, directions_N3, triangles_N)
        points = self._origin_f32 + directions_N3 * reach[:, None]
        length = _length(directions_N3)
        rays = directions_N3 / length[:, None]
        distance = reach * length
        faces = scene.faces_T3.take(triangles_N, axis=0)
        towards = _dot(faces, rays)
        faces *= np.where(towards > 0, np.float32(-1), np.float32(1))[:, None]
        materials = scene.materials_T[triangles_N]
        albedo = paint(
            self._points(points, distance, np.abs(towards), faces, triangles_N),
            scene.colours_T3.take(triangles_N, axis=0),
            materials,
            scene.street.section,
            scene.street.noise,
        )
        normals = self._normals(points, rays, faces, triangles_N, materials)
        colour = albedo * self._irradiance(points, faces, normals, materials)
        self._add_gloss(colour, rays, normals, materials)
        return self._hazy(colour, distance), reach

    def _points(
        self,
        points_N3: FloatArray,
        distance_N: FloatArray,
        slant_N: FloatArray,
        faces_N3: FloatArray,
        triangles_N: IntArray,
    ) -> Points:
        things = self._scene.things_T[triangles_N]
        pose_x, pose_y, cos, sin = (column.take(things) for column in self._poses)
        dx, dy = points_N3[:, 0] - pose_x, points_N3[:, 1] - pose_y
        number = self._numbers[things]
        ground = self._scene.materials_T[triangles_N] <= Material.CURB
        local = np.stack(
            [
                cos * dx + sin * dy + np.where(ground, number, 0),
                cos * dy - sin * dx,
                points_N3[:, 2] - self._bases[things],
            ],
            axis=-1,
        )
        turned = np.stack(
            [
                cos * faces_N3[:, 0] + sin * faces_N3[:, 1],
                cos * faces_N3[:, 1] - sin * faces_N3[:, 0],
                faces_N3[:, 2],
            ],
            axis=-1,
        )
        pixel = distance_N * self._pixel_rad
        return Points(local, points_N3[:, 0], points_N3[:, 1], turned, pixel, slant_N, number)

    def _normals(
        self,
        points_N3: FloatArray,
        rays_N3: FloatArray,
        faces_N3: FloatArray,
        triangles_N: IntArray,
        materials_N: NDArray[np.uint8],
    ) -> FloatArray:
        """Shading normals: interpolated on curved things, towards the viewer."""
        normals = faces_N3.copy()
        curved = np.flatnonzero((materials_N >= Material.FOLIAGE) & (materials_N != Material.PLATE))
        smooth = self._scene.smooth_normals(points_N3[curved], triangles_N[curved])
        behind = _dot(smooth, faces_N3[curved]) < 0
        leaves = materials_N[curved] == Material.FOLIAGE
        normals[curved] = np.where((behind & ~leaves)[:, None], -smooth, smooth)
        return normals

    def _irradiance(
        self,
        points_N3: FloatArray,
        faces_N3: FloatArray,
        normals_N3: FloatArray,
        materials_N: NDArray[np.uint8],
    ) -> FloatArray:
        slope = np.float32(0.5) + np.float32(0.5) * normals_N3[:, 2]
        ground_light = np.float32(0.35) * _rgb(self._daylight.sky) + np.float32(0.10) * _rgb(
            self._daylight.sun
        )
        lifted = points_N3 + faces_N3 * _LIFT_M
        ambient = slope[:, None] * _rgb(self._daylight.sky)
        level = np.flatnonzero(materials_N <= Material.GRASS)
        roofed = level[self._scene.covered(lifted[level], _UP)]
        ambient[roofed] *= np.float32(0.45)
        light = ambient + (1 - slope[:, None]) * ground_light
        if max(self._daylight.sun) <= 0:
            return light
        facing = _dot(normals_N3, self._sun)
        leaves = materials_N == Material.FOLIAGE
        # Leaves let light through: the shadow side of a crown is not black.
        facing = np.where(leaves, np.float32(0.25) + np.float32(0.6) * facing, facing)
        bright = np.flatnonzero((facing > 0) & ((_dot(faces_N3, self._sun) > 0) | leaves))
        start = lifted[bright]
        start = start + np.where(leaves[bright], np.float32(0.35), 0)[:, None] * self._sun
        bright = bright[~self._scene.covered(start, self._sun)]
        light[bright] += facing[bright, None] * _rgb(self._daylight.sun)
        return light

    def _add_gloss(
        self,
        colour_N3: FloatArray,
        rays_N3: FloatArray,
        normals_N3: FloatArray,
        materials_N: NDArray[np.uint8],
    ) -> None:
        """Add what paint and glass mirror: sky above, dark ground and houses below."""
        gloss = surface_column('gloss')[materials_N]
        shiny = np.flatnonzero(gloss > 0)
        rays, normals = rays_N3[shiny], normals_N3[shiny]
        against = _dot(rays, normals)
        mirrored = rays - 2 * against[:, None] * normals
        graze = np.clip(1 + against, 0, 1)
        squared = graze * graze
        share = gloss[shiny] + (np.float32(0.75) - gloss[shiny]) * squared * squared * graze
        up = np.clip(mirrored[:, 2], -1, 1)
        sky = self._daylight.sky_radiance(up)
        # Houses and trees stand before the horizon.
        open_sky = np.clip(up * 5 - np.float32(0.4), 0, 1)[:, None]
        seen = sky * open_sky + _GROUND * (1 - open_sky)
        colour_N3[shiny] = colour_N3[shiny] * (1 - share[:, None]) + seen * share[:, None]
        if max(self._daylight.sun) > 0:
            glint = np.clip(_dot(mirrored, self._sun) * 50 - 49, 0, 1)
            colour_N3[shiny] += (glint * glint * share * 25)[:, None]

    def _hazy(self, colour_N3: FloatArray, distance_N: FloatArray) -> FloatArray:
        table = haze_table(self._daylight.haze_per_m)
        index = np.clip(distance_N * 4, 0, len(table) - 1).astype(np.int32)
        kept = table[index][:, None]
        return colour_N3 * kept + _rgb(self._daylight.horizon) * (1 - kept)


def _rgb(colour: tuple[float, float, float]) -> FloatArray:
    return np.array(colour, dtype=np.float32)


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    if b.ndim == 1:
        return a[:, 0] * b[0] + a[:, 1] * b[1] + a[:, 2] * b[2]
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _length(vectors_N3: FloatArray) -> FloatArray:
    return np.sqrt(_dot(vectors_N3, vectors_N3))
