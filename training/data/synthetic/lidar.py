"""
A 64-beam LiDAR (Velodyne HDL-64E) in the reference frame's origin, front sector only.

Letters: N rays.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.scene import Scene, dot
from cmkd_ros.training.data.synthetic.surfaces import surface_column

FloatArray = NDArray[np.floating]
AZIMUTH_STEP_DEG = 0.18
MAX_RANGE_M = 120.0
RANGE_NOISE_M = 0.015
# Two blocks of lasers: a fine one that looks ahead and a coarse one that looks down.
ELEVATIONS_DEG = np.concatenate([2.0 - np.arange(32) / 3, -8.83 - np.arange(32) * 0.5])


@lru_cache(maxsize=2)
def beam_directions(half_sector_deg: float) -> FloatArray:
    """
    Unit vectors (3, N) in the order of a KITTI scan.

    Beam by beam from the top; each turns to the left from straight ahead, and comes back to the
    middle from the right.
    """
    steps = int(half_sector_deg / AZIMUTH_STEP_DEG)
    azimuth = np.radians(AZIMUTH_STEP_DEG) * np.concatenate(
        [np.arange(steps) + 0.5, np.arange(-steps, 0) + 0.5]
    )
    elevation = np.radians(ELEVATIONS_DEG)[:, None]
    x, y = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    z = np.broadcast_to(np.sin(elevation), x.shape)
    # On a grid, so that every machine has the same beams.
    return (np.round(np.stack([x, y, z]) * 2**20) / 2**20).reshape(3, -1).astype(np.float32)


def scan(scene: Scene, half_sector_deg: float, rng: np.random.Generator) -> FloatArray:
    """
    One scan of the scene.

    Returns:
        points_N4 float32: x, y, z in the reference frame, metres, and intensity 0 to 0.99.
    """
    directions = beam_directions(half_sector_deg)
    in_world = scene.to_world(directions)
    triangles = scene.cast(scene.own_3, in_world)
    # Drawn for all beams, so that a ray's noise does not depend on what other rays hit.
    jitter = rng.standard_normal(len(triangles), dtype=np.float32)
    chance = rng.random(len(triangles), dtype=np.float32)
    speckle = rng.random(len(triangles), dtype=np.float32)
    hit = np.flatnonzero(triangles >= 0)
    triangles, directions, in_world = triangles[hit], directions[:, hit], in_world[:, hit]
    faces, colours = (a.take(triangles, axis=1) for a in (scene.faces_3T, scene.colours_3T))
    distance = scene.distances(scene.own_3, in_world, triangles)
    materials = scene.materials_T[triangles]
    facing = np.abs(dot(faces, in_world))
    brightness = np.sqrt((colours[0] + colours[1] + colours[2]) * np.float32(1 / 3))
    returned = surface_column('reflectance')[materials] * (
        np.float32(0.35) + np.float32(0.65) * brightness
    )
    # What comes back falls with the square of the distance; weak echoes are lost at random.
    echo = returned * facing * np.square(np.float32(50.0) / np.maximum(distance, 1))
    lost = surface_column('dropout')[materials] + np.clip(1 - echo / np.float32(0.012), 0, 1)
    kept = np.flatnonzero((chance[hit] >= lost) & (distance < MAX_RANGE_M))
    reach = distance[kept] + np.float32(RANGE_NOISE_M) * jitter[hit[kept]]
    points = np.empty((len(kept), 4), dtype=np.float32)
    # Three decimals, as KITTI's scans have.
    points[:, :3] = (np.round(directions[:, kept] * reach * 1000) / np.float32(1000)).T
    intensity = returned[kept] * (np.float32(0.5) + np.float32(0.5) * np.sqrt(facing[kept]))
    intensity *= np.float32(0.75) + np.float32(0.5) * speckle[hit[kept]]
    points[:, 3] = np.round(np.clip(intensity, 0, 0.99) * 100) / np.float32(100)
    return points
