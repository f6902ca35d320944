"""
KITTI labels of a scene, as an annotator with a perfect eye would write them.

Letters: N labelled candidates, M sample pixels of one of them, H W image rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.frames import wrap_angle
from cmkd_ros.kitti_files import KittiCalibration, KittiObjects
from cmkd_ros.training.data.synthetic.picture import PinholeRays
from cmkd_ros.training.data.synthetic.scene import Scene

FloatArray = NDArray[np.float64]
# Share of an object's own pixels that others may hide at KITTI's levels: 0 fully visible,
# 1 partly occluded, 2 largely occluded; beyond it is 3, unknown.
OCCLUSION_LIMITS = (0.10, 0.50, 0.90)
# An object with fewer rows than this, at KITTI's image height, is DontCare.
MIN_HEIGHT_PX = 10.0
_SAMPLES = 1200


@dataclass(frozen=True)
class Candidates:
    """Objects that show at least one pixel: index of the thing, class name, box in ref."""

    things_N: NDArray[np.intp]
    kinds: tuple[str, ...]
    boxes: Boxes3D


def label_scene(
    scene: Scene,
    things_HW: NDArray[np.int32],
    rays: PinholeRays,
    calibration: KittiCalibration,
    label_range_m: float,
) -> KittiObjects:
    """
    Labels of what the picture shows: objects first, DontCare regions last.

    Args:
        things_HW: what each pixel sees, from `take_picture`.
    """
    height, width = things_HW.shape
    found = visible_objects(scene, things_HW)
    if not len(found.kinds):
        return KittiObjects.empty()
    P2, T_cam_ref = calibration.P2_34, calibration.T_cam_ref
    boxes_px, inside = found.boxes.project(P2, T_cam_ref, width, height)
    locations, dimensions, rotations, _ = found.boxes.to_kitti(T_cam_ref)
    tall = boxes_px[:, 3] - boxes_px[:, 1] >= MIN_HEIGHT_PX * rays.height / 375
    near = (locations[:, 2] < label_range_m) & tall & inside
    cared = np.flatnonzero(near)
    far = np.flatnonzero(inside & ~near)
    hidden = [
        hidden_share(scene, things_HW, rays, int(found.things_N[i]), boxes_px[i]) for i in cared
    ]
    count = len(far)
    unknown = KittiObjects(
        ('DontCare',) * count,
        np.full(count, -1.0),
        np.full(count, -1),
        np.full(count, -10.0),
        boxes_px[far],
        np.full((count, 3), -1.0),
        np.full((count, 3), -1000.0),
        np.full(count, -10.0),
    )
    # The benchmark's definition: the heading as the camera sees it along the viewing ray.
    alphas = wrap_angle(rotations - np.arctan2(locations[:, 0], locations[:, 2]))
    known = KittiObjects(
        tuple(found.kinds[i] for i in cared),
        truncation(found.boxes[cared], calibration, boxes_px[cared], width, height),
        np.searchsorted(OCCLUSION_LIMITS, hidden),
        alphas[cared],
        boxes_px[cared],
        dimensions[cared],
        locations[cared],
        rotations[cared],
    )
    return _joined(known, unknown)


def visible_objects(scene: Scene, things_HW: NDArray[np.int32]) -> Candidates:
    """Vehicles and people of the scene that show at least one pixel."""
    pixels = np.bincount(things_HW[things_HW >= 0], minlength=len(scene.things))
    things = np.array(
        [i for i, thing in enumerate(scene.things) if thing.kind and pixels[i]], dtype=np.intp
    )
    boxes = Boxes3D(scene.boxes_in_ref(things))
    return Candidates(things, tuple(scene.things[i].kind for i in things), boxes)


def truncation(
    boxes: Boxes3D,
    calibration: KittiCalibration,
    boxes_px_N4: FloatArray,
    width: int,
    height: int,
) -> FloatArray:
    """Share of the rectangle around the whole box that lies outside of the picture, (N,)."""
    # The whole rectangle is the one on a canvas that reaches far beyond the picture.
    margin = 20.0 * width
    P_canvas = calibration.P2_34.copy()
    P_canvas[:2] += margin * P_canvas[2]
    side = int(2 * margin)
    whole, _ = boxes.project(P_canvas, calibration.T_cam_ref, width + side, height + side)
    return np.clip(1 - _areas(boxes_px_N4) / np.maximum(_areas(whole), 1e-6), 0.0, 1.0)


def hidden_share(
    scene: Scene,
    things_HW: NDArray[np.int32],
    rays: PinholeRays,
    thing: int,
    box_px_4: FloatArray,
) -> float:
    """Share of the object's own pixels within the picture that something else covers."""
    x1, y1, x2, y2 = (int(v) for v in np.round(box_px_4))
    step = max(1, int(np.sqrt((x2 - x1) * (y2 - y1) / _SAMPLES)))
    v_M, u_M = (a.ravel() for a in np.mgrid[y1 : y2 + 1 : step, x1 : x2 + 1 : step])
    directions = scene.to_world(rays.through(u_M, v_M))
    own = scene.meets_alone(thing, scene.place_in_world(rays.origin_3), directions)
    shown = own & (things_HW[v_M, u_M] == thing)
    return float(1 - shown.sum() / own.sum()) if own.any() else 1.0


def _areas(boxes_px_N4: FloatArray) -> FloatArray:
    return np.prod(boxes_px_N4[:, 2:] - boxes_px_N4[:, :2], axis=1)


def _joined(first: KittiObjects, second: KittiObjects) -> KittiObjects:
    names = [name for name in vars(first) if name not in ('names', 'scores_N')]
    return KittiObjects(
        first.names + second.names,
        *(np.concatenate([getattr(first, n), getattr(second, n)]) for n in names),
    )
