"""Networks over the bird's-eye view: collapse of the voxels, adaptation, 2-D backbone.

Letters: B batch, C channels, Y X BEV rows (along y) and columns (along x), Z voxel layers, M cells
of the map that the camera sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.conv_bn import ConvBn, ConvBnRelu
from cmkd_ros.model.lift import VoxelColumns

# The gate of a self-calibrated block looks at the map reduced by this factor.
GATE_POOLING = 4
# Batch norm of the BEV backbone, which comes from another code base than the rest.
EPS, MOMENTUM = 1e-3, 0.01


class Collapse(nn.Module):
    """Turns every column of voxels into one BEV cell: a 1x1 convolution over channels x layers."""

    def __init__(self, in_channels: int, cells_xyz: Sequence[int], out_channels: int) -> None:
        """Build the layer.

        Args:
            in_channels: channels C of a voxel.
            cells_xyz: size of the grid.
            out_channels: channels of the BEV map.
        """
        super().__init__()
        self.cells_xyz = tuple(cells_xyz)
        # Input channel c * Z + z, as in the official weights.
        self.conv = nn.Conv2d(in_channels * self.cells_xyz[2], out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, columns: Sequence[VoxelColumns]) -> torch.Tensor:
        """BEV map (B, out_channels, Y, X) from the visible columns of every image.

        The convolution is a matrix product over the visible columns only; batch norm sees the
        whole map, in which the others are zero.
        """
        n_x, n_y, n_z = self.cells_xyz
        out_channels, in_channels = self.conv.weight.shape[:2]
        weight = self.conv.weight.view(out_channels, in_channels // n_z, n_z)
        weight = weight.transpose(1, 2).reshape(out_channels, in_channels)  # z * C + c
        maps = []
        for column in columns:
            cells_MC = F.linear(column.values_MZC.flatten(1), weight)
            full = cells_MC.new_zeros(n_y * n_x, out_channels)
            maps.append(full.index_copy(0, column.cells_M, cells_MC))
        bev_BYXC = torch.stack(maps).view(len(maps), n_y, n_x, out_channels)
        return F.relu(self.bn(bev_BYXC.permute(0, 3, 1, 2)), inplace=True)


class SelfCalibratedBlock(nn.Module):
    """Residual block of SCNet (Liu et al., CVPR 2020): one plain half, one half gated by context.

    The adaptation of CMKD is a chain of these. As in the official code the 3x3 convolutions have
    a bias and the gated path has no ReLU inside.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.plain_in = ConvBnRelu(channels, half, 1)
        self.plain_out = ConvBnRelu(half, half, 3, bias=True)
        self.gated_in = ConvBnRelu(channels, half, 1)
        self.context = ConvBn(half, half, 3, bias=True)
        self.gated = ConvBn(half, half, 3, bias=True)
        self.gated_out = ConvBnRelu(half, half, 3, bias=True)
        self.merge = ConvBn(2 * half, channels, 1)

    def forward(self, bev_BCYX: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, Y, X) to the same shape; Y and X of at least 4."""
        plain = self.plain_out(self.plain_in(bev_BCYX))
        gated = self.gated_in(bev_BCYX)
        context = self.context(F.avg_pool2d(gated, GATE_POOLING))
        context = F.interpolate(context, size=gated.shape[2:], mode='nearest')
        gate = torch.sigmoid(gated + context + 1e-8)
        gated = self.gated_out(self.gated(gated) * gate)
        merged = self.merge(torch.cat([plain, gated], dim=1))
        return F.relu(merged + bev_BCYX, inplace=True)


class UpConvBnRelu(nn.Module):
    """Transposed convolution by a whole factor, batch norm, ReLU (BEV backbone)."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=EPS, momentum=MOMENTUM)

    def forward(self, maps_BCYX: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, Y, X) to (B, out_channels, Y * factor, X * factor)."""
        return F.relu(self.bn(self.conv(maps_BCYX)), inplace=True)


class BevBackbone(nn.Module):
    """Blocks of 3x3 convolutions over the BEV map, all upsampled to one size and joined."""

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[int],
        strides: Sequence[int],
        filters: Sequence[int],
        up_strides: Sequence[int],
        up_filters: Sequence[int],
    ) -> None:
        """Build one block per entry of the lists.

        Args:
            in_channels: channels of the BEV map.
            layers: 3x3 convolutions after the first of each block.
            strides, filters: stride of the first convolution and channels of each block.
            up_strides, up_filters: upsampling factor and channels of each block's output.

        Raises:
            ValueError: blocks that would end at different sizes.
        """
        super().__init__()
        scales = set()
        scale = 1.0
        for stride, up_stride in zip(strides, up_strides, strict=True):
            scale /= stride
            scales.add(scale * up_stride)
        if len(scales) != 1:
            raise ValueError(
                f'BEV blocks with strides {tuple(strides)} and up_strides {tuple(up_strides)} '
                f'end at different sizes: {sorted(scales)} of the input'
            )
        self.out_scale = scales.pop()
        self.out_channels = sum(up_filters)
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        channels = in_channels
        for count, stride, width, factor, up_width in zip(
            layers, strides, filters, up_strides, up_filters, strict=True
        ):
            first = ConvBnRelu(channels, width, 3, stride, eps=EPS, momentum=MOMENTUM)
            rest = [ConvBnRelu(width, width, 3, eps=EPS, momentum=MOMENTUM) for _ in range(count)]
            self.blocks.append(nn.Sequential(first, *rest))
            self.ups.append(UpConvBnRelu(width, up_width, factor))
            channels = width

    def forward(self, bev_BCYX: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, Y, X) to (B, out_channels, Y * out_scale, X * out_scale)."""
        maps, joined = bev_BCYX, []
        for block, up in zip(self.blocks, self.ups, strict=True):
            maps = block(maps)
            joined.append(up(maps))
        return torch.cat(joined, dim=1)
