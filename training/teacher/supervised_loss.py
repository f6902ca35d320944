"""Training an anchor head on labels (cmkd-spec F5): focal, smooth L1 with sine, direction.

Letters: B scans, N anchors, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.distill.loss_terms import LossTerms
from cmkd_ros.training.teacher.targets import (
    BACKGROUND,
    IGNORED,
    AnchorTargets,
    assign_targets,
)

FOCAL_ALPHA = 0.25
SMOOTH_L1_BETA = 1.0 / 9.0


@dataclass(frozen=True)
class AnchorHeadLoss(LossTerms):
    """Terms of `anchor_head_loss`."""

    cls: torch.Tensor
    box: torch.Tensor
    dir: torch.Tensor


def anchor_head_loss(
    head: AnchorHead,
    output: AnchorHeadOutput,
    boxes: Sequence[torch.Tensor],
    class_ids: Sequence[torch.Tensor],
    matched_iou: Sequence[float],
    unmatched_iou: Sequence[float],
    cls_weight: float = 1.0,
    box_weight: float = 2.0,
    dir_weight: float = 0.2,
) -> AnchorHeadLoss:
    """Loss of an anchor head's maps against labelled boxes.

    Every term is divided by the number of positive anchors of its scan and by the batch size.

    Args:
        head: gives the anchors and the direction bins.
        output: its maps.
        boxes: B tensors (M, 7) in ref, gravity centres.
        class_ids: B tensors (M,), 1-based.
        matched_iou, unmatched_iou: thresholds of the matching, one per class.
        cls_weight, box_weight, dir_weight: factors.

    Raises:
        ValueError: a class id outside the classes, or not as many scans as boxes.
    """
    if len(boxes) != len(output.cls_logits):
        raise ValueError(f'{len(output.cls_logits)} scans but boxes of {len(boxes)}')
    map_yx = (output.cls_logits.shape[1], output.cls_logits.shape[2])
    anchors_N7 = head.anchors(map_yx, output.cls_logits.device)
    targets = assign_targets(
        anchors_N7, boxes, class_ids, matched_iou, unmatched_iou, len(head.rotations_rad)
    )
    return supervised_loss(
        output,
        targets,
        head.direction_bins(targets.yaws_P),
        head.n_classes,
        cls_weight,
        box_weight,
        dir_weight,
    )


def supervised_loss(
    output: AnchorHeadOutput,
    targets: AnchorTargets,
    direction_bins_P: torch.Tensor,
    n_classes: int,
    cls_weight: float = 1.0,
    box_weight: float = 2.0,
    dir_weight: float = 0.2,
) -> AnchorHeadLoss:
    """The same for given targets; `direction_bins_P` (int64) belongs to the positive anchors."""
    labels_BN = targets.labels_BN
    batch = len(output.cls_logits)
    positive_BN = labels_BN > BACKGROUND
    weight_B = 1.0 / positive_BN.sum(1).clamp(min=1).float()
    cls_B = _focal_per_scan(output.cls_logits.float().reshape(batch, -1, n_classes), labels_BN)

    weight_P = weight_B[:, None].expand_as(positive_BN)[positive_BN]
    deltas_P7 = output.box_deltas.reshape(batch, -1, 7)[positive_BN].float()
    dir_P2 = output.dir_logits.reshape(batch, -1, 2)[positive_BN].float()
    difference_P7 = deltas_P7 - targets.deltas_P7
    # The sine makes a box and its half turn equal; the direction term tells them apart.
    difference_P7 = torch.cat([difference_P7[:, :6], difference_P7[:, 6:].sin()], dim=1)
    box_P = F.smooth_l1_loss(
        difference_P7, torch.zeros_like(difference_P7), beta=SMOOTH_L1_BETA, reduction='none'
    ).sum(1)
    dir_P = F.cross_entropy(dir_P2, direction_bins_P, reduction='none')
    return AnchorHeadLoss(
        cls=cls_weight * (cls_B * weight_B).sum() / batch,
        box=box_weight * (box_P * weight_P).sum() / batch,
        dir=dir_weight * (dir_P * weight_P).sum() / batch,
    )


def _focal_per_scan(logits_BNK: torch.Tensor, labels_BN: torch.Tensor) -> torch.Tensor:
    """(B,) sum of the sigmoid focal loss (gamma 2) over the anchors that are not ignored."""
    classes_K = torch.arange(1, logits_BNK.shape[2] + 1, device=labels_BN.device)
    is_class_BNK = labels_BN[..., None] == classes_K
    # Signed so that the wanted answer is a large number: loss = alpha * sigma(-x)^2 * -log sigma(x)
    signed_BNK = torch.where(is_class_BNK, logits_BNK, -logits_BNK)
    focal_BNK = -signed_BNK.neg().sigmoid().square() * F.logsigmoid(signed_BNK)
    alpha_BNK = torch.where(is_class_BNK, FOCAL_ALPHA, 1.0 - FOCAL_ALPHA)
    counted_BN1 = (labels_BN != IGNORED)[..., None]
    return (focal_BNK * alpha_BNK * counted_BN1).sum((1, 2))
