"""Blocks whose residual is added by their last convolution, in place.

Letters: B batch, C channels, H W or Y X rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.bev import GATE_POOLING, UpConvBnRelu
from cmkd_ros.model.fast_conv import FoldedConv, fold_batch_norm


class FastResidual(nn.Module):
    """A basic block or bottleneck of a ResNet in eval mode."""

    def __init__(
        self, convs: Sequence[FoldedConv], shortcut: FoldedConv | None, owns_input: bool
    ) -> None:
        """Take the folded convolutions.

        Args:
            convs: in order; the last one adds the shortcut.
            shortcut: convolution around them; None: the input itself.
            owns_input: nobody else needs the input, so that it may be overwritten.
        """
        super().__init__()
        self.inner = nn.Sequential(*convs[:-1])
        self.last = convs[-1]
        self.shortcut = shortcut
        self.owns_input = owns_input

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """As the plain block; channels last."""
        inner = self.inner(maps_BCHW)
        if self.shortcut is not None:
            residual = self.shortcut(maps_BCHW)
        else:
            residual = maps_BCHW if self.owns_input else maps_BCHW.clone()
        return self.last(inner, residual)


class FastSelfCalibratedBlock(nn.Module):
    """`SelfCalibratedBlock` in eval mode: gate and residual in place."""

    def __init__(self, convs: dict[str, FoldedConv], owns_input: bool) -> None:
        """Take the folded convolutions by the names they have in the plain block."""
        super().__init__()
        self.convs = nn.ModuleDict(convs)
        self.owns_input = owns_input

    def forward(self, bev_BCYX: torch.Tensor) -> torch.Tensor:
        """As the plain block; channels last."""
        convs = self.convs
        plain = convs['plain_out'](convs['plain_in'](bev_BCYX))
        gated = convs['gated_in'](bev_BCYX)
        context = convs['context'](F.avg_pool2d(gated, GATE_POOLING))
        gate = F.interpolate(context, size=gated.shape[2:], mode='nearest')
        gate = gate.add_(gated).sigmoid_()  # the plain block's 1e-8 is lost in rounding
        gated = convs['gated_out'](convs['gated'](gated).mul_(gate))
        residual = bev_BCYX if self.owns_input else bev_BCYX.clone()
        return convs['merge'](torch.cat([plain, gated], dim=1), residual)


class FastUpConv(nn.Module):
    """`UpConvBnRelu` in eval mode: one matrix product, then its columns laid out as pixels."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, plain: UpConvBnRelu, dtype: torch.dtype) -> None:
        super().__init__()
        weight, bias = fold_batch_norm(plain.conv.weight, plain.conv.bias, plain.bn, out_axis=1)
        self.factor = weight.shape[2]
        self.channels = weight.shape[1]
        # (ky, kx, out) x in.
        matrix = weight.permute(2, 3, 1, 0).flatten(0, 2)
        self.register_buffer('weight', matrix.to(dtype).contiguous(), persistent=False)
        self.register_buffer('bias', bias.repeat(self.factor**2).to(dtype), persistent=False)

    def forward(self, maps_BCYX: torch.Tensor) -> torch.Tensor:
        """Map (B, in, Y, X) to (B, out, Y * factor, X * factor), channels last."""
        batch, _, rows, columns = maps_BCYX.shape
        factor = self.factor
        pixels = maps_BCYX.to(self.weight.dtype).permute(0, 2, 3, 1)
        blocks = F.linear(pixels, self.weight, self.bias).relu_()
        blocks = blocks.view(batch, rows, columns, factor, factor, self.channels)
        up = blocks.permute(0, 1, 3, 2, 4, 5).reshape(
            batch, rows * factor, columns * factor, self.channels
        )
        return up.permute(0, 3, 1, 2)
