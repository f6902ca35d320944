"""
The camera: rays of a pinhole rig, edges smoothed, exposure and sensor noise, an 8-bit picture.

Letters: H W image rows and columns, N rays.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.kitti_files import KittiCalibration
from cmkd_ros.training.data.synthetic.light import Light
from cmkd_ros.training.data.synthetic.scene import Scene
from cmkd_ros.training.data.synthetic.surfaces import tone_table

FloatArray = NDArray[np.floating]
# Where further samples of an edge pixel lie, in pixels.
_EDGE_OFFSETS = ((0.31, -0.17), (-0.31, 0.17))
_CHUNK = 65536


class PinholeRays:
    """
    Rays of a rectified camera in the reference frame; a ray has length 1 along the optical axis.

    :param calibration: of the camera; the fourth column of P2 moves its centre.
    """

    def __init__(self, calibration: KittiCalibration, width: int, height: int) -> None:
        self.width, self.height = width, height
        K, T = calibration.P2_34[:, :3], calibration.T_cam_ref
        self._K_inverse, self._R_ref_cam = np.linalg.inv(K), T[:3, :3].T
        centre_cam = -self._K_inverse @ calibration.P2_34[:, 3]
        self.origin_3 = self._R_ref_cam @ (centre_cam - T[:3, 3])
        self.pixel_rad = 1 / K[0, 0]
        v, u = np.divmod(np.arange(width * height, dtype=np.float64), width)
        self.directions_N3 = self.through(u, v)

    def through(self, u_N: NDArray[np.float64], v_N: NDArray[np.float64]) -> FloatArray:
        """Directions of the rays through pixel coordinates (centres are integers)."""
        forward = self._R_ref_cam @ self._K_inverse
        columns = [forward[i, 0] * u_N + forward[i, 1] * v_N + forward[i, 2] for i in range(3)]
        return np.stack(columns, axis=-1).astype(np.float32)


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

    :returns: image_HW3 uint8 RGB, and things_HW int32: index of the thing that a pixel's centre
        sees, -1 for the sky.
    """
    shape = rays.height, rays.width
    origin, directions = scene.place_in_world(rays.origin_3), scene.to_world(rays.directions_N3)
    triangles = scene.cast(origin, directions)
    light = Light(scene, origin, rays.pixel_rad)
    radiance = np.empty((len(triangles), 3), dtype=np.float32)
    # In pieces that fit the processor's cache.
    for start in range(0, len(triangles), _CHUNK):
        part = slice(start, start + _CHUNK)
        radiance[part] = light.radiance(directions[part], triangles[part])
    things = np.where(triangles >= 0, scene.things_T[triangles], -1).astype(np.int32)
    edges = np.flatnonzero(_edges(scene, triangles, things, shape))
    radiance[edges] = _smoothed(scene, rays, light, edges, radiance[edges])
    return develop(radiance.reshape(*shape, 3), scene, rng), things.reshape(shape)


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
    centre_N3: FloatArray,
) -> FloatArray:
    """Mean of the centre and of further samples within each pixel."""
    v, u = np.divmod(pixels_N.astype(np.float64), rays.width)
    total = centre_N3
    for du, dv in _EDGE_OFFSETS:
        directions = scene.to_world(rays.through(u + du, v + dv))
        total = total + light.radiance(directions, scene.cast(light.origin_3, directions))
    return total * np.float32(1 / (len(_EDGE_OFFSETS) + 1))


def develop(radiance_HW3: FloatArray, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Exposure with a slow drift, noise of photons and electronics, and the tone curve."""
    daylight = scene.street.daylight
    drift = 1 + 0.06 * np.sin(0.5 * scene.time) + rng.normal(0.0, 0.01)
    gain = np.float32(np.round(daylight.exposure * drift * 2**14) / 2**14)
    signal = radiance_HW3 * (np.array(daylight.white_balance, dtype=np.float32) * gain * 0.5)
    spread = np.sqrt(np.maximum(signal, 0) * np.float32(2.0e-4) + np.float32(4.0e-6))
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    counts = np.clip((signal + spread * noise) * 4095, 0, 4095).astype(np.int16)
    return tone_table()[counts]
