"""From raw head maps to boxes: threshold, decode what is left, non-maximum suppression.

Letters: K boxes of one image. Boxes are (x, y, z, l, w, h, yaw) in the reference frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from cmkd_ros.geometry.overlap import nms_bev
from cmkd_ros.model.spec import PostSpec


@dataclass(frozen=True)
class RawBoxes:
    """Scored boxes of one image, by descending score.

    Attributes:
        boxes_K7: float32 gravity centre, l, w, h, yaw in ref.
        scores_K: float32 in [0, 1].
        labels_K: int64 class index, 0-based.
    """

    boxes_K7: torch.Tensor
    scores_K: torch.Tensor
    labels_K: torch.Tensor

    def __len__(self) -> int:
        return len(self.scores_K)

    def select(self, keep: torch.Tensor) -> RawBoxes:
        """The boxes at `keep` (indices or mask), in that order."""
        return RawBoxes(self.boxes_K7[keep], self.scores_K[keep], self.labels_K[keep])


@dataclass(frozen=True)
class Candidates:
    """Boxes of one image for post-processing in a fixed size (`fixed_post.py`).

    Attributes:
        boxes_K7, scores_K, labels_K: as `RawBoxes`; those that pass come first.
        passes_K: bool, what `decode` would give; the other boxes only fill the size.
        found: () how many wanted a place; more than K: some that pass may be missing.
    """

    boxes_K7: torch.Tensor
    scores_K: torch.Tensor
    labels_K: torch.Tensor
    passes_K: torch.Tensor
    found: torch.Tensor


class Head(Protocol):
    """What both heads offer to post-processing."""

    def decode(self, output: Any, image: int, score_threshold: float, max_boxes: int) -> RawBoxes:
        """The best boxes of one image of the batch, before suppression."""
        ...

    def candidates(
        self, output: Any, least_logit: torch.Tensor, least_score: torch.Tensor, max_boxes: int
    ) -> Candidates:
        """What `decode` gives for the first image, in a size that depends on no number."""
        ...

    def batch_size(self, output: Any) -> int:
        """Number of images in the maps."""
        ...


def score_to_logit(score: float) -> float:
    """Logit whose sigmoid is `score`, a hair lower so that rounding drops nothing.

    Thresholds are compared with logits first: the sigmoid is then taken of few survivors only.
    """
    if score <= 0.0:
        return -math.inf
    if score >= 1.0:
        return 16.0  # float32 sigmoids reach 1 a little above
    return math.log(score / (1.0 - score)) - 1e-3


@torch.no_grad()
def find_boxes(
    head: Head, head_output: Any, post: PostSpec, class_thresholds: Sequence[float] | None = None
) -> list[RawBoxes]:
    """Boxes of every image: score threshold, then class-agnostic rotated-BEV NMS.

    Args:
        head: the head that put the maps out (`AnchorHead`, `CenterHead`).
        head_output: its raw maps.
        post: thresholds and limits.
        class_thresholds: one score threshold per class instead of `post.score_threshold`. They act
            before the suppression: a box that is not wanted takes no other one away.

    Returns:
        One RawBoxes per image, by descending score; every number is finite.
    """
    found = []
    lowest = min(class_thresholds) if class_thresholds else post.score_threshold
    for image in range(head.batch_size(head_output)):
        candidates = head.decode(head_output, image, lowest, post.nms_max_in)
        if class_thresholds:
            least_C = candidates.scores_K.new_tensor(class_thresholds)
            candidates = candidates.select(candidates.scores_K > least_C[candidates.labels_K])
        # An untrained network may put out sizes of exp(large).
        candidates = candidates.select(candidates.boxes_K7.isfinite().all(dim=1))
        keep = nms_bev(
            candidates.boxes_K7,
            candidates.scores_K,
            post.nms_iou,
            post.nms_max_in,
            post.nms_max_out,
        )
        found.append(candidates.select(keep))
    return found
