"""What a camera_info means beyond its numbers: whose pixels are rectified, and whose frame is
where.

Two things cannot be read from the message: whether the pixels are rectified already, and whether
the fourth column of P moves the camera away from the frame in the header (a stereo pair whose
images are both in the left camera's frame) or merely repeats where that frame is. Parameters
decide; `auto` follows the ROS conventions, but for the converters that are known to break them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sensor_msgs.msg import CameraInfo

Choice = Literal['auto', 'true', 'false']
# kitti2bag publishes rectified images with K, D and R of the raw ones, and gives every camera a
# frame at its own place beside P's fourth column, which is counted from camera 0: taken by the
# conventions, boxes are distorted and 6 cm aside. Odometry bags have P only; P is the same.
_KITTI2BAG_FRAMES = frozenset(
    f'camera_{kind}_{side}' for kind in ('gray', 'color') for side in ('left', 'right')
)


@dataclass(frozen=True)
class Convention:
    """How a camera_info is to be read.

    Attributes:
        rectified: True, the pixels are what P describes; False, they are raw; None, raw if the
            message gives a distortion.
        use_projection_offset: whether P's fourth column is part of the projection from the
            header's frame.
        note: a phrase for the log where something else than the plain convention is followed.
    """

    rectified: bool | None
    use_projection_offset: bool
    note: str = ''


def convention_of(
    info: CameraInfo, rectified: Choice = 'auto', use_projection_offset: Choice = 'auto'
) -> Convention:
    """Decide how to read a camera_info.

    Args:
        info: the message.
        rectified, use_projection_offset: the parameters of these names.

    Returns:
        The convention; parameters that are not `auto` always win.
    """
    is_kitti2bag = info.header.frame_id.lstrip('/') in _KITTI2BAG_FRAMES
    is_rectified = {'true': True, 'false': False}.get(rectified)
    if is_rectified is None and is_kitti2bag:
        is_rectified = True
    uses_offset = {'true': True, 'false': False}.get(use_projection_offset, not is_kitti2bag)
    followed = is_kitti2bag and 'auto' in (rectified, use_projection_offset)
    note = "read as kitti2bag writes it, by the frame's name" if followed else ''
    return Convention(is_rectified, uses_offset, note)
