"""Training SECOND's anchor head: every anchor's score is to be its own overlap (cmkd-spec F5).

Letters: B scans, N anchors, M boxes of a scan, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.nn import functional as F

from cmkd_ros.geometry.overlap import iou_3d
from cmkd_ros.model.anchor_head import AnchorHead, decode_boxes
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.teacher.supervised_loss import AnchorHeadLoss, anchor_head_loss


def quality_head_loss(
    head: AnchorHead,
    output: AnchorHeadOutput,
    boxes: Sequence[torch.Tensor],
    class_ids: Sequence[torch.Tensor],
    matched_iou: Sequence[float],
    unmatched_iou: Sequence[float],
    cls_weight: float = 8.0,
    box_weight: float = 2.0,
    dir_weight: float = 0.2,
) -> AnchorHeadLoss:
    """Loss of an anchor head's maps against labelled boxes, classes by quality.

    Boxes and directions learn as in `anchor_head_loss`, which also says what the arguments are.
    """
    terms = anchor_head_loss(
        head, output, boxes, class_ids, matched_iou, unmatched_iou, 0.0, box_weight, dir_weight
    )
    quality_BNK = quality_targets(head, output, boxes, class_ids)
    return replace(terms, cls=cls_weight * quality_focal_loss(output.cls_logits, quality_BNK))


@torch.no_grad()
def quality_targets(
    head: AnchorHead,
    output: AnchorHeadOutput,
    boxes: Sequence[torch.Tensor],
    class_ids: Sequence[torch.Tensor],
) -> torch.Tensor:
    """How good the box is that each anchor puts out now.

    Args:
        head: gives the anchors.
        output: its maps.
        boxes: B tensors (M, 7) in ref.
        class_ids: B tensors (M,), 1-based.

    Returns:
        (B, N, K) float32: 3-D IoU of the decoded box with the labelled box that it overlaps most,
        in the class of that box; 0 in the other classes.
    """
    map_yx = (output.cls_logits.shape[1], output.cls_logits.shape[2])
    anchors_N7 = head.anchors(map_yx, output.cls_logits.device)
    quality_BNK = anchors_N7.new_zeros(len(boxes), len(anchors_N7), head.n_classes)
    for quality_NK, deltas, boxes_M7, ids_M in zip(
        quality_BNK, output.box_deltas, boxes, class_ids, strict=True
    ):
        if len(boxes_M7) == 0:
            continue
        # Half a turn does not change the overlap: the direction need not be resolved.
        own_N7 = decode_boxes(deltas.reshape(-1, 7).float(), anchors_N7)
        overlap_NM = iou_3d(own_N7, boxes_M7.to(own_N7)).nan_to_num_(0.0, posinf=0.0)
        overlap_N, best_N = overlap_NM.max(dim=1)
        class_N = ids_M.to(best_N.device)[best_N] - 1
        quality_NK.scatter_(1, class_N[:, None], overlap_N[:, None])
    return quality_BNK


def quality_focal_loss(cls_logits_BYXC: torch.Tensor, quality_BNK: torch.Tensor) -> torch.Tensor:
    """Cross entropy times the squared error of the score.

    Each scan's sum is divided by the number of its anchors that overlap a box at all.
    Quirk kept: the sum over the scans is not divided by their number, unlike the other terms.

    Args:
        cls_logits_BYXC: maps of the head.
        quality_BNK: wanted scores.
    """
    logits_BNK = cls_logits_BYXC.float().reshape(quality_BNK.shape)
    cross_entropy = F.binary_cross_entropy_with_logits(logits_BNK, quality_BNK, reduction='none')
    focal_B = (cross_entropy * (logits_BNK.sigmoid() - quality_BNK).square()).sum((1, 2))
    return (focal_B / (quality_BNK > 0).sum((1, 2)).clamp(min=1)).sum()
