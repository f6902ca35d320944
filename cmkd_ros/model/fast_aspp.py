"""The pyramid pooling of the depth head as matrix products over image rows.

A 3x3 convolution whose rate is of the size of the map multiplies mostly padding. With channels
last, the map rows that one row of taps can see are one contiguous block: per row of taps one matrix
product over that block gives what all its pixels contribute (a "slab"), and every output pixel
sums the at most nine entries that belong to it. At rates 12, 24, 36 on 47 rows 83, 66 and 49 % of
the operations remain.

Letters: B batch, C channels, H W rows and columns, P = H * W pixels, T all slab entries.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.depth_net import Aspp
from cmkd_ros.model.fast_conv import fold_batch_norm


class FastAspp(nn.Module):
    """`Aspp` in eval mode."""

    def __init__(self, plain: Aspp, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        branches = [branch for branch in plain.branches if isinstance(branch, ConvBnRelu)]
        self.rates = [int(branch.conv.dilation[0]) for branch in branches]
        weights, biases = [], []
        for branch in branches:
            weight, bias = fold_batch_norm(branch.conv.weight, branch.conv.bias, branch.bn)
            # (ky, in, kx * out): one matrix per row of taps.
            weights.append(weight.permute(2, 1, 3, 0).flatten(2).to(dtype).contiguous())
            biases.append(bias.to(dtype))
        self.weights, self.biases = weights, biases
        self.pooled = _matrix(plain.pooled.conv, plain.pooled.bn)
        weight_OC, self.project_bias = _matrix(plain.project.conv, plain.project.bn)
        n_pooled = self.pooled[0].shape[0]
        self.project_pooled_OC = weight_OC[:, -n_pooled:]
        self.project_OC = weight_OC[:, :-n_pooled].to(dtype).contiguous()
        self._bags: dict[tuple[int, int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def forward(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W), channels last."""
        batch, _, height, width = deep_BCHW.shape
        rows_BPC = deep_BCHW.to(self.dtype).permute(0, 2, 3, 1).flatten(1, 2)
        projected = torch.stack([self._image(rows_PC, height, width) for rows_PC in rows_BPC])
        return projected.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _image(self, rows_PC: torch.Tensor, height: int, width: int) -> torch.Tensor:
        views = []
        for rate, weight, bias in zip(self.rates, self.weights, self.biases, strict=True):
            if len(weight) == 1:
                view = torch.addmm(bias, rows_PC, weight[0])
            else:
                view = self._dilated(rows_PC, weight, rate, height, width).add_(bias)
            views.append(view.relu_())
        # The pooled view is the same everywhere: a part of the projection's bias.
        weight_OC, bias_O = self.pooled
        pooled_O = F.linear(rows_PC.float().mean(0), weight_OC, bias_O).relu_()
        bias = F.linear(pooled_O, self.project_pooled_OC, self.project_bias)
        return F.linear(torch.cat(views, dim=1), self.project_OC, bias.to(self.dtype)).relu_()

    def _dilated(
        self, rows_PC: torch.Tensor, weight_3CN: torch.Tensor, rate: int, height: int, width: int
    ) -> torch.Tensor:
        """A 3x3 convolution at `rate` with as much padding, (P, out)."""
        key = (rate, height, width)
        if key not in self._bags:
            with torch.inference_mode(False):
                self._bags = {k: v for k, v in self._bags.items() if k[1:] == key[1:]}
                self._bags[key] = _slab_entries(rate, height, width)
        entries_T, begins_P = self._bags[key]
        blocks = [range(a * width, b * width) for a, b in _seen_rows(rate, height)]
        slab = rows_PC.new_empty(sum(map(len, blocks)), weight_3CN.shape[2])
        begin = 0
        for block, weight_CN in zip(blocks, weight_3CN, strict=True):
            end = begin + len(block)
            torch.mm(rows_PC[block.start : block.stop], weight_CN, out=slab[begin:end])
            begin = end
        return F.embedding_bag(
            entries_T, slab.view(-1, weight_3CN.shape[2] // 3), begins_P, mode='sum'
        )


def _matrix(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """A 1x1 convolution and its batch norm as matrix (out, in) and bias, float32."""
    weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
    return weight[:, :, 0, 0].float(), bias.float()


def _seen_rows(rate: int, height: int) -> list[tuple[int, int]]:
    """The rows that each row of taps (above, middle, below) sees somewhere: [first, end)."""
    clipped = max(height - rate, 0)
    return [(0, clipped), (0, height), (height - clipped, height)]


def _slab_entries(rate: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which slab entries each output pixel sums.

    Slab entry = (row of the stacked blocks of `_seen_rows`) * 3 + kx.

    Returns:
        (T,) int64 entries, pixel by pixel, and (H * W,) int64 where each pixel's begin.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    entries, valid = [], []
    begin = 0
    for ky, (first, end) in enumerate(_seen_rows(rate, height)):
        for kx in range(3):
            source_y, source_x = y + (ky - 1) * rate, x + (kx - 1) * rate
            inside = (source_y >= first) & (source_y < end) & (source_x >= 0) & (source_x < width)
            row = begin + (source_y - first) * width + source_x
            entries.append(row * 3 + kx)
            valid.append(inside)
        begin += (end - first) * width
    entries_P9 = torch.stack(entries, dim=-1).view(-1, 9)
    valid_P9 = torch.stack(valid, dim=-1).view(-1, 9)
    counts_P = valid_P9.sum(1)
    return entries_P9[valid_P9], counts_P.cumsum(0) - counts_P
