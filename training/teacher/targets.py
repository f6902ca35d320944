"""Which anchor answers for which labelled box (cmkd-spec F5).

Letters: B scans, N anchors of the whole map, A anchors of one class, M boxes of a scan, P positive
anchors of the batch, K classes, R rotations. Frame: ref.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cmkd_ros.geometry.overlap import iou_bev_nearest_axis_aligned
from cmkd_ros.model.anchor_head import encode_boxes

IGNORED = -1
BACKGROUND = 0


@dataclass(frozen=True)
class AnchorTargets:
    """What the head is to say at every anchor.

    Attributes:
        labels_BN: int64 class of the matched box from 1, 0 background, -1 neither.
        deltas_P7: residuals of the matched box at the positive anchors (label > 0), in the order
            of `labels_BN` read row by row.
        yaws_P: yaw of the matched box at these, radians.
    """

    labels_BN: torch.Tensor
    deltas_P7: torch.Tensor
    yaws_P: torch.Tensor


@torch.no_grad()
def assign_targets(
    anchors_N7: torch.Tensor,
    boxes: Sequence[torch.Tensor],
    class_ids: Sequence[torch.Tensor],
    matched_iou: Sequence[float],
    unmatched_iou: Sequence[float],
    n_rotations: int = 2,
) -> AnchorTargets:
    """Match the labelled boxes of a batch with the anchors of their class.

    An anchor is positive when its overlap with its best box reaches the class's matched IoU, or
    when no anchor of the class overlaps some box more (each box gets its best anchors that way,
    however small the overlap); background when its best overlap is below the unmatched IoU. The
    overlap is that of the footprints, each turned to the nearest axis.

    Args:
        anchors_N7: all anchors, ordered by cell, then class, then rotation.
        boxes: B tensors (M, 7) in ref.
        class_ids: B tensors (M,), 1-based.
        matched_iou, unmatched_iou: K thresholds each.
        n_rotations: anchors per cell and class.

    Raises:
        ValueError: anchors that are no multiple of classes x rotations, or a class id outside.
    """
    n_classes = len(matched_iou)
    if len(anchors_N7) % (n_classes * n_rotations):
        raise ValueError(
            f'{len(anchors_N7)} anchors are no multiple of {n_classes} classes x '
            f'{n_rotations} rotations'
        )
    labels, matched_boxes, matched_anchors = [], [], []
    for boxes_M7, ids_M in zip(boxes, class_ids, strict=True):
        if len(ids_M) and not 1 <= int(ids_M.min()) <= int(ids_M.max()) <= n_classes:
            raise ValueError(f'class ids must lie in 1..{n_classes}, found {ids_M.tolist()}')
        boxes_M7 = boxes_M7.to(anchors_N7)
        label_N = torch.zeros(len(anchors_N7), dtype=torch.int64, device=anchors_N7.device)
        matched_N = torch.zeros_like(label_N)
        label_CKR = label_N.view(-1, n_classes, n_rotations)
        matched_CKR = matched_N.view(-1, n_classes, n_rotations)
        anchors_CKR7 = anchors_N7.view(-1, n_classes, n_rotations, 7)
        for k in range(n_classes):
            of_class = (ids_M == k + 1).nonzero().squeeze(1)
            if len(of_class) == 0:
                continue
            state_A, best_A = _match(
                anchors_CKR7[:, k].reshape(-1, 7),
                boxes_M7[of_class],
                matched_iou[k],
                unmatched_iou[k],
            )
            label_CKR[:, k] = torch.where(state_A > 0, k + 1, state_A).view(-1, n_rotations)
            matched_CKR[:, k] = of_class[best_A].view(-1, n_rotations)
        positive_N = label_N > BACKGROUND
        labels.append(label_N)
        matched_boxes.append(boxes_M7[matched_N[positive_N]])
        matched_anchors.append(anchors_N7[positive_N])
    boxes_P7 = torch.cat(matched_boxes)
    deltas_P7 = encode_boxes(boxes_P7, torch.cat(matched_anchors))
    return AnchorTargets(torch.stack(labels), deltas_P7, boxes_P7[:, 6])


def _match(
    anchors_A7: torch.Tensor, boxes_M7: torch.Tensor, matched_iou: float, unmatched_iou: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per anchor: 1 positive, 0 background, -1 neither; and the index of its best box."""
    overlap_AM = iou_bev_nearest_axis_aligned(anchors_A7, boxes_M7)
    best_iou_A, best_A = overlap_AM.max(dim=1)
    state_A = torch.full_like(best_A, IGNORED)
    state_A[best_iou_A < unmatched_iou] = BACKGROUND
    state_A[best_iou_A >= matched_iou] = 1
    # As in the official code a forced anchor learns its own best box, which may be another one.
    highest_M = overlap_AM.amax(dim=0)
    forced_A = ((overlap_AM == highest_M) & (highest_M > 0)).any(dim=1)
    state_A[forced_A] = 1
    return state_A, best_A
