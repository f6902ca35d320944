"""What every data set of frames offers, the crop to a range, and several data sets as one.

Letters: N points, M labelled boxes. Frame: ref.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.training.data.sample import Sample

Range = tuple[float, float, float, float, float, float]
Augmentation = Callable[[Sample, np.random.Generator], Sample]


class FrameSource(Protocol):
    """A data set of frames; `KittiFrames`, `KittiRawFrames` and `ConcatFrames` are such."""

    @property
    def frame_ids(self) -> Sequence[str]:
        """Names of the frames, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def sample(self, index: int, augment: Callable[[Sample], Sample] | None = None) -> Sample:
        """One frame; `augment` runs on the whole scan, before the crop to the range."""


class ConcatFrames(Dataset[Sample]):
    """Several data sets one after the other, labelled and unlabelled ones mixed as they come."""

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        if not sources:
            raise ValueError('ConcatFrames: expected at least one data set, found none')
        self.sources = tuple(sources)
        self._ends = tuple(accumulate(len(source) for source in self.sources))

    @property
    def frame_ids(self) -> tuple[str, ...]:
        """Names of the frames, in order; the same name may occur in two data sets."""
        return tuple(name for source in self.sources for name in source.frame_ids)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int, augment: Callable[[Sample], Sample] | None = None) -> Sample:
        """One frame of the source that holds it, cropped to that source's range."""
        if not 0 <= index < len(self):
            raise IndexError(f'frame {index} of {len(self)}')
        which = bisect_right(self._ends, index)
        first = self._ends[which - 1] if which else 0
        return self.sources[which].sample(index - first, augment)


def crop_to_range(sample: Sample, range_m: Range) -> Sample:
    """Drop points outside the range in x and y, and boxes without a corner inside it.

    Args:
        sample: a frame.
        range_m: x, y, z minima, then maxima, metres in ref. Points are not filtered by z (the
            voxeliser does it); a corner must lie inside in all three.

    Returns:
        The frame with what remains. Source: cmkd-spec B.
    """
    low_3 = np.array(range_m[:3], dtype=np.float32)
    high_3 = np.array(range_m[3:], dtype=np.float32)
    points_N4 = sample.points_N4
    if points_N4 is not None:
        xy_N2 = points_N4[:, :2]
        points_N4 = points_N4[((xy_N2 >= low_3[:2]) & (xy_N2 <= high_3[:2])).all(axis=1)]
    corners_M83 = Boxes3D(sample.boxes_M7).corners_N83()
    inside_M8 = np.all((corners_M83 >= low_3) & (corners_M83 <= high_3), axis=2)
    inside_M = inside_M8.any(axis=1)
    return replace(
        sample,
        points_N4=points_N4,
        boxes_M7=sample.boxes_M7[inside_M],
        class_ids_M=sample.class_ids_M[inside_M],
    )
