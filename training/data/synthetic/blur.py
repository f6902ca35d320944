"""
Motion blur: what moves across the picture while the shutter is open is smeared along its path.

Letters: H W image rows and columns, N pixels, I things. The blur is made from the sharp picture
and the depth of every pixel, so a smear stops at the picture's border and hides nothing new.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.synthetic.scene import Scene

FloatArray = NDArray[np.floating]
# Shorter paths do not show beside the blur of a pixel itself.
SHORTEST_PX = 0.7
_LONGEST_PX = 14.0
_STEP_S = 0.02


def smear(
    radiance_3N: FloatArray,
    depth_N: FloatArray,
    things_N: NDArray[np.int32],
    scene: Scene,
    to_pixels_33: FloatArray,
    shape: tuple[int, int],
) -> None:
    """
    Blur a picture in place.

    Args:
        radiance_3N: linear light, float32, row by row.
        depth_N: distance along the optical axis, metres; infinite for the sky.
        things_N: index of the thing that a pixel sees, -1 for the sky.
        scene: gives how everything moves.
        to_pixels_33: takes vectors of the world to homogeneous pixel coordinates.
        shape: rows and columns.
    """
    shutter = scene.street.daylight.shutter_s
    height, width = shape
    relative_I3 = scene.velocities(_STEP_S)[:, :, None]
    if not relative_I3.any():
        return
    # (du, dv) = (m_u - u m_z, m_v - v m_z) / depth for a motion m in homogeneous pixels.
    motion = (to_pixels_33 * relative_I3.transpose(0, 2, 1)).sum(-1) * shutter
    # On a grid: the inverse of a matrix rounds by machine.
    motion_I3 = (np.round(motion * 2**12) / 2**12).astype(np.float32)
    inverse = 1 / depth_N.reshape(shape)
    columns, rows = (np.arange(n, dtype=np.float32) for n in (width, height))
    # What stands still moves all alike: the terrain is the first thing.
    m_u, m_v, m_z = motion_I3[0]
    du, dv = (m_u - columns * m_z) * inverse, (m_v - rows * m_z)[:, None] * inverse
    du, dv = du.ravel(), dv.ravel()
    moving = np.flatnonzero(things_N >= len(scene.street.fixed))
    own_u, own_v, own_z = (motion_I3[:, i].take(things_N[moving]) for i in range(3))
    v, u = np.divmod(moving, width)
    du[moving] = (own_u - columns[u] * own_z) / depth_N[moving]
    dv[moving] = (own_v - rows[v] * own_z) / depth_N[moving]
    long = np.flatnonzero(du * du + dv * dv > np.float32(SHORTEST_PX * SHORTEST_PX))
    v, u = np.divmod(long, width)
    du, dv, rows, columns = du[long], dv[long], rows[v], columns[u]
    length = np.sqrt(du * du + dv * dv)
    shrink = np.minimum(np.float32(_LONGEST_PX) / length, 1)
    total = np.zeros((3, len(long)), dtype=np.float32)
    taps = (-0.4, -0.2, 0.0, 0.2, 0.4)
    for share in taps:
        step = shrink * np.float32(share)
        u = np.clip(np.floor(columns + du * step + np.float32(0.5)), 0, width - 1)
        v = np.clip(np.floor(rows + dv * step + np.float32(0.5)), 0, height - 1)
        total += radiance_3N.take(v.astype(np.intp) * width + u.astype(np.intp), axis=1)
    radiance_3N[:, long] = total * np.float32(1 / len(taps))
