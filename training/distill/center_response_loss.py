"""Response distillation through the centre head (cmkd-spec F4, the part without labels).

Letters: B batch, K classes, Y X rows and columns of the heat map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.training.distill.loss_terms import LossTerms

CONFIDENT_PEAK = 0.3  # teacher heat above which a cell counts as positive
CONFIDENT = 0.1  # teacher heat, summed over the classes, above which boxes are compared
N_MAPS = 8  # center 2, center_z 1, dim 3, rot 2


@dataclass(frozen=True)
class CenterResponseLoss(LossTerms):
    """Terms of `center_response_loss`."""

    hm: torch.Tensor
    box: torch.Tensor


def center_response_loss(
    student: CenterHeadOutput,
    teacher: CenterHeadOutput,
    hm_weight: float = 1.0,
    box_weight: float = 4.0,
) -> CenterResponseLoss:
    """Compare the raw maps of student and teacher.

    Args:
        student: maps of the student.
        teacher: maps of the same shapes; get no gradient.
        hm_weight, box_weight: factors (official: 1 and a fixed 4).

    Raises:
        ValueError: the maps differ in shape.
    """
    if student.hm.shape != teacher.hm.shape:
        raise ValueError(
            f'heat maps differ: student {tuple(student.hm.shape)}, '
            f'teacher {tuple(teacher.hm.shape)}; both specs must have one head and range'
        )
    heat_BKYX = teacher.hm.detach().float().sigmoid()
    own_heat_BKYX = student.hm.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    cross_entropy = F.binary_cross_entropy(own_heat_BKYX, heat_BKYX, reduction='none')
    n_peaks = (heat_BKYX > CONFIDENT_PEAK).sum().clamp(min=1)
    hm = (cross_entropy * (own_heat_BKYX - heat_BKYX).square()).sum() / n_peaks

    belief_BYX = heat_BKYX.sum(1)
    chosen_BYX = belief_BYX > CONFIDENT
    own_M8 = box_codes(student)[chosen_BYX]
    wanted_M8 = box_codes(teacher).detach()[chosen_BYX]
    loss_M8 = F.smooth_l1_loss(own_M8, wanted_M8, reduction='none')
    # Mean over the chosen elements. Where nothing is chosen the official code divides 0 by 0 and
    # the training is lost; here that term is zero.
    weighted = loss_M8 * belief_BYX[chosen_BYX][:, None] * N_MAPS
    box = weighted.sum() / max(1, weighted.numel())
    return CenterResponseLoss(hm=hm_weight * hm, box=box_weight * box)


def box_codes(maps: CenterHeadOutput) -> torch.Tensor:
    """The regression maps side by side: (B, Y, X, 8) center, center_z, dim, rot."""
    joined = torch.cat([maps.center, maps.center_z, maps.dim, maps.rot], dim=1)
    return joined.float().permute(0, 2, 3, 1)
