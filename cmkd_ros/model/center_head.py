"""Centre head (CenterPoint, arXiv 2006.11275): a heat map of object centres and their boxes.

Letters: B batch, C channels, Y X rows and columns of the head maps, K classes, N boxes. Boxes are
(x, y, z, l, w, h, yaw) in the reference frame, gravity centres.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.model.post import Candidates, RawBoxes, score_to_logit

PRIOR_LOGIT = -2.19  # of every cell of the heat map before training: a score of 0.1
REGRESSION_CHANNELS = {'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}


class CenterBranch(nn.Module):
    """3x3 convolution, batch norm, ReLU, 3x3 convolution to one of the maps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.hidden = ConvBnRelu(in_channels, in_channels, 3, bias=True)
        self.out = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, maps_BCYX: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, Y, X) to (B, out_channels, Y, X)."""
        return self.out(self.hidden(maps_BCYX))


class CenterHead(nn.Module):
    """A shared 3x3 convolution and one branch per map."""

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        shared_channels: int,
        range_m: Sequence[float],
        limit_range_m: Sequence[float],
        max_objects: int,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: channels of the BEV backbone's output.
            n_classes: classes, one heat map each.
            shared_channels: channels between the shared convolution and the maps.
            range_m: x, y, z minima, then maxima: the area the maps cover.
            limit_range_m: boxes whose centre lies outside are dropped.
            max_objects: boxes decoded per class, and per image.
        """
        super().__init__()
        self.n_classes = n_classes
        self.range_m = tuple(range_m)
        self.limit_range_m = tuple(limit_range_m)
        self.max_objects = max_objects
        self.shared = ConvBnRelu(in_channels, shared_channels, 3, bias=True)
        self.branches = nn.ModuleDict(
            {
                name: CenterBranch(shared_channels, channels)
                for name, channels in [*REGRESSION_CHANNELS.items(), ('hm', n_classes)]
            }
        )
        for name in REGRESSION_CHANNELS:
            for layer in (f'branches.{name}.hidden.conv', f'branches.{name}.out'):
                nn.init.kaiming_normal_(self.get_parameter(f'{layer}.weight'))
                nn.init.zeros_(self.get_parameter(f'{layer}.bias'))
        nn.init.constant_(self.get_parameter('branches.hm.out.bias'), PRIOR_LOGIT)

    def forward(self, bev_BCYX: torch.Tensor) -> CenterHeadOutput:
        """Raw maps (B, n, Y, X) from the BEV backbone's output."""
        shared = self.shared(bev_BCYX)
        return CenterHeadOutput(**{name: branch(shared) for name, branch in self.branches.items()})

    def batch_size(self, output: CenterHeadOutput) -> int:
        """Number of images in the maps."""
        return output.hm.shape[0]

    def decode(
        self, output: CenterHeadOutput, image: int, score_threshold: float, max_boxes: int
    ) -> RawBoxes:
        """The best boxes of one image, by descending score, before suppression.

        Quirk kept: every cell of the heat map is a candidate, not only its local maxima.

        Args:
            output: raw maps.
            image: index in the batch.
            score_threshold: scores must lie above it.
            max_boxes: at most so many boxes, besides `max_objects`.
        """
        logits, labels, cells = self._best_cells(output, image)
        passing = logits >= score_to_logit(score_threshold)
        labels, cells, scores = labels[passing], cells[passing], logits[passing].sigmoid()
        boxes = self._boxes_at(output, image, cells)
        keep = self._inside_limits(boxes) & (scores > score_threshold)
        keep = keep.nonzero()[:max_boxes, 0]
        return RawBoxes(boxes[keep], scores[keep], labels[keep])

    def candidates(
        self,
        output: CenterHeadOutput,
        least_logit: torch.Tensor,
        least_score: torch.Tensor,
        max_boxes: int,
    ) -> Candidates:
        """What `decode` gives for the first image, in a size that depends on no number.

        Args:
            output: raw maps.
            least_logit, least_score: () float32, `score_to_logit` of the threshold and itself.
            max_boxes: as in `decode`; the size of the result is `max_objects`, unless the map is
                smaller.
        """
        logits, labels, cells = self._best_cells(output, 0)
        scores = logits.sigmoid()
        boxes = self._boxes_at(output, 0, cells)
        passes = (logits >= least_logit) & self._inside_limits(boxes) & (scores > least_score)
        found = passes.sum().clamp(max=max_boxes)
        passes &= passes.cumsum(dim=0) <= max_boxes
        order = torch.where(passes, scores, -1.0).argsort(descending=True, stable=True)
        return Candidates(boxes[order], scores[order], labels[order], passes[order], found)

    def _best_cells(
        self, output: CenterHeadOutput, image: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The `max_objects` highest logits, their classes and their flat cells y * X + x."""
        logits_KN = output.hm[image].float().flatten(1)
        count = min(self.max_objects, logits_KN.shape[1])
        best_KN, cells_KN = logits_KN.topk(count, dim=1)
        logits, order = best_KN.flatten().topk(min(self.max_objects, best_KN.numel()))
        return logits, order // count, cells_KN.flatten()[order]

    def _inside_limits(self, boxes_N7: torch.Tensor) -> torch.Tensor:
        limits = self.limit_range_m
        inside = [
            (v >= low) & (v <= high)
            for v, low, high in zip(
                boxes_N7[:, :3].unbind(dim=1), limits[:3], limits[3:], strict=True
            )
        ]
        return inside[0] & inside[1] & inside[2]

    def _boxes_at(
        self, output: CenterHeadOutput, image: int, cells_N: torch.Tensor
    ) -> torch.Tensor:
        """Decode the boxes (N, 7) of flat cells y * X + x."""
        n_y, n_x = output.hm.shape[2:]
        maps = {
            name: getattr(output, name)[image].flatten(1)[:, cells_N].float()
            for name in REGRESSION_CHANNELS
        }
        cell_x = (self.range_m[3] - self.range_m[0]) / n_x
        cell_y = (self.range_m[4] - self.range_m[1]) / n_y
        length, width, height = maps['dim'].exp()
        cos, sin = maps['rot']
        return torch.stack(
            [
                (cells_N % n_x + maps['center'][0]) * cell_x + self.range_m[0],
                (cells_N // n_x + maps['center'][1]) * cell_y + self.range_m[1],
                maps['center_z'][0],
                length,
                width,
                height,
                torch.atan2(sin, cos),
            ],
            dim=1,
        )
