"""A convolution whose bias, residual and ReLU cuDNN computes while results are in registers.

torch has these operators for its own compiler and promises them to nobody, as those of oneDNN
(`fast_conv.py`). So `cuda_kernel` tries them once for each type and device, and falls back to
`FoldedConv`, which launches a kernel for each step.

Letters: B batch, C channels, H W rows and columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from cmkd_ros.model.fast_conv import FoldedConv, conv_fault

LOG = logging.getLogger('cmkd.model')
# Of the self-test, relative to the largest value: rounding of one convolution, doubled.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@contextmanager
def cuda_arithmetic() -> Iterator[None]:
    """How the CUDA form computes: the fastest kernel of each size is sought once, by trying; and
    fp32 means fp32, where torch allows 10 bits of precision (TF32) in convolutions."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield


class CudnnConv(FoldedConv):
    """`FoldedConv` through cuDNN's fused operators, where it ends in a ReLU."""

    overwrites_residual = False

    def forward(
        self, maps_BCHW: torch.Tensor, residual_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `FoldedConv`, but the residual stays as it is."""
        if not self.relu:
            return super().forward(maps_BCHW, residual_BCHW)
        maps = self._cast(maps_BCHW)
        how = (self.bias, self.stride, self.padding, self.dilation, 1)
        if residual_BCHW is None:
            return torch.cudnn_convolution_relu(maps, self.weight, *how)
        return torch.cudnn_convolution_add_relu(maps, self.weight, residual_BCHW, 1.0, *how)


def cuda_kernel(dtype: torch.dtype, device: torch.device) -> type[FoldedConv]:
    """The fastest kind of convolution that gives right results on a GPU."""
    return CudnnConv if device.type == 'cuda' and fusing_works(dtype, device) else FoldedConv


@cache
def fusing_works(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `CudnnConv` equals `FoldedConv` on a device; says so once when it does not."""
    with cuda_arithmetic():
        fault = conv_fault(CudnnConv, dtype, _TOLERANCE.get(dtype, 0.0), device)
    if fault:
        LOG.info(
            'fused convolutions do not work in %s on %s (%s): plain ones run', dtype, device, fault
        )
    return not fault
