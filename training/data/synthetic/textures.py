"""
Albedo of surface points: noise of every material, road marks, windows.

Letters: N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.crossings import ZEBRA_HALF_M, ZEBRA_M, Crossing
from cmkd_ros.training.data.synthetic.road import CrossSection
from cmkd_ros.training.data.synthetic.surfaces import SURFACES, Material, Noise

FloatArray = NDArray[np.floating]
STOREY_M = 2.9
_MARK = np.array([0.62, 0.62, 0.60], dtype=np.float32)[:, None]
_PANE = np.array([0.035, 0.042, 0.05], dtype=np.float32)[:, None]
# Noise of less contrast does not show.
_EVEN = 0.04


@dataclass(frozen=True)
class Points:
    """
    Points of one material that are to be painted.

    Attributes:
        x_N, y_N, z_N: in the frame of the thing that they belong to; road pieces: x is s, y is d.
        world_x_N, world_y_N: in the world.
        face_x_N, face_y_N, face_z_N: geometric normal in the frame of the thing.
        pixel_N: size of a pixel there, metres.
        slant_N: cosine between the ray and the normal.
        number_N: what tells things of a kind apart.
    """

    x_N: FloatArray
    y_N: FloatArray
    z_N: FloatArray
    world_x_N: FloatArray
    world_y_N: FloatArray
    face_x_N: FloatArray
    face_y_N: FloatArray
    face_z_N: FloatArray
    pixel_N: FloatArray
    slant_N: FloatArray
    number_N: FloatArray


def paint(
    material: Material,
    points: Points,
    colours_3N: FloatArray,
    section: CrossSection,
    noise: Noise,
) -> FloatArray:
    """Albedo (3, N) of points of this material whose triangles have these colours."""
    contrast = np.float32(SURFACES[material].contrast)
    albedo = colours_3N
    if contrast > _EVEN:
        albedo = albedo * (1 + contrast * _grain(material, points, noise))
    if material == Material.ROAD:
        albedo = _road(points, albedo, section, noise)
    elif material == Material.GRASS:
        albedo = _meadow(points, albedo, noise)
    elif material == Material.FACADE:
        albedo = _facade(points, albedo, noise)
    elif material == Material.SIDEWALK:
        albedo = _slabs(points, albedo)
    return np.clip(albedo, 0.0, 1.0)


def _grain(material: Material, points: Points, noise: Noise) -> FloatArray:
    """Noise on the plane that a surface lies in: from above, from the front or from the side."""
    if material in (Material.ROAD, Material.GRASS, Material.SIDEWALK):
        x, y = points.world_x_N, points.world_y_N
    else:
        x, y = points.x_N, points.y_N
    flat = np.abs(points.face_z_N) > 0.7
    along = np.abs(points.face_x_N) > np.abs(points.face_y_N)
    u = np.where(~flat & along, y, x)
    v = np.where(flat, y, points.z_N)
    scale = np.float32(SURFACES[material].grain_per_m)
    # A pixel on slanted ground is longer than wide: a compromise between blur and flicker.
    stretch = 1 / np.sqrt(np.maximum(points.slant_N, np.float32(0.02)))
    return noise.sample(u * scale, v * scale, points.pixel_N * stretch * scale)


def _stripe(distance_N: FloatArray, half: float, pixel_N: FloatArray) -> FloatArray:
    """Share of a pixel that a stripe covers, from the distance to the middle of the stripe."""
    return np.clip((half - np.abs(distance_N)) / pixel_N + np.float32(0.5), 0.0, 1.0)


def _road(points: Points, albedo_3N: FloatArray, section: CrossSection, noise: Noise) -> FloatArray:
    """Asphalt with patches, wheel tracks, cracks and marks."""
    s, d = points.x_N, points.y_N
    slanted = points.pixel_N / np.maximum(points.slant_N, np.float32(0.01))
    u, v = points.world_x_N * np.float32(1.7), points.world_y_N * np.float32(1.7)
    broad = noise.sample(u, v, slanted * np.float32(1.7))
    lane = np.float32(section.lane)
    track = np.abs(np.abs(np.abs(d) - lane / 2) - np.float32(0.75))
    shade = 1 + np.float32(0.16 + 0.2 * section.wear) * broad
    shade -= np.float32(0.10) * np.clip(1 - track * 3, 0, 1)
    crack = _stripe(broad - np.float32(0.22), 0.006 * section.wear, slanted * np.float32(0.3))
    shade *= 1 - np.float32(0.55) * crack
    albedo = albedo_3N * shade
    mark = np.zeros_like(s)
    if section.centre_mark != 'none':
        mark = _stripe(d, 0.06, points.pixel_N)
        if section.centre_mark == 'dashed':
            phase = s / np.float32(9.0)
            dash = (phase - np.floor(phase)) * np.float32(9.0) - np.float32(1.5)
            mark = mark * _stripe(dash, 1.5, slanted)
    if section.edge_marks:
        mark = np.maximum(mark, _stripe(np.abs(d) - lane, 0.06, points.pixel_N))
    for sign in (-1, 1):
        side = section.side(sign)
        if side.parking not in ('none', 'parallel'):
            bay = s / np.float32(2.75)
            line = (bay - np.floor(bay)) * np.float32(2.75) - np.float32(1.37)
            inside = (d * sign > lane + np.float32(0.1)) & (d * sign < side.curb)
            mark = np.maximum(mark, inside * _stripe(line, 0.05, slanted))
    for crossing in section.crossings:
        near = np.flatnonzero(np.abs(s - np.float32(crossing.s)) < crossing.half + 4)
        if len(near):
            mark[near] = _crossing_marks(
                s[near], d[near], slanted[near], mark[near], section, crossing
            )
    worn = np.clip(np.float32(1.1) - np.float32(0.35 * section.wear) * (1 + broad), 0, 1)
    return albedo + mark * worn * (_MARK - albedo)


def _crossing_marks(
    s_N: FloatArray,
    d_N: FloatArray,
    slanted_N: FloatArray,
    mark_N: FloatArray,
    section: CrossSection,
    crossing: Crossing,
) -> FloatArray:
    """Marks where another street crosses: zebras, its centre line; none in the middle."""
    s, d = s_N - np.float32(crossing.s), d_N
    along = np.abs(s)
    out = np.where(along < crossing.half + ZEBRA_M + ZEBRA_HALF_M + 0.6, np.float32(0), mark_N)
    curb = np.where(d > 0, np.float32(section.left.curb), np.float32(section.right.curb))
    beyond = np.abs(d) - curb
    arm = (along < crossing.half) & (beyond > 0)
    if crossing.zebra:
        for where, across, inside in (
            (along - np.float32(crossing.half + ZEBRA_M), d, beyond < 0),
            (beyond - np.float32(ZEBRA_M), s, arm),
        ):
            cell = across - np.floor(across) - np.float32(0.5)
            stripe = _stripe(cell, 0.25, slanted_N) * _stripe(where, ZEBRA_HALF_M, slanted_N)
            out = np.maximum(out, inside * stripe)
    line = _stripe(s, 0.06, slanted_N) * (arm & (beyond > 2 * ZEBRA_M))
    return np.maximum(out, line)


def _meadow(points: Points, albedo_3N: FloatArray, noise: Noise) -> FloatArray:
    """Grass with dry patches."""
    scale = np.float32(2.3)
    u, v = points.world_x_N * scale, points.world_y_N * scale
    slanted = points.pixel_N / np.maximum(points.slant_N, np.float32(0.02))
    broad = noise.sample(u, v, slanted * scale)
    dry = np.array([0.35, 0.10, 0.05], dtype=np.float32)[:, None]
    return albedo_3N * (1 + broad * (np.float32(0.35) + dry))


def _slabs(points: Points, albedo_3N: FloatArray) -> FloatArray:
    """Joints between paving slabs."""
    joint = np.zeros_like(points.x_N)
    slanted = points.pixel_N / np.maximum(points.slant_N, np.float32(0.02))
    for along, pixel in ((points.x_N, slanted), (points.y_N, points.pixel_N)):
        cell = along * np.float32(2.0)
        joint = np.maximum(
            joint,
            _stripe((cell - np.floor(cell)) * np.float32(0.5) - np.float32(0.25), 0.012, pixel),
        )
    return albedo_3N * (1 - np.float32(0.4) * joint)


def _facade(points: Points, albedo_3N: FloatArray, noise: Noise) -> FloatArray:
    """Rows of windows with frames, and a plinth; every house has its own grid."""
    number = points.number_N
    gauge = [np.float32(0.37), np.float32(0.73), np.float32(0.19)]
    draws = [number * g - np.floor(number * g) for g in gauge]
    pitch = np.float32(2.0) + np.float32(1.8) * draws[0]
    half_width = pitch * (np.float32(0.17) + np.float32(0.15) * draws[1])
    half_height = np.float32(0.55) + np.float32(0.35) * draws[2]
    along = np.abs(points.face_x_N) > np.abs(points.face_y_N)
    u = np.where(along, points.y_N, points.x_N)
    z = points.z_N
    column, row = np.floor(u / pitch), np.floor(z / np.float32(STOREY_M))
    du = u - (column + np.float32(0.5)) * pitch
    dz = z - (row + np.float32(0.55)) * np.float32(STOREY_M)
    pixel = points.pixel_N / np.maximum(points.slant_N, np.float32(0.1))

    def cover(border: float) -> FloatArray:
        across = np.clip((half_width + border - np.abs(du)) / pixel + np.float32(0.5), 0, 1)
        up = np.clip((half_height + border - np.abs(dz)) / points.pixel_N + np.float32(0.5), 0, 1)
        return across * up

    frame, pane = cover(0.09), cover(0.0)
    pane = pane * (1 - np.float32(0.8) * _stripe(du, 0.03, pixel))
    lit = noise.sample(column * 7 + number, row * 13, np.zeros_like(u)) * np.float32(0.6)
    glass = _PANE * (1 + np.maximum(lit, 0) * np.float32(6.0))
    plinth = _stripe(z - np.float32(0.3), 0.4, points.pixel_N)
    albedo = albedo_3N * (1 - np.float32(0.35) * plinth)
    frame_colour = albedo + np.float32(0.45) * (1 - albedo)
    albedo = albedo + frame * (frame_colour - albedo)
    return albedo + pane * (glass - albedo)
