"""Depth supervision of the student's depth distribution (cmkd-spec F2).

Letters: B batch, h w pixels at the feature stride, D depth logits (bins + 1; the last stands for
"beyond the bins or unknown").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cmkd_ros.geometry.depth_bins import BinMode, depth_to_bin
from cmkd_ros.training.distill.loss_terms import LossTerms

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0
ONE_HOT_FLOOR = 1e-6  # quirk kept: kornia < 0.7 adds this to every class of its one-hot target


@dataclass(frozen=True)
class DepthLoss(LossTerms):
    """Terms of `depth_loss`."""

    depth: torch.Tensor


def depth_target(
    depth: torch.Tensor, mode: BinMode, n_bins: int, min_m: float, max_m: float
) -> torch.Tensor:
    """Class of each depth: its bin, or `n_bins` for no depth (0), NaN and depths beyond the bins.

    Returns:
        int64 of the shape of `depth`.
    """
    coordinate = depth_to_bin(depth.float(), mode, n_bins, min_m, max_m)
    beyond = ~torch.isfinite(coordinate) | (coordinate < 0) | (coordinate > n_bins)
    return torch.where(beyond, float(n_bins), coordinate).long()  # long() truncates


def depth_loss(
    logits_BDhw: torch.Tensor,
    depth_Bhw: torch.Tensor,
    mode: BinMode,
    min_m: float,
    max_m: float,
    weight: float = 1.0,
) -> DepthLoss:
    """Focal loss over the depth classes, mean over all pixels, padded ones included.

    Args:
        logits_BDhw: depth logits of the student, D = bins + 1.
        depth_Bhw: target metres at the feature stride; 0 unknown, NaN on the padding.
        mode, min_m, max_m: the student's depth bins.
        weight: factor (official: 1 for PointPillars, 0.5 for the others).

    Raises:
        ValueError: logits and target differ in size.
    """
    batch, classes, *size = logits_BDhw.shape
    if (batch, *size) != tuple(depth_Bhw.shape):
        raise ValueError(
            f'depth target is {tuple(depth_Bhw.shape)} but the logits are {(batch, *size)} '
            '(batch, rows, columns): both must be at the stride of the depth network'
        )
    target_Bhw = depth_target(depth_Bhw, mode, classes - 1, min_m, max_m)
    log_p_BDhw = F.log_softmax(logits_BDhw.float(), dim=1)
    focal_BDhw = -FOCAL_ALPHA * (1.0 - log_p_BDhw.exp()) ** FOCAL_GAMMA * log_p_BDhw
    at_target_Bhw = focal_BDhw.gather(1, target_Bhw[:, None]).squeeze(1)
    pixel_Bhw = at_target_Bhw + ONE_HOT_FLOOR * focal_BDhw.sum(1)
    return DepthLoss(depth=weight * pixel_Bhw.mean())
