"""
The camera: rays of a pinhole rig, edges smoothed, exposure and sensor noise, an 8-bit picture.

Letters: H W image rows and columns, N rays.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.kitti_files import KittiCalibration
from cmkd_ros.training.data.synthetic.blur import smear
from cmkd_ros.training.data.synthetic.light import Light
from cmkd_ros.training.data.synthetic.scene import Scene
from cmkd_ros.training.data.synthetic.surfaces import tone_table

FloatArray = NDArray[np.floating]
# Where the samples of an edge pixel lie, in pixels from its centre.
_EDGE_OFFSETS = ((0.27, -0.23), (-0.27, 0.23))
_STRIP = 16


class PinholeRays:
    """
    Rays of a rectified camera in the reference frame; a ray has length 1 along the optical axis.

    Args:
        calibration: of the camera; the fourth column of P2 moves its centre.
    """

    def __init__(self, calibration: KittiCalibration, width: int, height: int) -> None:
        self.width, self.height = width, height
        K, T = calibration.P2_34[:, :3], calibration.T_cam_ref
        self._K_inverse, self._R_ref_cam = np.linalg.inv(K), T[:3, :3].T
        centre_cam = -self._K_inverse @ calibration.P2_34[:, 3]
        self.origin_3 = self._R_ref_cam @ (centre_cam - T[:3, 3])
        self.pixel_rad = 1 / K[0, 0]
        v, u = np.divmod(np.arange(width * height, dtype=np.float64), width)
        self._columns, self._rows = u.reshape(height, width)[0], v.reshape(height, width)[:, 0]
        chequer = (np.add.outer(np.arange(height), np.arange(width)) & 1).astype(bool)
        chequer[[0, -1]] = chequer[:, [0, -1]] = False
        #: Pixels whose four neighbours are cast: they often see the same triangle.
        self.between_HW = chequer

    def to_world_33(self, scene: Scene) -> NDArray[np.float64]:
        """Matrix from homogeneous pixel coordinates to directions in the world."""
        return np.asarray(scene.R_world_ref @ self._R_ref_cam @ self._K_inverse)

    def in_world(self, scene: Scene) -> FloatArray:
        """Directions (3, N) of all pixels in the world, float32."""
        out = np.empty((3, self.height, self.width), dtype=np.float32)
        for i, (a, b, c) in enumerate(self.to_world_33(scene)):
            column, row = (a * self._columns + c).astype(np.float32), (b * self._rows).astype('f4')
            np.add(column, row[:, None], out=out[i])
        return out.reshape(3, -1)

    def through(self, u_N: NDArray[np.float64], v_N: NDArray[np.float64]) -> FloatArray:
        """Directions (3, N) of the rays through pixel coordinates (centres are integers)."""
        forward = self._R_ref_cam @ self._K_inverse
        planes = [row[0] * u_N + row[1] * v_N + row[2] for row in forward]
        return np.stack(planes).astype(np.float32)


@lru_cache(maxsize=2)
def _rays(key: bytes, width: int, height: int) -> PinholeRays:
    numbers = np.frombuffer(key)
    calibration = KittiCalibration(
        numbers[:12].reshape(3, 4), numbers[12:21].reshape(3, 3), numbers[21:].reshape(3, 4)
    )
    return PinholeRays(calibration, width, height)


def pinhole_rays(calibration: KittiCalibration, width: int, height: int) -> PinholeRays:
    """Rays of a camera, kept between frames."""
    parts = calibration.P2_34, calibration.R0_33, calibration.Tr_velo_to_cam_34
    return _rays(b''.join(part.tobytes() for part in parts), width, height)


def take_picture(
    scene: Scene, rays: PinholeRays, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """
    Picture of the scene.

    Returns:
        image_HW3 uint8 RGB, and things_HW int32: index of the thing that a pixel's centre sees, -1
        for the sky.
    """
    shape = rays.height, rays.width
    origin, directions = scene.place_in_world(rays.origin_3), rays.in_world(scene)
    near_HW = _near_movers(scene, rays, origin)
    triangles, like_neighbours = _first_hits(scene, rays, origin, directions, near_HW)
    light = Light(scene, origin, rays.pixel_rad)
    radiance = np.empty((3, len(triangles)), dtype=np.float32)
    depth = np.empty(len(triangles), dtype=np.float32)
    things = np.where(triangles >= 0, scene.things_T[triangles], -1).astype(np.int32)
    edge = _edges(scene, triangles, things, shape)
    shaded = np.flatnonzero(~(like_neighbours | edge))
    light.shade(directions, triangles, shaded, radiance, depth)
    edges = np.flatnonzero(edge)
    radiance[:, edges], depth[edges] = _smoothed(scene, rays, light, edges, near_HW)
    # The others are interpolated, as a sensor with a mosaic of colour filters does it.
    _interpolate(radiance, like_neighbours, rays.width)
    inner = np.flatnonzero(like_neighbours)
    depth[inner] = depth[inner - 1]
    to_pixels = np.linalg.inv(rays.to_world_33(scene))
    smear(radiance, depth, things, scene, to_pixels, shape)
    return develop(radiance.reshape(3, *shape), scene, rng), things.reshape(shape)


def _near_movers(
    scene: Scene, rays: PinholeRays, origin_3: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Pixels (H, W) that may see something that moves."""
    near = np.zeros((rays.height, rays.width), dtype=bool)
    to_pixels = np.linalg.inv(rays.to_world_33(scene))
    for corners in scene.mover_corners_I83:
        u, v, z = to_pixels @ (corners - origin_3).T
        if z.max() < 0.05:
            continue
        if z.min() < 0.05:
            near[:] = True
            return near
        x0, y0 = (max(0, int(np.floor((a / z).min())) - 2) for a in (u, v))
        x1, y1 = (max(0, int(np.ceil((a / z).max())) + 3) for a in (u, v))
        near[y0:y1, x0:x1] = True
    return near


