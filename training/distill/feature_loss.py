"""Feature distillation: the student's BEV map is to equal the teacher's (cmkd-spec F1).

Letters: B batch, C channels, Y X BEV rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cmkd_ros.training.distill.loss_terms import LossTerms


@dataclass(frozen=True)
class FeatureLoss(LossTerms):
    """Terms of `feature_loss`."""

    bev: torch.Tensor


def feature_loss(
    student_bev_BCYX: torch.Tensor, teacher_bev_BCYX: torch.Tensor, weight: float = 32.0
) -> FeatureLoss:
    """Mean squared difference over all elements, unmasked.

    Args:
        student_bev_BCYX: map after the adaptation.
        teacher_bev_BCYX: map of the same shape; gets no gradient.
        weight: factor (official: 32; 4 for PointPillars on KITTI).

    Raises:
        ValueError: the maps differ in shape.
    """
    if student_bev_BCYX.shape != teacher_bev_BCYX.shape:
        raise ValueError(
            f'BEV maps differ: student {tuple(student_bev_BCYX.shape)}, '
            f'teacher {tuple(teacher_bev_BCYX.shape)} (batch, channels, rows along y, columns '
            'along x); the two specs must agree in range, cell size and channels'
        )
    difference = student_bev_BCYX.float() - teacher_bev_BCYX.detach().float()
    return FeatureLoss(bev=weight * difference.square().mean())
