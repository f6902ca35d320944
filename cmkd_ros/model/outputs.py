"""What the networks put out: raw head maps, shared by student and teachers.

Letters: B batch, D depth logits (bins + 1), H W feature rows and columns, C channels,
Y X BEV rows (along y) and columns (along x), A anchors per cell, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class AnchorHeadOutput:
    """Raw maps of the anchor head, channels last; channel = anchor * n + j.

    Attributes:
        cls_logits: (B, Y, X, A*K).
        box_deltas: (B, Y, X, A*7) residuals (x, y, z, l, w, h, yaw) against the anchors.
        dir_logits: (B, Y, X, A*2) heading direction bins.
    """

    cls_logits: torch.Tensor
    box_deltas: torch.Tensor
    dir_logits: torch.Tensor


@dataclass(frozen=True)
class CenterHeadOutput:
    """Raw maps of the centre head, channels first.

    Attributes:
        hm: (B, K, Y, X) heat-map logits.
        center: (B, 2, Y, X) offset of the centre inside its cell, in cells (x, y).
        center_z: (B, 1, Y, X) metres.
        dim: (B, 3, Y, X) logarithm of (l, w, h).
        rot: (B, 2, Y, X) cosine and sine of yaw.
    """

    hm: torch.Tensor
    center: torch.Tensor
    center_z: torch.Tensor
    dim: torch.Tensor
    rot: torch.Tensor


HeadOutput = AnchorHeadOutput | CenterHeadOutput


@dataclass(frozen=True)
class StudentOutput:
    """Everything the student computes for a batch of images.

    Attributes:
        depth_logits_BDHW: (B, D, H, W) depth distribution before the softmax; last = beyond.
        bev_BCYX: BEV map after adaptation: the layer that feature distillation compares.
        head: raw head maps, or None when the student runs without head (stage 1).
    """

    depth_logits_BDHW: torch.Tensor
    bev_BCYX: torch.Tensor
    head: HeadOutput | None

    def __getattr__(self, name: str) -> torch.Tensor:
        # The maps of whichever head the network has, by their own names (cls_logits, hm, ...).
        head = object.__getattribute__(self, 'head')
        if name.startswith('_') or head is None or not hasattr(head, name):
            raise AttributeError(f'{type(self).__name__} has no map named {name!r}')
        return getattr(head, name)
