"""The KITTI frames behind the recorded values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmkd_ros.training.data.frames import Range
from cmkd_ros.training.data.kitti import KittiFrames

FRAMES = ('000000', '000001', '000002')
CLASSES = ('Car', 'Pedestrian', 'Cyclist')


def golden_frames(
    goldens: Path,
    range_m: Range,
    frames: Sequence[str] = FRAMES,
    *,
    with_image: bool = True,
    with_points: bool = True,
    with_depth: bool = False,
) -> KittiFrames:
    """Labelled frames of the folder of recorded values, cropped to a range."""
    return KittiFrames(
        goldens,
        frames,
        CLASSES,
        split_folder='frames',
        range_m=range_m,
        with_image=with_image,
        with_points=with_points,
        with_depth=with_depth,
    )
