"""Anchor head: class, box and direction of 2 x classes anchors per BEV cell.

Letters: B batch, C channels, Y X rows and columns of the head maps, A anchors per cell, K classes,
N boxes. Anchor a of a cell is class * rotations + rotation; the flat index of an anchor is
(y * X + x) * A + a. Boxes are (x, y, z, l, w, h, yaw) in the reference frame, gravity centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from cmkd_ros.model.outputs import AnchorHeadOutput
from cmkd_ros.model.post import Candidates, RawBoxes, score_to_logit

PRIOR_SCORE = 0.01  # of every anchor before training (focal loss, Lin et al. 2017)
DIRECTIONS = 2


def encode_boxes(boxes_N7: torch.Tensor, anchors_N7: torch.Tensor) -> torch.Tensor:
    """Residuals of boxes against anchors, the inverse of `decode_boxes`.

    Returns:
        (..., 7) offsets in units of the anchor's diagonal and height, logarithms of the size
        ratios, difference of yaw in radians (not wrapped).
    """
    size = boxes_N7[..., 3:6].clamp_min(1e-5)
    anchor_size = anchors_N7[..., 3:6].clamp_min(1e-5)
    scale = _offset_scale(anchor_size)
    return torch.cat(
        [
            (boxes_N7[..., :3] - anchors_N7[..., :3]) / scale,
            torch.log(size / anchor_size),
            boxes_N7[..., 6:7] - anchors_N7[..., 6:7],
        ],
        dim=-1,
    )


def decode_boxes(deltas_N7: torch.Tensor, anchors_N7: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 7) from residuals against anchors; yaw is known up to half a turn only."""
    anchor_size = anchors_N7[..., 3:6]
    return torch.cat(
        [
            deltas_N7[..., :3] * _offset_scale(anchor_size) + anchors_N7[..., :3],
            torch.exp(deltas_N7[..., 3:6]) * anchor_size,
            deltas_N7[..., 6:7] + anchors_N7[..., 6:7],
        ],
        dim=-1,
    )


def _offset_scale(anchor_size_N3: torch.Tensor) -> torch.Tensor:
    diagonal = torch.hypot(anchor_size_N3[..., 0:1], anchor_size_N3[..., 1:2])
    return torch.cat([diagonal, diagonal, anchor_size_N3[..., 2:3]], dim=-1)


