"""The centre head's extra terms on labelled frames (cmkd-spec F4, the part with labels).

Letters: B batch, K classes, Y X rows and columns of the heat map, M boxes of a frame, 8 box codes
(offset of the centre in cells x, y; z; log l, w, h; cos, sin of yaw). Frame: ref.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.training.distill.center_response_loss import box_codes
from cmkd_ros.training.distill.loss_terms import LossTerms


@dataclass(frozen=True)
class CenterLabelLoss(LossTerms):
    """Terms of `center_label_loss`."""

    label_hm: torch.Tensor
    label_box: torch.Tensor


@dataclass(frozen=True)
class CenterTargets:
    """What the centre head is to say about one frame.

    Attributes:
        heat_KYX: 1 at the centres, Gaussian around them.
        rows_M, columns_M: int64 cell of each box.
        codes_M8: regression target of each box.
    """

    heat_KYX: torch.Tensor
    rows_M: torch.Tensor
    columns_M: torch.Tensor
    codes_M8: torch.Tensor


def gaussian_radius(length: float, width: float, overlap: float) -> float:
    """Radius of the heat of a box, both in cells.

    Quirk kept (CornerNet's): the roots of the quadratics are not divided by their leading term.
    """
    total, area = length + width, length * width
    quadratics = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in quadratics)


@torch.no_grad()
def center_targets(
    boxes_M7: torch.Tensor,
    class_ids_M: torch.Tensor,
    n_classes: int,
    range_m: Sequence[float],
    size_yx: tuple[int, int],
    overlap: float = 0.1,
    min_radius: int = 2,
    max_objects: int = 50,
) -> CenterTargets:
    """Heat map and box codes of the labelled boxes of one frame.

    Args:
        boxes_M7: boxes in ref; only the first `max_objects` count.
        class_ids_M: 1-based.
        n_classes: K.
        range_m: point-cloud range that the map covers.
        size_yx: rows and columns of the map.
        overlap, min_radius: shape of the Gaussians.
        max_objects: cap per frame.

    Raises:
        ValueError: a class id outside the classes.
    """
    if len(class_ids_M) and not 1 <= int(class_ids_M.min()) <= int(class_ids_M.max()) <= n_classes:
        raise ValueError(f'class ids must lie in 1..{n_classes}, found {class_ids_M.tolist()}')
    size_y, size_x = size_yx
    cell_x = (range_m[3] - range_m[0]) / size_x
    cell_y = (range_m[4] - range_m[1]) / size_y
    sized_M = (boxes_M7[:, 3] > 0) & (boxes_M7[:, 4] > 0)
    sized_M[max_objects:] = False
    boxes_M7, ids_M = boxes_M7[sized_M].float(), class_ids_M[sized_M]
    x_M = ((boxes_M7[:, 0] - range_m[0]) / cell_x).clamp(0, size_x - 0.5)
    y_M = ((boxes_M7[:, 1] - range_m[1]) / cell_y).clamp(0, size_y - 0.5)
    columns_M, rows_M = x_M.long(), y_M.long()
    heat_KYX = boxes_M7.new_zeros(n_classes, size_y, size_x)
    for box, k, row, column in zip(
        boxes_M7.tolist(), ids_M.tolist(), rows_M.tolist(), columns_M.tolist(), strict=True
    ):
        radius = max(min_radius, int(gaussian_radius(box[3] / cell_x, box[4] / cell_y, overlap)))
        _draw(heat_KYX[k - 1], row, column, radius)
    codes_M8 = torch.stack(
        [
            x_M - columns_M,
            y_M - rows_M,
            boxes_M7[:, 2],
            *boxes_M7[:, 3:6].log().unbind(1),
            boxes_M7[:, 6].cos(),
            boxes_M7[:, 6].sin(),
        ],
        dim=1,
    )
    return CenterTargets(heat_KYX, rows_M, columns_M, codes_M8)


def center_label_loss(
    student: CenterHeadOutput,
    targets: Sequence[CenterTargets | None],
    hm_weight: float = 1.0,
    box_weight: float = 2.0,
) -> CenterLabelLoss:
    """Focal loss of the heat maps and L1 of the boxes at the labelled centres.

    Args:
        student: raw maps of the student.
        targets: one per frame, None for a frame without labels, which then does not count.
        hm_weight, box_weight: factors (official: 1 and 2).
    """
    frames = [b for b, target in enumerate(targets) if target is not None]
    given = [target for target in targets if target is not None]
    if not given:
        zero = student.hm.sum() * 0.0
        return CenterLabelLoss(label_hm=zero, label_box=zero)
    heat = student.hm[frames].float().sigmoid().clamp(1e-4, 1 - 1e-4)
    hm = _corner_focal(heat, torch.stack([target.heat_KYX for target in given]))
    codes = box_codes(student)
    own = torch.cat([codes[b, t.rows_M, t.columns_M] for b, t in zip(frames, given, strict=True)])
    wanted = torch.cat([target.codes_M8 for target in given])
    box = (own - wanted).abs().sum() / max(1, len(wanted))
    return CenterLabelLoss(label_hm=hm_weight * hm, label_box=box_weight * box)


def _corner_focal(heat: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """CornerNet's focal loss over the number of centres."""
    is_center = target == 1
    at_center = torch.log(heat + 1e-8) * (1 - heat).square()
    elsewhere = torch.log(1 - heat + 1e-8) * heat.square() * (1 - target) ** 4
    loss = -torch.where(is_center, at_center, elsewhere).sum()
    return loss / is_center.sum().clamp(min=1)


def _draw(heat_YX: torch.Tensor, row: int, column: int, radius: int) -> None:
    """Merge a Gaussian of a (2 radius + 1) wide window into a heat map, by maximum."""
    sigma = (2 * radius + 1) / 6
    size_y, size_x = heat_YX.shape
    top, bottom = max(0, row - radius), min(size_y, row + radius + 1)
    left, right = max(0, column - radius), min(size_x, column + radius + 1)
    dy = torch.arange(top, bottom, device=heat_YX.device)[:, None] - row
    dx = torch.arange(left, right, device=heat_YX.device) - column
    gaussian = torch.exp(-(dx * dx + dy * dy).double() / (2 * sigma * sigma)).to(heat_YX)
    window = heat_YX[top:bottom, left:right]
    torch.maximum(window, gaussian, out=window)
