"""Wide 3x3 convolutions in fp32 with a quarter of the multiplications.

Winograd's minimal filtering, F(4x4, 3x3) (Lavin and Gray, CVPR 2016): 6x6 pixels of the input and
the 3x3 weights are turned into 36 numbers each, multiplied one by one and turned back into 4x4
pixels. Over channels that is 36 matrix products instead of 144 of a direct convolution. What the
turning costs grows with the channels, what it saves with their square, so it pays for wide
convolutions only. A dilated convolution is one of its own for every d-th row and column.

Letters: B batch, C channels in, O channels out, H W rows and columns, d dilation, I J tiles down
and across, P pixels of a tile (36 in, 16 out), N = B * I * d * J * d tiles of all phases.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cmkd_ros.model.fast_conv import FoldedConv

# A polynomial's values at these points and its highest coefficient stand for a row of pixels. Of
# the sets tried these lose least: half of what the usual 0, 1, -1, 2, -2 do.
_POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)
_OUT, _TAPS = 4, 3
_IN = _OUT + _TAPS - 1
MIN_CHANNELS = 256  # below, the direct convolution of oneDNN is as fast
MAX_DILATION = 4  # above, tiles reach far beyond the map
_CHANNELS_AT_ONCE = 256  # what is made of so many stays in the cache


def winograd_pays(conv: nn.Conv2d) -> bool:
    """Whether a convolution is one that `WinogradConv` computes, and faster."""
    return (
        conv.kernel_size == (_TAPS, _TAPS)
        and conv.stride == (1, 1)
        and conv.padding == conv.dilation
        and conv.groups == 1
        and conv.dilation[0] == conv.dilation[1] <= MAX_DILATION
        and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS
    )


class WinogradConv(FoldedConv):
    """`FoldedConv` for what `winograd_pays` accepts; rounds about twice as coarsely."""

    into_tiles: torch.Tensor
    out_of_tiles: torch.Tensor

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu: bool, dtype: torch.dtype
    ) -> None:
        super().__init__(conv, norm, relu, dtype)
        weights, inputs, outputs = _transforms()
        turned = torch.einsum('ai,bj,ocij->abco', weights, weights, self.weight.double())
        # In place of the weights themselves, which nothing needs any more: (P, C, O).
        self.weight = turned.flatten(0, 1).to(dtype).contiguous()
        for name, turn in (('into_tiles', inputs), ('out_of_tiles', outputs)):
            self.register_buffer(name, torch.kron(turn, turn).to(dtype), persistent=False)

    def forward(
        self, maps_BCHW: torch.Tensor, residual_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `FoldedConv`."""
        maps_BHWC = self._cast(maps_BCHW).permute(0, 2, 3, 1)
        batch, height, width, channels = maps_BHWC.shape
        rate = self.dilation[0]
        down, across = (-(-size // (rate * _OUT)) for size in (height, width))
        tiles = (batch, down, rate, across, rate)
        some = slice(0, _CHANNELS_AT_ONCE)
        products_PNO = torch.bmm(self._tiles(maps_BHWC[..., some], tiles), self.weight[:, some])
        for begin in range(_CHANNELS_AT_ONCE, channels, _CHANNELS_AT_ONCE):
            some = slice(begin, begin + _CHANNELS_AT_ONCE)
            products_PNO.baddbmm_(self._tiles(maps_BHWC[..., some], tiles), self.weight[:, some])
        out_channels = products_PNO.shape[2]
        pixels = (self.out_of_tiles @ products_PNO.flatten(1)).view(
            _OUT, _OUT, *tiles, out_channels
        )
        del products_PNO
        # (B, I, rows of a tile, d, J, columns of a tile, d, O): the order of the map's own memory.
        pixels = pixels.permute(2, 3, 0, 4, 5, 1, 6, 7)
        found = pixels.reshape(batch, down * _OUT * rate, across * _OUT * rate, out_channels)
        del pixels
        found_BOHW = found[:, :height, :width].permute(0, 3, 1, 2)
        return self._finish(found_BOHW, residual_BCHW)

    def _tiles(self, maps_BHWC: torch.Tensor, tiles: tuple[int, ...]) -> torch.Tensor:
        """What is multiplied: (P, N, C)."""
        batch, down, rate, across, _ = tiles
        _, height, width, channels = maps_BHWC.shape
        rows, columns = ((count * _OUT + 2) * rate for count in (down, across))
        padded = maps_BHWC.new_zeros(batch, rows, columns, channels)
        padded[:, rate : rate + height, rate : rate + width] = maps_BHWC
        image, row, column, _ = padded.stride()
        down_strides = (_OUT * rate * row, row)
        across_strides = (_OUT * rate * column, column)
        overlapping = padded.as_strided(
            (_IN, _IN, *tiles, channels),
            (rate * row, rate * column, image, *down_strides, *across_strides, 1),
        )
        pixels = overlapping.reshape(_IN * _IN, -1)
        del padded, overlapping
        return (self.into_tiles @ pixels).view(_IN * _IN, -1, channels)

    def _finish(self, found_BOHW: torch.Tensor, residual_BCHW: torch.Tensor | None) -> torch.Tensor:
        """Bias, residual and ReLU, into memory of the map's own size."""
        bias = self.bias[:, None, None]
        if residual_BCHW is not None:
            found = residual_BCHW.add_(found_BOHW).add_(bias)
        else:
            found = torch.empty(
                found_BOHW.shape, dtype=bias.dtype, device=bias.device,
                memory_format=torch.channels_last,
            )  # fmt: skip
            torch.add(found_BOHW, bias, out=found)
        return found.relu_() if self.relu else found


def _transforms() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of one axis, float64: weights (6, 3), pixels in (6, 6) and pixels out (4, 6)."""

    def values(coefficients: int) -> np.ndarray:
        """Of every power at every point, and of its highest coefficient: (6, coefficients)."""
        powers = np.vander(_POINTS, coefficients, increasing=True)
        return np.vstack([powers, np.eye(coefficients)[-1]])

    # By transposition: a convolution's matrix of interpolation becomes the correlation's of pixels.
    inputs = np.linalg.inv(values(_IN)).T
    found = values(_TAPS), inputs, values(_OUT).T
    weights, pixels_in, pixels_out = (torch.tensor(np.ascontiguousarray(one)) for one in found)
    return weights, pixels_in, pixels_out
