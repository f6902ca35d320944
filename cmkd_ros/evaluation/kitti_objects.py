"""All objects of a KITTI split in flat arrays, and the pairs of label and detection that overlap.

Shape letters: L labels, D detections, P candidate pairs. Everything is float64.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.evaluation.kitti_overlap import bev_and_3d_iou, bev_far_apart, image_iou
from cmkd_ros.kitti_files import KittiObjects

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

METRICS = ('bbox', 'bev', '3d')
# A label of the class on the right neither counts nor makes its detection a false one.
NEIGHBOURS = {'car': 'van', 'pedestrian': 'person_sitting', 'cyclist': None}
# Bounds the memory of frames with thousands of boxes; KITTI stays far below in one chunk.
_PAIRS_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class FlatObjects:
    """The objects of all frames in frame and file order; `names` are lower case."""

    objects: KittiObjects
    names: NDArray[np.str_]
    frames: IntArray

    @classmethod
    def from_frames(cls, frames: Sequence[KittiObjects], scored: bool) -> 'FlatObjects':
        """Concatenate frames; numbers in `frames` are positions in the sequence."""
        objects = KittiObjects.concatenate(frames, scored)
        return cls(
            objects,
            np.array([name.lower() for name in objects.names], dtype=np.str_),
            np.repeat(np.arange(len(frames)), [len(frame) for frame in frames]),
        )

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def scores(self) -> FloatArray:
        """Scores of detections."""
        if self.objects.scores_N is None:
            raise ValueError('expected detections, which carry scores, found labels')
        return self.objects.scores_N

    @property
    def heights_px(self) -> FloatArray:
        """Heights of the image boxes, negative where y2 < y1."""
        return self.objects.boxes_px_N4[:, 3] - self.objects.boxes_px_N4[:, 1]

    @property
    def distances(self) -> FloatArray:
        """Distances on the ground from the camera, metres."""
        return np.hypot(self.objects.locations_N3[:, 0], self.objects.locations_N3[:, 2])


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs (label, detection) of one frame with any overlap, sorted by label then detection."""

    labels: IntArray
    detections: IntArray
    overlaps: dict[str, FloatArray]


def candidate_pairs(
    labels: FlatObjects, detections: FlatObjects, small_px: float
) -> CandidatePairs:
    """Compute the overlap of every pair that can matter to any class, metric and difficulty.

    Args:
        labels, detections: objects of the same frames.
        small_px: detections lower than this can match labels of every class.

    Returns:
        the pairs whose image, BEV or 3D overlap is above zero, with all three overlaps.
    """
    family = np.array(labels.names)
    for name, neighbour in NEIGHBOURS.items():
        if neighbour is not None:
            family[labels.names == neighbour] = name
    relevant = np.isin(family, list(NEIGHBOURS))
    small = np.abs(detections.heights_px) < small_px
    parts = []
    for label, detection in _pairs_of_frames(labels, detections, relevant):
        wanted = small[detection] | (family[label] == detections.names[detection])
        parts.append(_overlapping(labels, detections, label[wanted], detection[wanted]))
    if not parts:
        nothing = np.zeros(0, dtype=np.int64)
        return CandidatePairs(nothing, nothing, {metric: np.zeros(0) for metric in METRICS})
    return CandidatePairs(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.detections for part in parts]),
        {m: np.concatenate([part.overlaps[m] for part in parts]) for m in METRICS},
    )


def covered_by_dontcare(labels: FlatObjects, detections: FlatObjects) -> FloatArray:
    """Return (D,) the largest share of a detection's image box that one DontCare box covers."""
    share = np.zeros(len(detections))
    for label, detection in _pairs_of_frames(labels, detections, labels.names == 'dontcare'):
        covered = image_iou(
            labels.objects.boxes_px_N4[label],
            detections.objects.boxes_px_N4[detection],
            over_second=True,
        )
        np.maximum.at(share, detection, covered)
    return share


def _pairs_of_frames(
    labels: FlatObjects, detections: FlatObjects, chosen_L: BoolArray
) -> Iterator[tuple[IntArray, IntArray]]:
    """Yield every pair of a chosen label and a detection of its frame, in chunks."""
    label = np.flatnonzero(chosen_L)
    first = np.searchsorted(detections.frames, labels.frames[label], side='left')
    count = np.searchsorted(detections.frames, labels.frames[label], side='right') - first
    chunk = (np.cumsum(count) - count) // _PAIRS_AT_ONCE
    for rows in np.split(np.arange(len(label)), np.flatnonzero(np.diff(chunk)) + 1):
        n = count[rows]
        begin = np.cumsum(n) - n
        within = np.arange(n.sum()) - np.repeat(begin, n)
        yield np.repeat(label[rows], n), np.repeat(first[rows], n) + within


def _overlapping(
    labels: FlatObjects, detections: FlatObjects, label: IntArray, detection: IntArray
) -> CandidatePairs:
    boxes = image_iou(labels.objects.boxes_px_N4[label], detections.objects.boxes_px_N4[detection])
    near = np.flatnonzero(~bev_far_apart(labels.objects, label, detections.objects, detection))
    bev, volume = np.zeros_like(boxes), np.zeros_like(boxes)
    bev[near], volume[near] = bev_and_3d_iou(
        labels.objects, label[near], detections.objects, detection[near]
    )
    # A 3D overlap is never without a BEV overlap.
    kept = (boxes > 0) | (bev > 0)
    return CandidatePairs(
        label[kept],
        detection[kept],
        {'bbox': boxes[kept], 'bev': bev[kept], '3d': volume[kept]},
    )
