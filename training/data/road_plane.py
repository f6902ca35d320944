"""Estimated road planes (`planes/*.txt`), on which the official teachers stand pasted objects.

Letters: K boxes. Frames: ref (FLU at the LiDAR), cam (optical, rectified).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The road may climb or lean; a normal this far from vertical is a misread file.
_LEAST_VERTICAL = 0.8


def read_road_plane(path: Path) -> NDArray[np.float64]:
    """Read the plane of a frame: the last line of the file, after its header of three.

    Returns:
        (4,) a, b, c, d of `a x + b y + c z + d = 0` in cam, the normal of length 1 and upwards.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no four finite numbers, or a plane that is nothing like a road.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (road plane)')
    lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
    words = next((line.split() for line in reversed(lines) if line.strip()), [])
    try:
        plane_4 = np.array([float(word) for word in words])
    except ValueError:
        plane_4 = np.zeros(0)
    if plane_4.shape != (4,) or not np.isfinite(plane_4).all():
        raise ValueError(f'{path}: expected four numbers in the last line, found {words}')
    length = float(np.linalg.norm(plane_4[:3]))
    if abs(plane_4[1]) < _LEAST_VERTICAL * length or length == 0:
        raise ValueError(f'{path}: expected the plane of a road, found the normal {plane_4[:3]}')
    # y points down.
    return plane_4 / (-length if plane_4[1] > 0 else length)


def stand_on_plane(
    boxes_K7: NDArray[np.float32],
    plane_4: NDArray[np.float64],
    ref_to_cam_44: NDArray[np.floating],
) -> NDArray[np.float32]:
    """How far each box must be lifted so that its bottom stands on the plane.

    Args:
        boxes_K7: in ref, gravity centres.
        plane_4: of `read_road_plane`.
        ref_to_cam_44: of the frame that the plane belongs to.

    Returns:
        (K,) metres along z of ref. As officially, the plane is met along the camera's y below the
        centre of the box, and only z changes.
    """
    ref_to_cam_44 = ref_to_cam_44.astype(np.float64)
    centers_K3 = boxes_K7[:, :3].astype(np.float64)
    cam_K3 = centers_K3 @ ref_to_cam_44[:3, :3].T + ref_to_cam_44[:3, 3]
    a, b, c, d = plane_4
    cam_K3[:, 1] = (-d - a * cam_K3[:, 0] - c * cam_K3[:, 2]) / b
    cam_to_ref_44 = np.linalg.inv(ref_to_cam_44)
    ground_K = cam_K3 @ cam_to_ref_44[2, :3] + cam_to_ref_44[2, 3]
    return (ground_K + boxes_K7[:, 5] / 2 - centers_K3[:, 2]).astype(np.float32)