def _first_hits(
    scene: Scene,
    rays: PinholeRays,
    origin_3: NDArray[np.float64],
    directions_3N: FloatArray,
    near_HW: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """
    First triangle (N,) of every pixel, -1 for none; and which pixels are like their neighbours.

    Every other pixel is cast; one whose four neighbours see the same triangle sees it too.
    """
    between, near = rays.between_HW, near_HW.ravel()
    hits = np.full(between.shape, -2, dtype=np.int32)

    def cast(mask_HW: NDArray[np.bool_]) -> None:
        pixels = np.flatnonzero(mask_HW)
        rays_there = directions_3N.take(pixels, axis=1)
        hits.ravel()[pixels] = scene.cast(origin_3, rays_there, np.flatnonzero(near[pixels]))

    cast(~between)
    left, right, up, down = hits[1:-1, :-2], hits[1:-1, 2:], hits[:-2, 1:-1], hits[2:, 1:-1]
    same = (left == right) & (up == down) & (left == up) & between[1:-1, 1:-1]
    np.copyto(hits[1:-1, 1:-1], left, where=same)
    cast(hits == -2)
    alike = np.zeros(between.shape, dtype=bool)
    alike[1:-1, 1:-1] = same
    return hits.ravel(), alike.ravel()


def _interpolate(values_CN: FloatArray, wanted_N: NDArray[np.bool_], width: int) -> None:
    """Replace the wanted values by the mean of two neighbours across the lesser change."""
    at = np.flatnonzero(wanted_N)
    left, right, up, down = (values_CN.take(at + step, axis=1) for step in (-1, 1, -width, width))
    middle = len(values_CN) // 2
    upright = np.abs(up[middle] - down[middle]) < np.abs(left[middle] - right[middle])
    left += right
    up += down
    np.copyto(left, up, where=upright)
    left *= np.float32(0.5)
    values_CN[:, at] = left


def _edges(
    scene: Scene,
    triangles_N: NDArray[np.int32],
    things_N: NDArray[np.int32],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Pixels beside another thing or another material."""
    material = np.where(triangles_N >= 0, scene.materials_T[triangles_N], 255).astype(np.int32)
    key = (things_N * 256 + material).reshape(shape)
    edge = np.zeros(shape, dtype=bool)
    beside, below = key[:, 1:] != key[:, :-1], key[1:] != key[:-1]
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    edge[1:] |= below
    edge[:-1] |= below
    return edge.ravel()


def _smoothed(
    scene: Scene,
    rays: PinholeRays,
    light: Light,
    pixels_N: NDArray[np.intp],
    near_HW: NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Mean light (3, N) of samples within each pixel, and the depth (N,) of the nearest."""
    v, u = np.divmod(pixels_N.astype(np.float64), rays.width)
    near = np.flatnonzero(near_HW.ravel()[pixels_N])
    samples = np.arange(len(pixels_N))
    radiance = np.empty((len(_EDGE_OFFSETS), 3, len(pixels_N)), dtype=np.float32)
    depth = np.empty((len(_EDGE_OFFSETS), len(pixels_N)), dtype=np.float32)
    for i, (du, dv) in enumerate(_EDGE_OFFSETS):
        directions = scene.to_world(rays.through(u + du, v + dv))
        triangles = scene.cast(light.origin_3, directions, near)
        light.shade(directions, triangles, samples, radiance[i], depth[i])
    return radiance.sum(0) * np.float32(1 / len(_EDGE_OFFSETS)), depth.min(0)


def develop(radiance_3HW: FloatArray, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure with a slow drift, noise of photons and electronics, and the tone curve."""
    daylight = scene.street.daylight
    drift = 1 + 0.06 * np.sin(0.5 * scene.time) + rng.normal(0.0, 0.01)
    gain = np.float32(np.round(daylight.exposure * drift * 2**14) / 2**14)
    balance = np.array(daylight.white_balance, dtype=np.float32) * gain * np.float32(0.5)
    _, height, width = radiance_3HW.shape
    image = np.empty((height, width, 3), dtype=np.uint8)
    # In strips that fit the processor's cache.
    for top in range(0, height, _STRIP):
        strip = slice(top, top + _STRIP)
        signal = radiance_3HW[:, strip] * balance[:, None, None]
        noise = rng.standard_normal((*signal.shape[1:], 3), dtype=np.float32)
        spread = np.maximum(signal, 0)
        spread *= np.float32(2.0e-4)
        spread += np.float32(4.0e-6)
        np.sqrt(spread, out=spread)
        spread *= noise.transpose(2, 0, 1)
        signal += spread
        signal *= np.float32(4095)
        counts = np.clip(signal, 0, 4095, out=signal).astype(np.intp)
        image[strip] = tone_table().take(counts).transpose(1, 2, 0)
    return image
