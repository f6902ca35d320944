"""From raw head maps to boxes in shapes that depend on no number: what a graph can replay.

`find_boxes` defines the boxes. It asks the device again and again how many are left. Here a fixed
number of candidates is decoded and compared, every number that a user may change is a tensor, and
the host reads one table at the end. Where the table cannot hold all candidates it says so, and
`find_boxes` runs on the same maps instead.

Letters: K candidates, C classes, W bytes. Boxes are (x, y, z, l, w, h, yaw) in the reference frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cmkd_ros.geometry.fixed_nms import PairwiseOverlaps, choose
from cmkd_ros.model.post import Head, RawBoxes, score_to_logit
from cmkd_ros.model.spec import PostSpec

# Anchors that may pass the score threshold: 42 to 408 did in 12 frames of KITTI at 0.1. The pairs,
# and so the time, grow with the square.
CANDIDATES = 512
_BOX, _SCORE, _LABEL, _PASSES = slice(0, 7), 7, 8, 9
_COLUMNS = 10
_NO_CLASS_THRESHOLD = -1.0  # below every score


def limits_of(
    post: PostSpec, class_thresholds: Sequence[float] | None, n_classes: int
) -> torch.Tensor:
    """Thresholds as `FixedPost` reads them: (3 + C,) float64 on the CPU.

    Args:
        post: as in `find_boxes`.
        class_thresholds: as in `find_boxes`.
        n_classes: C.
    """
    lowest = min(class_thresholds) if class_thresholds else post.score_threshold
    per_class = class_thresholds or [_NO_CLASS_THRESHOLD] * n_classes
    return torch.tensor(
        [score_to_logit(lowest), lowest, post.nms_iou, *per_class], dtype=torch.float64
    )


class FixedPost:
    """Post-processing of one image; holds what the suppression needs, for one size of maps."""

    def __init__(self, head: Head, max_in: int, size: int = CANDIDATES) -> None:
        """Take the head that puts the maps out.

        Args:
            head: `AnchorHead` or `CenterHead`.
            max_in: `post.nms_max_in`.
            size: most anchors that may pass; a centre head has its own `max_objects`.
        """
        self._head = head
        self._max_boxes = min(size, max_in)
        self._overlaps: PairwiseOverlaps | None = None

    @torch.no_grad()
    def __call__(self, head_output: Any, limits: torch.Tensor) -> torch.Tensor:
        """Candidates of the first image of the maps, and which of them overlap.

        Args:
            head_output: raw maps.
            limits: from `limits_of`, on the device of the maps.

        Returns:
            (W,) uint8, for `boxes`.
        """
        logit, score = limits[:2].float()
        found = self._head.candidates(head_output, logit, score, self._max_boxes)
        size = len(found.scores_K)
        if self._overlaps is None or self._overlaps.size != size:
            self._overlaps = PairwiseOverlaps(size, found.scores_K.device)
        passes = found.passes_K & (found.scores_K > limits[3:].float()[found.labels_K])
        # An untrained network may put out sizes of exp(large).
        passes &= found.boxes_K7.isfinite().all(dim=1)
        columns = torch.stack([found.scores_K, found.labels_K.float(), passes.float()], dim=1)
        rows = torch.cat([found.boxes_K7, columns], dim=1)
        first = found.found.float().expand(1, _COLUMNS)
        table = torch.cat([first, rows]).flatten().view(torch.uint8)
        return torch.cat([table, self._overlaps(found.boxes_K7.double(), limits[2]).flatten()])

    def boxes(self, table_W: torch.Tensor, max_out: int) -> RawBoxes | None:
        """The boxes that `find_boxes` finds.

        Args:
            table_W: from the last call, on the CPU.
            max_out: only so many are kept.

        Returns:
            The boxes, on the CPU; None if there are more candidates than places.
        """
        candidates = self.candidates(table_W)
        if candidates is None:
            return None
        found, passes_K, overlaps_KW = candidates
        kept = choose(overlaps_KW, passes_K)[:max_out]
        return found.select(torch.tensor(kept, dtype=torch.int64))

    def candidates(self, table_W: torch.Tensor) -> tuple[RawBoxes, np.ndarray, np.ndarray] | None:
        """What `boxes` chooses from: candidates, which of them pass, what `choose` takes."""
        if self._overlaps is None:
            raise ValueError('there is no table yet')
        size = self._overlaps.size
        n_bytes = (size + 1) * _COLUMNS * 4
        numbers = table_W[:n_bytes].view(torch.float32).view(size + 1, _COLUMNS)
        if numbers[0, 0] > size:
            return None
        rows = numbers[1:]
        found = RawBoxes(rows[:, _BOX], rows[:, _SCORE], rows[:, _LABEL].long())
        return found, rows[:, _PASSES].numpy() > 0, table_W[n_bytes:].view(size, -1).numpy()
