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
from cmkd_ros.model.post import RawBoxes, score_to_logit

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
        hm_KYX = output.hm[image].float()
        n_y, n_x = hm_KYX.shape[1:]
        count = min(self.max_objects, n_y * n_x)
        logits_KN, cells_KN = hm_KYX.flatten(1).topk(count, dim=1)
        logits, order = logits_KN.flatten().topk(min(self.max_objects, logits_KN.numel()))
        order = order[logits >= score_to_logit(score_threshold)]
        labels, cells = order // count, cells_KN.flatten()[order]
        scores = logits_KN.flatten()[order].sigmoid()
        boxes = self._boxes_at(output, image, cells)

        low, high = boxes.new_tensor(self.limit_range_m).view(2, 3)
        centers = boxes[:, :3]
        keep = ((centers >= low) & (centers <= high)).all(dim=1) & (scores > score_threshold)
        keep = keep.nonzero()[:max_boxes, 0]
        return RawBoxes(boxes[keep], scores[keep], labels[keep])

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
