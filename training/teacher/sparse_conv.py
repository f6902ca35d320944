"""Sparse 3-D convolution in torch: gather, matrix product, add, kernel cell by kernel cell.

spconv knows which voxels meet (see `sparse_backbone`), but its own arithmetic on the CPU loses rows
at random with two threads, refuses biases, and asks for a CUDA stream in its backward pass
(cmkd-spec N). This is that arithmetic on any device: exact, and repeatable on the CPU.

Letters: N M voxels of input and output, I O channels of input and output, K cells of the kernel
(z, y, x order), P pairs of one cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class VoxelPairs:
    """Which input voxel contributes to which output voxel, for each cell of a kernel.

    Attributes:
        inputs: K int64 tensors (P,), rows of the input; P differs from cell to cell.
        outputs: K int64 tensors (P,), rows of the output, none twice in one cell.
        n_outputs: M.
    """

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    n_outputs: int

    @classmethod
    def from_table(
        cls, pairs_2KN: torch.Tensor, counts_K: Sequence[int], n_outputs: int
    ) -> VoxelPairs:
        """From spconv's table: the first `counts_K[k]` columns of every cell are filled."""
        pairs_2KN = pairs_2KN.long()
        inputs, outputs = (
            tuple(row_N[:count] for row_N, count in zip(table_KN, counts_K, strict=True))
            for table_KN in pairs_2KN
        )
        return cls(inputs, outputs, n_outputs)


def sparse_conv(features_NI: torch.Tensor, weight: torch.Tensor, pairs: VoxelPairs) -> torch.Tensor:
    """Convolve the features of the active voxels.

    Gathered rows are not kept for the backward pass but gathered again, because all pairs of a
    layer weigh ten times its features.

    Args:
        features_NI: features of the input voxels.
        weight: (O, kz, ky, kx, I) as spconv 2 stores it.
        pairs: for the K = kz * ky * kx cells of the kernel.

    Returns:
        (M, O), without bias.

    Raises:
        ValueError: channels or kernel cells that do not fit.
    """
    cells = weight.shape[1:-1].numel()
    if weight.shape[-1] != features_NI.shape[1] or cells != len(pairs.inputs):
        raise ValueError(
            f'weight {tuple(weight.shape)} (out, kz, ky, kx, in) does not fit features '
            f'{tuple(features_NI.shape)} and pairs of {len(pairs.inputs)} kernel cells'
        )
    weight_KIO = weight.flatten(1, -2).permute(1, 2, 0)
    result: torch.Tensor = _GatherMultiplyAdd.apply(features_NI, weight_KIO, pairs)
    return result


class _GatherMultiplyAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features_NI: torch.Tensor, weight_KIO: torch.Tensor, pairs: VoxelPairs
    ) -> torch.Tensor:
        ctx.save_for_backward(features_NI, weight_KIO)
        ctx.pairs = pairs
        output_MO = features_NI.new_zeros(pairs.n_outputs, weight_KIO.shape[2])
        for weight_IO, source_P, target_P in zip(
            weight_KIO.contiguous(), pairs.inputs, pairs.outputs, strict=True
        ):
            output_MO.index_add_(0, target_P, features_NI.index_select(0, source_P) @ weight_IO)
        return output_MO

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient_MO: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        features_NI, weight_KIO = ctx.saved_tensors
        of_features = torch.zeros_like(features_NI) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight_KIO) if ctx.needs_input_grad[1] else None
        for k, (source_P, target_P) in enumerate(
            zip(ctx.pairs.inputs, ctx.pairs.outputs, strict=True)
        ):
            gradient_PO = gradient_MO.index_select(0, target_P)
            if of_features is not None:
                of_features.index_add_(0, source_P, gradient_PO @ weight_KIO[k].T)
            if of_weight is not None:
                of_weight[k] = features_NI.index_select(0, source_P).T @ gradient_PO
        return of_features, of_weight, None
