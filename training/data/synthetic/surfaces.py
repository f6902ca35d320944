"""
What surfaces look like: materials, a tiled noise with mip levels, and the textures made of it.

Letters: N surface points. Only additions, products, quotients, roots and table look-ups are used
on points: these round alike on every machine, so a seed gives the same picture everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


class Material(IntEnum):
    """Kinds of surface; the value indexes `SURFACES`."""

    ROAD = 0
    SIDEWALK = 1
    CURB = 2
    GRASS = 3
    FACADE = 4
    ROOF = 5
    FOLIAGE = 6
    BARK = 7
    PAINT = 8
    GLASS = 9
    RUBBER = 10
    METAL = 11
    CLOTH = 12
    SKIN = 13
    LAMP = 14
    PLATE = 15


@dataclass(frozen=True)
class Surface:
    """
    Optical properties of a material.

    Attributes:
        grain_per_m: texels of the noise per metre.
        contrast: how far the noise scales the albedo, 0 for an even colour.
        gloss: share of the sky that it mirrors when seen head-on.
        reflectance: share of a LiDAR pulse that comes back from white paint of this kind.
        dropout: probability that a pulse is lost although it hits.
    """

    grain_per_m: float
    contrast: float
    gloss: float
    reflectance: float
    dropout: float


SURFACES: dict[Material, Surface] = {
    Material.ROAD: Surface(24.0, 0.20, 0.0, 0.55, 0.02),
    Material.SIDEWALK: Surface(16.0, 0.14, 0.0, 0.60, 0.02),
    Material.CURB: Surface(16.0, 0.14, 0.0, 0.70, 0.02),
    Material.GRASS: Surface(14.0, 0.50, 0.0, 0.80, 0.04),
    Material.FACADE: Surface(20.0, 0.10, 0.0, 0.60, 0.02),
    Material.ROOF: Surface(12.0, 0.25, 0.0, 0.40, 0.02),
    Material.FOLIAGE: Surface(26.0, 0.65, 0.0, 0.80, 0.08),
    Material.BARK: Surface(24.0, 0.40, 0.0, 0.50, 0.03),
    Material.PAINT: Surface(8.0, 0.03, 0.05, 0.60, 0.08),
    Material.GLASS: Surface(8.0, 0.00, 0.09, 0.10, 0.70),
    Material.RUBBER: Surface(20.0, 0.10, 0.0, 0.30, 0.05),
    Material.METAL: Surface(12.0, 0.12, 0.03, 0.60, 0.04),
    Material.CLOTH: Surface(40.0, 0.15, 0.0, 0.60, 0.02),
    Material.SKIN: Surface(20.0, 0.05, 0.0, 0.50, 0.02),
    Material.LAMP: Surface(8.0, 0.05, 0.08, 0.80, 0.05),
    Material.PLATE: Surface(8.0, 0.02, 0.0, 0.99, 0.01),
}


def surface_column(name: str) -> FloatArray:
    """One property of all materials as float32, indexed by `Material`."""
    return np.array([getattr(SURFACES[m], name) for m in Material], dtype=np.float32)


class Noise:
    """
    A noise tile of 512 x 512 texels around zero, blurred copies for far surfaces included.

    Seen from afar many texels share a pixel; the copy whose texels are as large as the pixel
    avoids the flicker that single texels would give.
    """

    SIZE = 512
    LEVELS = 8

    def __init__(self, rng: np.random.Generator) -> None:
        tile = np.zeros((self.SIZE, self.SIZE))
        for cells, weight in ((16, 0.35), (64, 0.5), (256, 0.6), (512, 0.55)):
            tile += weight * _enlarged(rng.uniform(-1.0, 1.0, (cells, cells)), self.SIZE)
        levels = [tile]
        for _ in range(self.LEVELS - 1):
            t = levels[-1]
            blurred = (t[::2, ::2] + t[1::2, ::2] + t[::2, 1::2] + t[1::2, 1::2]) * 0.25
            levels.append(blurred)
        self._texels = np.concatenate([level.ravel() for level in levels]).astype(np.float32)
        sizes = np.array([len(level) for level in levels])
        self._starts = np.concatenate([[0], np.cumsum(sizes * sizes)[:-1]]).astype(np.int32)
        self._sizes = sizes.astype(np.int32)
        self._scales = (sizes / self.SIZE).astype(np.float32)

    def sample(self, u_N: FloatArray, v_N: FloatArray, footprint_N: FloatArray) -> FloatArray:
        """
        Noise at texel coordinates, bilinear within the level of the footprint.

        Args:
            u_N, v_N: texel coordinates of the finest level; the tile repeats.
            footprint_N: size of a pixel in texels of the finest level.
        """
        # The exponent is the floor of the logarithm, without a logarithm's rounding.
        level = np.clip(np.frexp(footprint_N)[1], 0, self.LEVELS - 1)
        scale, size = self._scales[level], self._sizes[level]
        start, mask = self._starts[level], size - 1
        u, v = u_N * scale, v_N * scale
        u_low, v_low = np.floor(u), np.floor(v)
        fu, fv = u - u_low, v - v_low
        iu, iv = u_low.astype(np.int32), v_low.astype(np.int32)
        row0, row1 = start + (iv & mask) * size, start + ((iv + 1) & mask) * size
        col0, col1 = iu & mask, (iu + 1) & mask
        texels = self._texels
        top = texels[row0 + col0] * (1 - fu) + texels[row0 + col1] * fu
        low = texels[row1 + col0] * (1 - fu) + texels[row1 + col1] * fu
        return np.asarray(top * (1 - fv) + low * fv, dtype=np.float32)


def _enlarged(cells: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear enlargement of a tile to size x size with wrap-around."""
    repeat = size // len(cells)
    if repeat == 1:
        return cells
    for axis in (0, 1):
        following = np.roll(cells, -1, axis=axis)
        share = (np.arange(repeat) + 0.5) / repeat
        steps = [cells * (1 - f) + following * f for f in share]
        stacked = np.stack(steps, axis=axis + 1)
        shape = list(cells.shape)
        shape[axis] *= repeat
        cells = stacked.reshape(shape)
    return cells


@cache
def haze_table(density_per_m: float) -> FloatArray:
    """Share of light that survives k quarter metres of haze, for k = 0 ... 4095."""
    return np.exp(-density_per_m * np.arange(4096) / 4).astype(np.float32)


@cache
def tone_table() -> NDArray[np.uint8]:
    """8-bit value of linear light k / 4095: the sRGB curve with a soft shoulder."""
    light = np.arange(4096) / 4095
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(curve * 255).astype(np.uint8)