class AnchorHead(nn.Module):
    """Three 1x1 convolutions on the BEV backbone, and the anchors their maps refer to."""

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        anchor_sizes_lwh: Sequence[tuple[float, float, float]],
        anchor_bottoms_z: Sequence[float],
        rotations_rad: Sequence[float],
        range_m: Sequence[float],
        direction_offset_rad: float = 0.78539,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the BEV backbone's output.
            n_classes: classes, one anchor size each, in order.
            anchor_sizes_lwh: (length, width, height) of each class's anchors.
            anchor_bottoms_z: z of their bottom faces in ref.
            rotations_rad: yaws every class's anchors come in.
            range_m: x, y, z minima, then maxima: the area the maps cover.
            direction_offset_rad: where the two direction bins meet.

        Raises:
            ValueError: not one size and bottom per class.
        """
        super().__init__()
        if not n_classes == len(anchor_sizes_lwh) == len(anchor_bottoms_z):
            raise ValueError(
                f'{n_classes} classes need as many anchors, found {len(anchor_sizes_lwh)} sizes '
                f'and {len(anchor_bottoms_z)} bottoms'
            )
        self.n_classes = n_classes
        self.anchor_sizes_lwh = tuple(anchor_sizes_lwh)
        self.anchor_bottoms_z = tuple(anchor_bottoms_z)
        self.rotations_rad = tuple(rotations_rad)
        self.range_m = tuple(range_m)
        self.direction_offset_rad = direction_offset_rad
        self.anchors_per_cell = n_classes * len(self.rotations_rad)
        self._anchors: dict[tuple[object, ...], torch.Tensor] = {}

        self.cls = nn.Conv2d(in_channels, self.anchors_per_cell * n_classes, 1)
        self.box = nn.Conv2d(in_channels, self.anchors_per_cell * 7, 1)
        self.direction = nn.Conv2d(in_channels, self.anchors_per_cell * DIRECTIONS, 1)
        prior_logit = -math.log((1.0 - PRIOR_SCORE) / PRIOR_SCORE)
        nn.init.constant_(self.get_parameter('cls.bias'), prior_logit)
        nn.init.normal_(self.box.weight, mean=0.0, std=0.001)

    def forward(self, bev_BCYX: torch.Tensor) -> AnchorHeadOutput:
        """Raw maps (B, Y, X, A * n) from the BEV backbone's output."""
        return AnchorHeadOutput(
            cls_logits=self.cls(bev_BCYX).permute(0, 2, 3, 1),
            box_deltas=self.box(bev_BCYX).permute(0, 2, 3, 1),
            dir_logits=self.direction(bev_BCYX).permute(0, 2, 3, 1),
        )

    def anchors(self, map_yx: tuple[int, int], device: torch.device | str) -> torch.Tensor:
        """All anchors of a map of that size, (Y * X * A, 7) float32 in ref.

        Quirk kept: the first and last anchors lie on the borders of the range, so that anchors are
        not at cell centres.
        """
        key = (map_yx, torch.device(device))
        if key not in self._anchors:
            with torch.inference_mode(False), torch.no_grad():
                self._anchors = {key: self._build_anchors(map_yx).to(device)}
        return self._anchors[key]

    def _build_anchors(self, map_yx: tuple[int, int]) -> torch.Tensor:
        x_min, y_min, _, x_max, y_max, _ = self.range_m
        y = torch.linspace(y_min, y_max, map_yx[0], dtype=torch.float64)
        x = torch.linspace(x_min, x_max, map_yx[1], dtype=torch.float64)
        kinds = []
        for size, bottom in zip(self.anchor_sizes_lwh, self.anchor_bottoms_z, strict=True):
            for rotation in self.rotations_rad:
                kinds.append([bottom + size[2] / 2, *size, rotation])
        kinds_A5 = torch.tensor(kinds, dtype=torch.float64)
        anchors_YXA7 = torch.empty(*map_yx, len(kinds), 7, dtype=torch.float64)
        anchors_YXA7[..., 0] = x[None, :, None]
        anchors_YXA7[..., 1] = y[:, None, None]
        anchors_YXA7[..., 2:] = kinds_A5
        return anchors_YXA7.view(-1, 7).float()

    def direction_bins(self, yaws_N: torch.Tensor) -> torch.Tensor:
        """The direction bin (int64, 0 or 1) that training wants for a yaw."""
        turned = torch.remainder(yaws_N - self.direction_offset_rad, 2 * math.pi)
        return (turned / math.pi).floor().long().clamp(0, DIRECTIONS - 1)

    def resolve_yaw(self, yaws_N: torch.Tensor, direction_logits_N2: torch.Tensor) -> torch.Tensor:
        """Choose between a yaw and its opposite by the direction bin with the larger logit."""
        offset = self.direction_offset_rad
        bins_N = direction_logits_N2.argmax(dim=-1).to(yaws_N.dtype)
        half_turns_N = ((yaws_N - offset) / math.pi).floor()
        return yaws_N + (bins_N - half_turns_N) * math.pi

    def batch_size(self, output: AnchorHeadOutput) -> int:
        """Number of images in the maps."""
        return output.cls_logits.shape[0]

    def decode(
        self, output: AnchorHeadOutput, image: int, score_threshold: float, max_boxes: int
    ) -> RawBoxes:
        """The best boxes of one image, by descending score, before suppression.

        Only anchors that pass the threshold are decoded.

        Args:
            output: raw maps.
            image: index in the batch.
            score_threshold: lowest score of the best class that passes.
            max_boxes: at most so many boxes.
        """
        logits_NK = output.cls_logits[image].reshape(-1, self.n_classes).float()
        best_N = logits_NK.amax(dim=1)
        candidates = (best_N >= score_to_logit(score_threshold)).nonzero()[:, 0]
        # Scores, not logits, name the class and the rank: float32 sigmoids tie where they saturate.
        scores, labels = logits_NK[candidates].sigmoid().max(dim=1)
        passed = (scores >= score_threshold).nonzero()[:, 0]
        scores, order = scores[passed].topk(min(max_boxes, len(passed)))
        # Equal scores come in the order of the official code, which sorts once more for the NMS:
        # where dozens saturate at 1, it decides which of them suppress the others.
        scores, again = scores.sort(descending=True)
        picked = passed[order[again]]
        boxes = self._boxes_at(output, image, candidates[picked])
        return RawBoxes(boxes, scores, labels[picked])

    def candidates(
        self,
        output: AnchorHeadOutput,
        least_logit: torch.Tensor,
        least_score: torch.Tensor,
        max_boxes: int,
    ) -> Candidates:
        """What `decode` gives for the first image, in a size that depends on no number.

        Equal scores come in the order of the anchors; `decode` leaves their order open.

        Args:
            output: raw maps.
            least_logit, least_score: () float32, `score_to_logit` of the threshold and itself.
            max_boxes: size of the result, unless there are fewer anchors.
        """
        logits_NK = output.cls_logits[0].reshape(-1, self.n_classes).float()
        best_N = logits_NK.amax(dim=1)
        passing_N = best_N >= least_logit
        ranked_N = torch.where(passing_N, best_N, -math.inf)
        index = ranked_N.topk(min(max_boxes, len(ranked_N)), sorted=False).indices.sort().values
        scores, labels = logits_NK[index].sigmoid().max(dim=1)
        passes = passing_N[index] & (scores >= least_score)
        order = torch.where(passes, scores, -1.0).argsort(descending=True, stable=True)
        index = index[order]
        return Candidates(
            self._boxes_at(output, 0, index),
            scores[order],
            labels[order],
            passes[order],
            passing_N.sum(),
        )

    def _boxes_at(
        self, output: AnchorHeadOutput, image: int, index_N: torch.Tensor
    ) -> torch.Tensor:
        """Decode the boxes (N, 7) of flat anchors."""
        n_y, n_x = output.cls_logits.shape[1:3]
        anchors = self.anchors((n_y, n_x), index_N.device)
        deltas = output.box_deltas[image].reshape(-1, 7)[index_N].float()
        boxes = decode_boxes(deltas, anchors[index_N])
        directions = output.dir_logits[image].reshape(-1, DIRECTIONS)[index_N].float()
        boxes[:, 6] = self.resolve_yaw(boxes[:, 6], directions)
        return boxes
