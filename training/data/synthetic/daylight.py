"""
Light of a drive: sun, sky, haze and how the camera exposes.

Letters: N rays. Directions are in the world, z up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.surfaces import Noise, haze_table

FloatArray = NDArray[np.floating]
Colour = tuple[float, float, float]
# How far away the hills seem to be, by the haze before them.
_HILLS_M = 600


@dataclass(frozen=True)
class Daylight:
    """
    Sun, sky, haze and exposure.

    Attributes:
        sun_azimuth, sun_elevation: radians; azimuth in the world, from x towards y.
        sun: irradiance of the sun on a surface that faces it, linear RGB (0 when overcast).
        sky: irradiance from the sky on level ground.
        zenith, horizon: radiance of the sky above and at the horizon.
        clouds: share of the sky that they cover, 0 to 1.
        haze_per_m: extinction by haze.
        exposure: sensor value of unit radiance, before the tone curve.
        white_balance: gain of the colour channels.
        shutter_s: how long the shutter is open.
    """

    sun_azimuth: float
    sun_elevation: float
    sun: Colour
    sky: Colour
    zenith: Colour
    horizon: Colour
    clouds: float
    haze_per_m: float
    exposure: float
    white_balance: Colour
    shutter_s: float = 0.003

    @classmethod
    def random(cls, rng: np.random.Generator) -> Daylight:
        """Sunny, hazy or overcast."""
        overcast = rng.random() < 0.3
        elevation = float(rng.uniform(0.35, 1.1))
        strength = 0.0 if overcast else rng.uniform(0.7, 1.0)
        warmth = rng.uniform(0.0, 0.25) * (1.1 - elevation)
        sun = strength * np.array([1.0, 0.95 - 0.4 * warmth, 0.88 - 1.2 * warmth])
        blue = np.array([0.20, 0.36, 0.74]) * rng.uniform(0.8, 1.1)
        grey = np.array([0.60, 0.62, 0.66]) * rng.uniform(0.85, 1.1)
        zenith = grey if overcast else blue
        horizon = np.array([0.80, 0.84, 0.90]) * rng.uniform(0.85, 1.05)
        sky = np.array([0.46, 0.48, 0.52]) if overcast else np.array([0.22, 0.25, 0.31])
        ground_light = sun * np.sin(elevation) + sky
        exposure = 2.0 / ground_light.mean() * rng.uniform(0.75, 1.35)
        return cls(
            float(rng.uniform(-np.pi, np.pi)),
            elevation,
            _colour(sun),
            _colour(sky),
            _colour(zenith),
            _colour(horizon),
            float(rng.uniform(0.15, 0.75)),
            float(rng.choice([0.0004, 0.001, 0.0025], p=[0.5, 0.35, 0.15])),
            float(exposure),
            _colour(rng.uniform(0.95, 1.05, 3)),
            float(rng.uniform(0.005, 0.009) if overcast else rng.uniform(0.001, 0.005)),
        )

    def sun_direction(self) -> FloatArray:
        """Unit vector (3,) towards the sun."""
        flat = np.cos(self.sun_elevation)
        direction = [flat * np.cos(self.sun_azimuth), flat * np.sin(self.sun_azimuth)]
        direction.append(np.sin(self.sun_elevation))
        return np.round(np.array(direction) * 2**14).astype(np.float32) / np.float32(2**14)

    def sky_radiance(self, slope_N: FloatArray) -> FloatArray:
        """Light (3, N) of the clear sky at these slopes (z of unit directions)."""
        share = np.clip(slope_N * np.float32(2.2), 0.0, 1.0)
        share = share * (2 - share)
        zenith, horizon = _rgb(self.zenith), _rgb(self.horizon)
        return horizon + share * (zenith - horizon)

    def sky_behind(self, directions_3N: FloatArray, noise: Noise) -> FloatArray:
        """Light (3, N) from unit directions in which nothing stands: clouds, hills far away."""
        x, y, z = directions_3N
        inverse = 1 / np.maximum(z, np.float32(0.02)) * np.float32(14.0)
        footprint = np.minimum(inverse * np.float32(0.05), 64.0)
        cover = noise.sample(x * inverse, y * inverse, footprint) * np.float32(0.8)
        cover = np.clip(cover + np.float32(self.clouds - 0.35), 0.0, 1.0)
        clear = self.sky_radiance(z)
        light = clear + cover * (_rgb(self.horizon) * np.float32(1.05) - clear)
        kept = haze_table(self.haze_per_m)[4 * _HILLS_M]
        # The noise along two circles of the tile: near trees ragged, far hills smooth.
        for size, scale, detail, green in ((0.05, 24.0, 4.0, 0.75), (0.035, 75.0, 1.0, 0.5)):
            ridge = noise.sample(x * scale, y * scale, np.full_like(x, detail))
            inside = z < np.float32(size) * (np.float32(0.6) + ridge)
            hill = _rgb(self.horizon) * _rgb((0.55, 0.66, 0.62)) * np.float32(green)
            np.copyto(light, hill * kept + _rgb(self.horizon) * (1 - kept), where=inside)
        return light


def _rgb(colour: Colour) -> FloatArray:
    """Column (3, 1) of a colour."""
    return np.array(colour, dtype=np.float32)[:, None]


def _colour(values: NDArray[np.float64]) -> Colour:
    return float(values[0]), float(values[1]), float(values[2])
