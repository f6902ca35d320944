"""Depth heads: a distribution over depth bins for every feature pixel.

Letters: B batch, C channels, D depth logits (bins + 1, the last one means 'beyond'), H W feature
rows and columns.
"""

from __future__ import annotations

import torch
from torch import nn

from cmkd_ros.model.conv_bn import ConvBnRelu

ASPP_RATES = (12, 24, 36)
ASPP_DROPOUT = 0.5


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, arXiv 1706.05587): five views of the features.

    The pooled view averages the whole canvas, so padding around smaller images of a batch shows.
    In training mode its batch norm needs at least two images.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvBnRelu(in_channels, channels, 1),
                *(ConvBnRelu(in_channels, channels, 3, dilation=rate) for rate in ASPP_RATES),
            ]
        )
        self.pooled = ConvBnRelu(in_channels, channels, 1)
        self.project = ConvBnRelu((len(ASPP_RATES) + 2) * channels, channels, 1)
        self.dropout = nn.Dropout(ASPP_DROPOUT)

    def forward(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W)."""
        views = [branch(deep_BCHW) for branch in self.branches]
        pooled = self.pooled(deep_BCHW.mean((2, 3), keepdim=True))
        views.append(pooled.expand_as(views[0]))
        return self.dropout(self.project(torch.cat(views, dim=1)))


class AsppDepthHead(nn.Module):
    """The depth head of the official student: ASPP, a 3x3 convolution, logits."""

    def __init__(self, in_channels: int, channels: int, n_logits: int) -> None:
        super().__init__()
        self.aspp = Aspp(in_channels, channels)
        self.refine = ConvBnRelu(channels, channels, 3)
        self.classifier = nn.Conv2d(channels, n_logits, 1)

    def forward(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """Depth logits (B, D, H, W) from deep image features (B, in_channels, H, W)."""
        return self.classifier(self.refine(self.aspp(deep_BCHW)))


class PlainDepthHead(nn.Module):
    """A small depth head for small students: two 3x3 convolutions, logits."""

    def __init__(self, in_channels: int, channels: int, n_logits: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            ConvBnRelu(in_channels, channels, 3), ConvBnRelu(channels, channels, 3)
        )
        self.classifier = nn.Conv2d(channels, n_logits, 1)

    def forward(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """Depth logits (B, D, H, W) from deep image features (B, in_channels, H, W)."""
        return self.classifier(self.convs(deep_BCHW))
