"""
Pedestrians and cyclists with moving legs and arms.

A person points along +x. The phase of the stride goes from 0 to 1; the boxes that the labels use
hold the whole stride, as KITTI's do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.shapes import Shape, blob, loft, merge, tube
from cmkd_ros.training.data.synthetic.surfaces import Material

FloatArray = NDArray[np.float64]
PHASES = 8
STRIDE_M = 1.4
CRANK_TURN_M = 4.5
_SKIN = ((0.55, 0.36, 0.26), (0.42, 0.25, 0.16), (0.16, 0.09, 0.055), (0.60, 0.42, 0.32))
_HAIR = ((0.02, 0.015, 0.01), (0.10, 0.05, 0.02), (0.30, 0.20, 0.08), (0.35, 0.35, 0.34))


@dataclass(frozen=True)
class Person:
    """Build and clothes: height in metres, girth as a factor, linear colours (3,)."""

    height: float
    girth: float
    shirt: FloatArray
    trousers: FloatArray
    skin: FloatArray
    hair: FloatArray
    helmet: FloatArray

    @classmethod
    def random(cls, rng: np.random.Generator) -> Person:
        """A grown-up, now and then a child."""
        grown = rng.random() > 0.12
        return cls(
            height=float(
                np.clip(rng.normal(1.73, 0.08), 1.5, 1.95) if grown else rng.uniform(1.1, 1.4)
            ),
            girth=float(rng.uniform(0.9, 1.2)),
            shirt=rng.uniform(0.02, 0.6, 3) ** 2 * 1.6,
            trousers=rng.choice([0.02, 0.05, 0.12]) * rng.uniform(0.6, 1.4, 3),
            skin=np.array(_SKIN[rng.integers(len(_SKIN))]),
            hair=np.array(_HAIR[rng.integers(len(_HAIR))]),
            helmet=rng.uniform(0.05, 0.8, 3),
        )


def pedestrian(person: Person, phase: float | None) -> Shape:
    """Someone walking at this phase of the stride, or standing (None)."""
    h, g = person.height, person.girth
    swing = 0.0 if phase is None else 0.42 * np.sin(2 * np.pi * phase)
    hip, shoulder = 0.50 * h, 0.815 * h
    parts = [_torso(person, (0.0, hip), (0.02 * h, shoulder)), *_head(person, 0.025 * h, 0.93 * h)]
    for side, angle in ((-1, swing), (1, -swing)):
        y = side * 0.055 * h * g
        foot_x, lift = np.sin(angle) * hip, hip * (1 - np.cos(angle))
        bend = max(0.0, -angle) * 0.25
        knee = (np.sin(angle) * hip * 0.5 + 0.1 * bend, y, hip * 0.53)
        ankle = (foot_x - bend * 0.3, y, 0.055 * h + lift * 0.8)
        parts += _limb((0.0, y, hip), knee, ankle, 0.055 * h * g, person.trousers)
        toe = (ankle[0] + 0.085 * h, y, ankle[2] - 0.02 * h)
        heel = (ankle[0] - 0.03 * h, y, ankle[2] - 0.02 * h)
        parts.append(tube(heel, toe, (0.033 * h, 0.025 * h), (0.02,) * 3, Material.CLOTH, 6))
        arm = -angle * 0.8
        y_arm = side * 0.135 * h * g
        elbow = (np.sin(arm) * 0.17 * h, y_arm * 1.06, shoulder - 0.19 * h)
        hand = (np.sin(arm) * 0.30 * h + 0.04 * h, y_arm * 1.06, shoulder - 0.35 * h)
        parts += _limb((0.02 * h, y_arm, shoulder), elbow, hand, 0.032 * h * g, person.shirt)
        parts.append(blob(hand, (0.025 * h,) * 3, person.skin, Material.SKIN, 0))
    return merge(parts)


def cyclist(person: Person, frame_colour: FloatArray, phase: float) -> Shape:
    """A rider on a bicycle at this phase of the crank."""
    h, radius = person.height, 0.335
    rear, front, crank = -0.53, 0.53, (-0.08, 0.0, 0.30)
    saddle, bar = (-0.20, 0.0, 0.92), (0.40, 0.0, 1.02)
    metal = Material.METAL
    parts = [_bicycle_wheel(rear, radius), _bicycle_wheel(front, radius)]
    bars = (
        ((rear, 0.0, radius), (-0.18, 0.0, 0.84)),
        ((rear, 0.0, radius), crank),
        (crank, saddle),
        (crank, (0.38, 0.0, 0.80)),
        ((-0.18, 0.0, 0.82), (0.38, 0.0, 0.86)),
        ((front, 0.0, radius), (0.40, 0.0, 1.0)),
    )
    parts += [tube(a, b, (0.022, 0.022), frame_colour, metal, 6) for a, b in bars]
    parts.append(tube((0.40, -0.27, 1.03), (0.40, 0.27, 1.03), (0.016,) * 2, (0.02,) * 3, metal, 6))
    parts.append(blob((-0.2, 0.0, 0.94), (0.14, 0.08, 0.04), (0.02,) * 3, Material.RUBBER, 0))
    hip, shoulder = (-0.16, 0.99), (0.12 * h, 0.98 + 0.27 * h)
    parts.append(_torso(person, hip, shoulder))
    parts += _head(person, shoulder[0] + 0.05 * h, shoulder[1] + 0.115 * h)
    head_top = (shoulder[0] + 0.045 * h, 0.0, shoulder[1] + 0.15 * h)
    parts.append(
        blob(head_top, (0.075 * h, 0.058 * h, 0.045 * h), person.helmet, Material.PAINT, 1)
    )
    for side in (-1, 1):
        angle = 2 * np.pi * (phase + (0.5 if side > 0 else 0.0))
        pedal = (crank[0] + 0.17 * np.cos(angle), side * 0.11, crank[2] + 0.17 * np.sin(angle))
        knee = ((hip[0] + pedal[0]) / 2 + 0.28, side * 0.1, (hip[1] + pedal[2]) / 2 + 0.08)
        parts += _limb((hip[0], side * 0.09, hip[1]), knee, pedal, 0.06 * h, person.trousers)
        elbow = ((shoulder[0] + bar[0]) / 2, side * 0.25, (shoulder[1] + bar[2]) / 2 - 0.06)
        hand = (bar[0], side * 0.25, bar[2] + 0.02)
        parts += _limb(
            (shoulder[0], side * 0.16, shoulder[1]), elbow, hand, 0.035 * h, person.shirt
        )
    return merge(parts)


def _limb(
    start: tuple[float, float, float],
    joint: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
    colour: FloatArray,
) -> list[Shape]:
    return [
        tube(start, joint, (radius, radius * 0.8), colour, Material.CLOTH, 6),
        tube(joint, end, (radius * 0.8, radius * 0.6), colour, Material.CLOTH, 6),
    ]


def _torso(person: Person, hip: tuple[float, float], shoulder: tuple[float, float]) -> Shape:
    """A trunk from the hips to the neck, through (x, z) of both."""
    h, g = person.height, person.girth
    angles = np.arange(10) * (2 * np.pi / 10)
    rings = []
    for share, depth, width in (
        (-0.06, 0.06, 0.085),
        (0.15, 0.075, 0.095),
        (0.45, 0.065, 0.085),
        (0.85, 0.07, 0.115),
        (1.0, 0.055, 0.12),
        (1.07, 0.03, 0.04),
    ):
        x = hip[0] + share * (shoulder[0] - hip[0])
        z = hip[1] + share * (shoulder[1] - hip[1])
        ring = np.stack(
            [x + depth * h * g * np.cos(angles), width * h * g * np.sin(angles), 0 * angles + z], -1
        )
        rings.append(ring)
    return loft(rings, person.shirt, Material.CLOTH)


def _head(person: Person, x: float, z: float) -> list[Shape]:
    h = person.height
    return [
        blob((x, 0, z), (0.055 * h, 0.043 * h, 0.068 * h), person.skin, Material.SKIN, 1),
        blob(
            (x - 0.012 * h, 0, z + 0.018 * h),
            (0.054 * h, 0.047 * h, 0.052 * h),
            person.hair,
            Material.CLOTH,
            1,
        ),
    ]


def _bicycle_wheel(x: float, radius: float) -> Shape:
    """A tyre with a square section."""
    angles = np.arange(19) * (2 * np.pi / 18)
    section = [(-0.02, radius - 0.05), (0.02, radius - 0.05), (0.02, radius), (-0.02, radius)]
    rings = [[(x + r * np.cos(a), y, radius + r * np.sin(a)) for y, r in section] for a in angles]
    return loft(rings, (0.015,) * 3, Material.RUBBER, lids=(False, False))
