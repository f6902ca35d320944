"""Convolution + batch norm, with or without ReLU: the brick of every network here."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ConvBn(nn.Module):
    """Square convolution that keeps the size at stride 1, then batch norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            bias=bias,
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=eps, momentum=momentum)

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        return self.bn(self.conv(maps_BCHW))


class ConvBnRelu(ConvBn):
    """`ConvBn` followed by a ReLU."""

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to non-negative (B, out_channels, H / stride, W / stride)."""
        return F.relu(super().forward(maps_BCHW), inplace=True)
