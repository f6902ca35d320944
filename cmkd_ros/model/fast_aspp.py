"""The pyramid pooling of the depth head, its dilated convolutions as products over image rows.

A 3x3 convolution whose rate is of the size of the map multiplies mostly padding. With channels
last, the map rows that one row of taps can see are one contiguous block: per row of taps one matrix
product over that block gives what all its pixels contribute (a "slab"), and every output pixel
sums the at most nine entries that belong to it. At rates 12, 24, 36 on 47 rows 83, 66 and 49 % of
the operations remain. CPUs with matrix tiles gain most: oneDNN's convolutions for them are slow
on wide padding. Those for AVX-512 skip such taps themselves and are as fast.

Letters: B batch, C channels, H W rows and columns, P = H * W pixels, T all slab entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.depth_net import Aspp
from cmkd_ros.model.fast_conv import fold_batch_norm


class FastAspp(nn.Module):
    """`Aspp` in eval mode; the pooled view is a part of the projection's bias."""

    def __init__(
        self, plain: Aspp, branches: Sequence[nn.Module], project: nn.Module, dtype: torch.dtype
    ) -> None:
        """Take what the caller has made of the convolutions.

        Args:
            plain: the module this one stands for.
            branches: its convolutions, batch norm and ReLU included.
            project: its last convolution over the channels of `branches`, without bias or ReLU.
            dtype: of the result.
        """
        super().__init__()
        self.dtype = dtype
        self.branches = nn.ModuleList(branches)
        self.project = project
        self.pooled = _matrix(plain.pooled.conv, plain.pooled.bn)
        weight_OC, self.project_bias = _matrix(plain.project.conv, plain.project.bn)
        self.n_views = weight_OC.shape[1] - len(self.pooled[0])
        self.project_pooled_OC = weight_OC[:, self.n_views :]

    def forward(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H, W), channels last."""
        deep = deep_BCHW.to(self.dtype)
        weight_OC, bias_O = self.pooled
        pooled_BO = F.linear(deep.mean((2, 3), dtype=torch.float32), weight_OC, bias_O).relu_()
        bias_BO = F.linear(pooled_BO, self.project_pooled_OC, self.project_bias)
        projected = self.project(self._views(deep))
        return projected.add_(bias_BO.to(self.dtype)[:, :, None, None]).relu_()

    def _views(self, deep_BCHW: torch.Tensor) -> torch.Tensor:
        """What the branches see, one behind the other: (B, n_views, H, W), channels last."""
        batch, _, height, width = deep_BCHW.shape
        views_BCHW = torch.empty(
            (batch, self.n_views, height, width), dtype=self.dtype, device=deep_BCHW.device,
            memory_format=torch.channels_last,
        )  # fmt: skip
        begin = 0
        for branch in self.branches:
            view_BCHW = branch(deep_BCHW)
            end = begin + view_BCHW.shape[1]
            views_BCHW[:, begin:end] = view_BCHW
            begin = end
        return views_BCHW


class RowClippedConv(nn.Module):
    """A 3x3 convolution padded by its rate, with batch norm and ReLU."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        weight, self.bias = fold_batch_norm(conv.weight, conv.bias, norm)
        self.bias = self.bias.to(dtype)
        # (ky, in, kx * out): one matrix per row of taps.
        self.weight_3CN = weight.permute(2, 1, 3, 0).flatten(2).to(dtype).contiguous()
        self.rate = int(conv.dilation[0])
        self._bags: tuple[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] | None = None

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        """Map (B, in, H, W) to (B, out, H, W), channels last."""
        height, width = maps_BCHW.shape[2:]
        if self._bags is None or self._bags[0] != (height, width):
            with torch.inference_mode(False):
                entries_T, begins_P = _slab_entries(self.rate, height, width)
                device = maps_BCHW.device
                self._bags = ((height, width), (entries_T.to(device), begins_P.to(device)))
        rows_BPC = maps_BCHW.to(self.weight_3CN.dtype).permute(0, 2, 3, 1).flatten(1, 2)
        found = [self._image(rows_PC, height, width, *self._bags[1]) for rows_PC in rows_BPC]
        return torch.stack(found).unflatten(1, (height, width)).permute(0, 3, 1, 2)

    def _image(
        self,
        rows_PC: torch.Tensor,
        height: int,
        width: int,
        entries_T: torch.Tensor,
        begins_P: torch.Tensor,
    ) -> torch.Tensor:
        blocks = [range(a * width, b * width) for a, b in _seen_rows(self.rate, height)]
        slab_PN = rows_PC.new_empty(sum(map(len, blocks)), self.weight_3CN.shape[2])
        begin = 0
        for block, weight_CN in zip(blocks, self.weight_3CN, strict=True):
            end = begin + len(block)
            torch.mm(rows_PC[block.start : block.stop], weight_CN, out=slab_PN[begin:end])
            begin = end
        slab_TO = slab_PN.view(-1, len(self.bias))
        return F.embedding_bag(entries_T, slab_TO, begins_P, mode='sum').add_(self.bias).relu_()


def project_without_pooled(plain: Aspp) -> nn.Conv2d:
    """The last convolution with its norm, without the bias and the channels of the pooled view."""
    weight_OC, _ = _matrix(plain.project.conv, plain.project.bn)
    weight_OC = weight_OC[:, : -plain.pooled.conv.out_channels]
    conv = nn.Conv2d(weight_OC.shape[1], weight_OC.shape[0], 1, bias=False)
    conv.weight = nn.Parameter(weight_OC[:, :, None, None], requires_grad=False)
    return conv


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
