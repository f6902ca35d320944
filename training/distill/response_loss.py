"""Response distillation through the anchor head: teacher logits are the targets (cmkd-spec F3).

No labels and no matching: every anchor is compared with the same anchor of the teacher.
Letters: B batch, N anchors of a sample, K classes, M anchors that the teacher believes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.training.distill.loss_terms import LossTerms

CONFIDENT = 0.1  # teacher score above which an anchor counts
SMOOTH_L1_BETA = 1.0 / 9.0


@dataclass(frozen=True)
class ResponseLoss(LossTerms):
    """Terms of `anchor_response_loss`."""

    cls: torch.Tensor
    box: torch.Tensor
    dir: torch.Tensor


def anchor_response_loss(
    student: AnchorHeadOutput,
    teacher: AnchorHeadOutput,
    n_classes: int,
    cls_weight: float = 1.0,
    box_weight: float = 2.0,
    dir_weight: float = 0.2,
) -> ResponseLoss:
    """Compare the raw head maps of student and teacher.

    Args:
        student: maps of the student.
        teacher: maps of the same shapes; get no gradient.
        n_classes: classes per anchor.
        cls_weight, box_weight, dir_weight: factors (official: 2, 2, 0.4 for SECOND and 1, 2, 0.2
            for PointPillars).

    Raises:
        ValueError: the maps differ in shape.
    """
    if student.cls_logits.shape != teacher.cls_logits.shape:
        raise ValueError(
            f'head maps differ: student {tuple(student.cls_logits.shape)}, '
            f'teacher {tuple(teacher.cls_logits.shape)}; both specs must have one head and range'
        )
    batch = len(student.cls_logits)
    scores_BNK = _per_anchor(teacher.cls_logits, n_classes).detach().sigmoid()
    cls = _cls_loss(_per_anchor(student.cls_logits, n_classes), scores_BNK)

    belief_BN = scores_BNK.sum(-1)
    chosen_BN = belief_BN > CONFIDENT
    n_chosen_B1 = chosen_BN.sum(1, keepdim=True).clamp(min=1)
    weight_M = (belief_BN / n_chosen_B1)[chosen_BN]
    box = _box_loss(
        _per_anchor(student.box_deltas, 7)[chosen_BN],
        _per_anchor(teacher.box_deltas, 7)[chosen_BN].detach(),
        weight_M,
    )
    direction = _dir_loss(
        _per_anchor(student.dir_logits, 2)[chosen_BN],
        _per_anchor(teacher.dir_logits, 2)[chosen_BN].detach(),
        weight_M,
    )
    return ResponseLoss(
        cls=cls_weight * cls,  # quirk kept: not divided by the batch size, unlike the others
        box=box_weight * box / batch,
        dir=dir_weight * direction / batch,
    )


def _per_anchor(map_BYXC: torch.Tensor, n: int) -> torch.Tensor:
    return map_BYXC.float().reshape(len(map_BYXC), -1, n)


def _cls_loss(logits_BNK: torch.Tensor, scores_BNK: torch.Tensor) -> torch.Tensor:
    """Quality focal loss, per sample and class over the number of confident anchors."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits_BNK, scores_BNK, reduction='none')
    focal_BK = (cross_entropy * (logits_BNK.sigmoid() - scores_BNK).square()).sum(1)
    return (focal_BK / (scores_BNK > CONFIDENT).sum(1).clamp(min=1)).sum()


def _box_loss(
    student_M7: torch.Tensor, teacher_M7: torch.Tensor, weight_M: torch.Tensor
) -> torch.Tensor:
    """Smooth L1 of the residuals; of the yaws the sine of the difference."""
    difference_M7 = student_M7 - teacher_M7
    difference_M7 = torch.cat([difference_M7[:, :6], difference_M7[:, 6:].sin()], dim=1)
    loss_M7 = F.smooth_l1_loss(
        difference_M7, torch.zeros_like(difference_M7), beta=SMOOTH_L1_BETA, reduction='none'
    )
    return (loss_M7.sum(1) * weight_M).sum()


def _dir_loss(
    student_M2: torch.Tensor, teacher_M2: torch.Tensor, weight_M: torch.Tensor
) -> torch.Tensor:
    """Cross entropy with the teacher's bin."""
    # Quirk kept: the bin is taken after a float32 sigmoid, where saturated logits tie (bin 0 wins).
    target_M = teacher_M2.sigmoid().argmax(dim=1)
    return (F.cross_entropy(student_M2, target_M, reduction='none') * weight_M).sum()
