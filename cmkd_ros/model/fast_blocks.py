"""Blocks whose residual is added by their last convolution, in place.

Letters: B batch, C channels, H W or Y X rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.bev import GATE_POOLING, BevBackbone, UpConvBnRelu
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
            residual = _residual(maps_BCHW, self.owns_input, self.last)
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
        residual = _residual(bev_BCYX, self.owns_input, convs['merge'])
        return convs['merge'](torch.cat([plain, gated], dim=1), residual)


def _residual(maps_BCHW: torch.Tensor, owned: bool, conv: nn.Module) -> torch.Tensor:
    """The input of a block for its last convolution, which may overwrite it."""
    return maps_BCHW.clone() if not owned and conv.overwrites_residual else maps_BCHW


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

    def forward(
        self, maps_BCYX: torch.Tensor, into_BCYX: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (B, in, Y, X) to (B, out, Y * factor, X * factor), channels last.

        Args:
            maps_BCYX: of any float type; cast to the weights'.
            into_BCYX: written to instead of new memory, if given: of the result's size and type.
        """
        batch, _, rows, columns = maps_BCYX.shape
        factor = self.factor
        pixels = maps_BCYX.to(self.weight.dtype).permute(0, 2, 3, 1)
        blocks = F.linear(pixels, self.weight, self.bias).relu_()
        blocks = blocks.view(batch, rows, columns, factor, factor, self.channels)
        blocks = blocks.permute(0, 5, 1, 3, 2, 4)  # batch, channel, row and its part, column, too
        if into_BCYX is None:
            into_BCYX = torch.empty(
                (batch, self.channels, rows * factor, columns * factor),
                dtype=blocks.dtype, device=blocks.device, memory_format=torch.channels_last,
            )  # fmt: skip
        into_BCYX.unflatten(3, (columns, factor)).unflatten(2, (rows, factor)).copy_(blocks)
        return into_BCYX


class FastBevBackbone(nn.Module):
    """`BevBackbone` in eval mode, whose blocks write their channels of the result side by side."""

    def __init__(
        self, plain: BevBackbone, blocks: Sequence[nn.Module], ups: Sequence[FastUpConv]
    ) -> None:
        """Take what the caller has made of the blocks and of the convolutions behind them."""
        super().__init__()
        self.out_scale, self.out_channels = plain.out_scale, plain.out_channels
        self.blocks = nn.ModuleList(blocks)
        self.ups = nn.ModuleList(ups)
        self.up_channels = [up.channels for up in ups]
        self.first_factor = ups[0].factor

    def forward(self, bev_BCYX: torch.Tensor) -> torch.Tensor:
        """As the plain backbone; channels last."""
        maps = self.blocks[0](bev_BCYX)
        rows, columns = (size * self.first_factor for size in maps.shape[2:])
        joined_BCYX = torch.empty(
            (len(maps), self.out_channels, rows, columns),
            dtype=maps.dtype, device=maps.device, memory_format=torch.channels_last,
        )  # fmt: skip
        for index, into_BCYX in enumerate(joined_BCYX.split(self.up_channels, dim=1)):
            if index > 0:
                maps = self.blocks[index](maps)
            self.ups[index](maps, into_BCYX)
        return joined_BCYX
