"""A convolution with everything that follows it: batch norm folded in, ReLU and residual fused.

Letters: B batch, C channels, H W rows and columns.

`FoldedConv` runs on any machine. `PackedConv` keeps the weights in the layout that oneDNN computes
in, and lets it add the residual and take the ReLU while results are in registers. It needs
operators that torch has for its own compiler and promises to nobody, so `conv_kernel` tries them
once per process and falls back to `FoldedConv`.
"""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

LOG = logging.getLogger('cmkd.model')
# Of the self-test, relative to the largest value: rounding of one convolution, doubled.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def fold_batch_norm(
    weight: torch.Tensor, bias: torch.Tensor | None, norm: nn.BatchNorm2d | None, out_axis: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution that includes the batch norm behind it, float32.

    Args:
        weight: of the convolution.
        bias: its bias, if it has one.
        norm: in eval mode; None: nothing to fold.
        out_axis: axis of the weight that counts output channels (1 for transposed convolutions).

    Raises:
        ValueError: a norm that has no running statistics.
    """
    weight = weight.detach()
    n_out = weight.shape[out_axis]
    shift = weight.new_zeros(n_out) if bias is None else bias.detach()
    if norm is None:
        return weight, shift
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError('a batch norm without running statistics cannot be folded')
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    shape = [1] * weight.ndim
    shape[out_axis] = n_out
    shift = norm.bias.detach() + (shift - norm.running_mean.double()) * scale
    return weight * scale.to(weight.dtype).view(shape), shift.to(weight.dtype)


class FoldedConv(nn.Module):
    """Convolution, batch norm, optional residual, optional ReLU, through public operators."""

    weight: torch.Tensor
    bias: torch.Tensor
    overwrites_residual = True

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, relu: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
        weight = weight.to(dtype, copy=True).contiguous(memory_format=torch.channels_last)
        self.register_buffer('weight', weight, persistent=False)
        self.register_buffer('bias', bias.to(dtype, copy=True), persistent=False)
        self.stride = [int(n) for n in conv.stride]
        self.padding = [int(n) for n in conv.padding]
        self.dilation = [int(n) for n in conv.dilation]
        self.relu = relu

    def forward(
        self, maps_BCHW: torch.Tensor, residual_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride), channels last.

        Args:
            maps_BCHW: of any float type; cast to the weights'.
            residual_BCHW: added before the ReLU, and **overwritten** with the result.
        """
        maps = self._cast(maps_BCHW)
        found = F.conv2d(maps, self.weight, self.bias, self.stride, self.padding, self.dilation)
        if residual_BCHW is not None:
            found = residual_BCHW.add_(found)
        return F.relu_(found) if self.relu else found

    def _cast(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        return maps_BCHW.to(self.weight.dtype).contiguous(memory_format=torch.channels_last)


class PackedConv(FoldedConv):
    """The same through oneDNN's fused operators, on weights in its own layout."""

    _packed: tuple[torch.Size, torch.Tensor] | None = None

    def forward(
        self, maps_BCHW: torch.Tensor, residual_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `FoldedConv`."""
        maps = self._cast(maps_BCHW)
        if self._packed is None or self._packed[0] != maps.shape:
            # The best layout depends on the size of the maps, which changes with the camera only.
            self._packed = (maps.shape, self._pack(maps.shape))
        weight = self._packed[1]
        how = (weight, self.bias, self.padding, self.stride, self.dilation, 1)
        one_dnn = torch.ops.mkldnn
        if residual_BCHW is None:
            after = 'relu' if self.relu else 'none'
            return one_dnn._convolution_pointwise(maps, *how, after, [], '')
        fused = one_dnn._convolution_pointwise_.binary
        last = 'relu' if self.relu else None
        return fused(residual_BCHW, maps, *how, 'add', 1.0, last, [], '')

    def _pack(self, size: torch.Size) -> torch.Tensor:
        return torch.ops.mkldnn._reorder_convolution_weight(
            self.weight, self.padding, self.stride, self.dilation, 1, list(size)
        )


def conv_kernel(dtype: torch.dtype, device: torch.device) -> type[FoldedConv]:
    """The fastest kind of convolution that gives right results here."""
    return PackedConv if device.type == 'cpu' and packing_works(dtype) else FoldedConv


@cache
def packing_works(dtype: torch.dtype) -> bool:
    """Whether `PackedConv` equals `FoldedConv` on this machine; says so once when it does not."""
    fault = conv_fault(PackedConv, dtype, _TOLERANCE.get(dtype, 0.0))
    if fault:
        LOG.info('prepacked convolutions do not work in %s here (%s): plain ones run', dtype, fault)
    return not fault


def conv_fault(
    kind: type[FoldedConv],
    dtype: torch.dtype,
    tolerance: float,
    device: torch.device | str = 'cpu',
) -> str:
    """Why a kind of convolution cannot take the place of `FoldedConv`; '' if it can.

    Args:
        kind: whose operators may be missing here, or be others than they were.
        dtype, device: it runs in and on.
        tolerance: of its results, relative to the largest value.
    """
    try:
        worst = max(
            _conv_error(kind, dtype, *case, device) for case in ((1, 1, 1), (3, 2, 1), (3, 1, 4))
        )
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        return str(error).partition('\n')[0] or type(error).__name__
    return '' if worst <= tolerance else f'results differ by {worst:.1e}'


def _conv_error(
    kind: type[FoldedConv],
    dtype: torch.dtype,
    kernel: int,
    stride: int,
    dilation: int,
    device: torch.device | str,
) -> float:
    """Largest relative deviation of one convolution from `FoldedConv`, alone and with a residual.

    Args:
        kind: of the convolution.
        dtype, device: it runs in and on.
        kernel, stride, dilation: of it.
    """
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(
        32, 48, kernel, stride=stride, padding=dilation * (kernel // 2), dilation=dilation
    )
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        maps = torch.randn(1, 32, 19, 23, generator=generator).to(device, dtype)
        conv.to(device)
        folded, other_kind = (k(conv, None, True, dtype) for k in (FoldedConv, kind))
        errors = []
        plain = folded(maps)
        residual = torch.randn(plain.shape, generator=generator).to(device, dtype)
        residual = residual.contiguous(memory_format=torch.channels_last)
        for other in (None, residual):
            expected = folded(maps, None if other is None else other.clone()).float()
            found = other_kind(maps, None if other is None else other.clone()).float()
            errors.append(((found - expected).abs().max() / expected.abs().max()).item())
    return max(errors)
