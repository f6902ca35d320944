"""Sparse 3-D backbone of SECOND and CenterPoint: residual blocks on voxels, folded to a BEV map.

The only file that imports spconv, and only when a network is built. Its modules hold the weights.
Where spconv is built for the GPU and the voxels are there, they also compute; else they only say
which voxels meet, and `sparse_conv` computes.

Letters: B scans, V voxels, C channels, Z layers left at the end, Y X rows and columns of the map.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.training.teacher.sparse_conv import VoxelPairs, sparse_conv

if TYPE_CHECKING:
    from spconv.pytorch import SparseConvTensor

EPS, MOMENTUM = 1e-3, 0.01
EXTRA_LAYERS = 1  # quirk kept: one layer of voxels on top that no point can reach
DOWN_PADDING = ((1, 1, 1), (1, 1, 1), (0, 1, 1))  # (z, y, x) of the steps to stages 2, 3, 4
SQUASH_KERNEL, SQUASH_STRIDE = (3, 1, 1), (2, 1, 1)


class SparseConvBn(nn.Module):
    """Sparse convolution, then batch norm over the active voxels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int] = (3, 3, 3),
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] = (1, 1, 1),
        level: str | None = None,
        bias: bool = False,
    ) -> None:
        """Build the layers.

        Args:
            in_channels, out_channels: of the features.
            kernel, stride, padding: along z, y, x.
            level: name of the set of active voxels that the layer keeps (a submanifold
                convolution; layers of one level share their pairs of voxels). None: a plain
                convolution, whose output is active wherever its kernel touches an active voxel.
            bias: of the convolution.

        Raises:
            ImportError: spconv is not installed.
        """
        super().__init__()
        spconv = _import_spconv()
        kind = spconv.SparseConv3d if level is None else spconv.SubMConv3d
        self.conv = kind(
            in_channels,
            out_channels,
            tuple(kernel),
            stride=tuple(stride),
            padding=tuple(padding),
            bias=bias,
            indice_key=level,
        )
        self.bn = nn.BatchNorm1d(out_channels, eps=EPS, momentum=MOMENTUM)

    def forward(self, voxels: SparseConvTensor) -> SparseConvTensor:
        """Voxels with `in_channels` to voxels with `out_channels`."""
        voxels = convolve(self.conv, voxels)
        return voxels.replace_feature(self.bn(voxels.features))


class SparseConvBnRelu(SparseConvBn):
    """`SparseConvBn` followed by a ReLU."""

    def forward(self, voxels: SparseConvTensor) -> SparseConvTensor:
        """Voxels with `in_channels` to voxels with `out_channels`, none negative."""
        voxels = super().forward(voxels)
        return voxels.replace_feature(F.relu(voxels.features))


class SparseResidual(nn.Module):
    """Two submanifold convolutions with bias and an identity around them."""

    def __init__(self, channels: int, level: str) -> None:
        super().__init__()
        self.first = SparseConvBnRelu(channels, channels, level=level, bias=True)
        self.second = SparseConvBn(channels, channels, level=level, bias=True)

    def forward(self, voxels: SparseConvTensor) -> SparseConvTensor:
        """Voxels to the same voxels."""
        changed = self.second(self.first(voxels))
        return changed.replace_feature(F.relu(changed.features + voxels.features))


class SparseBackbone(nn.Module):
    """Four stages of residual blocks, each but the first at half the resolution of the last.

    Official name: VoxelResBackBone8x (widths 16, 32, 64, 128), or `_c64` (16, 32, 64, 64).
    """

    def __init__(self, in_channels: int, widths: Sequence[int], cells_xyz: Sequence[int]) -> None:
        """Build the layers.

        Args:
            in_channels: features of a voxel.
            widths: channels of the four stages; the last is that of the output, too.
            cells_xyz: voxels along x, y, z.
        """
        super().__init__()
        self.cells_xyz = tuple(cells_xyz)
        self.stem = SparseConvBnRelu(in_channels, widths[0], level='stage1')
        self.stage1 = nn.Sequential(*_residuals(widths[0], 'stage1'))
        self.stage2 = _stage(widths[0], widths[1], DOWN_PADDING[0], 'stage2')
        self.stage3 = _stage(widths[1], widths[2], DOWN_PADDING[1], 'stage3')
        self.stage4 = _stage(widths[2], widths[3], DOWN_PADDING[2], 'stage4')
        self.squash = SparseConvBnRelu(
            widths[3], widths[3], SQUASH_KERNEL, SQUASH_STRIDE, padding=(0, 0, 0)
        )

    def forward(
        self, features_VC: torch.Tensor, coords_bzyx_V4: torch.Tensor, n_scans: int
    ) -> torch.Tensor:
        """Encode the voxels of a batch.

        Args:
            features_VC: features of the occupied voxels.
            coords_bzyx_V4: scan index and cell (z, y, x) of each, none twice.
            n_scans: B.

        Returns:
            (B, C * Z, Y, X) map, channel c * Z + z, zero where nothing is active, in channels-last
            memory; float32 also under autocast.
        """
        if len(features_VC) == 0:
            width = self.squash.bn.num_features
            return features_VC.new_zeros(n_scans, *folded_shape(self.cells_xyz, width))
        n_x, n_y, n_z = self.cells_xyz
        with torch.autocast(features_VC.device.type, enabled=False):
            voxels = _import_spconv().SparseConvTensor(
                features_VC.float(),
                coords_bzyx_V4.int(),
                (n_z + EXTRA_LAYERS, n_y, n_x),
                n_scans,
            )
            voxels = self.stage1(self.stem(voxels))
            voxels = self.stage4(self.stage3(self.stage2(voxels)))
            return fold(self.squash(voxels))


def folded_shape(cells_xyz: Sequence[int], width: int) -> tuple[int, int, int]:
    """(C * Z, Y, X) of the map that a backbone of that last width makes of so many voxels."""
    cells_zyx = [cells_xyz[2] + EXTRA_LAYERS, cells_xyz[1], cells_xyz[0]]
    for padding in DOWN_PADDING:
        cells_zyx = [(n + 2 * pad - 3) // 2 + 1 for n, pad in zip(cells_zyx, padding, strict=True)]
    layers = (cells_zyx[0] - SQUASH_KERNEL[0]) // SQUASH_STRIDE[0] + 1
    return width * layers, cells_zyx[1], cells_zyx[2]


def fold(voxels: SparseConvTensor) -> torch.Tensor:
    """The dense map with the layers stacked as channels c * Z + z: (B, C * Z, Y, X)."""
    n_z, n_y, n_x = voxels.spatial_shape
    b_V, z_V, y_V, x_V = voxels.indices.long().unbind(1)
    features_VC = voxels.features
    canvas = features_VC.new_zeros(voxels.batch_size * n_y * n_x * n_z, features_VC.shape[1])
    canvas = canvas.index_copy(0, ((b_V * n_y + y_V) * n_x + x_V) * n_z + z_V, features_VC)
    canvas = canvas.view(voxels.batch_size, n_y, n_x, n_z, -1).transpose(3, 4)
    return canvas.flatten(3).permute(0, 3, 1, 2)


def convolve(conv: Any, voxels: SparseConvTensor) -> SparseConvTensor:
    """Apply an spconv convolution module, with exact arithmetic of our own where it has none.

    Args:
        conv: `SubMConv3d` or `SparseConv3d`.
        voxels: its input.
    """
    from spconv.cppconstants import CPU_ONLY_BUILD

    if voxels.features.is_cuda and not CPU_ONLY_BUILD:
        # spconv builds no graph in eval mode; whether one is wanted is for torch to say.
        return conv.train(torch.is_grad_enabled())(voxels)
    indices, shape, pairs = _pairs(conv, voxels)
    features = sparse_conv(voxels.features, conv.weight, pairs)
    if conv.bias is not None:
        features = features + conv.bias
    result = voxels.replace_feature(features)
    result.indices, result.spatial_shape = indices, shape
    return result


def _pairs(conv: Any, voxels: SparseConvTensor) -> tuple[torch.Tensor, list[int], VoxelPairs]:
    """Output voxels and grid of a convolution, and the pairs of voxels, from spconv."""
    from spconv.core import ConvAlgo
    from spconv.pytorch import ops

    shape, device = voxels.spatial_shape, voxels.indices.device
    if conv.subm and conv.indice_key in voxels.indice_dict:
        return voxels.indices, shape, voxels.indice_dict[conv.indice_key]
    window = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    indices, table_2KV, counts = ops.get_indice_pairs(
        voxels.indices.cpu(),
        voxels.batch_size,
        shape,
        ConvAlgo.Native,
        *window,
        out_padding=[0, 0, 0],
        subm=conv.subm,
    )
    indices, counts_K = indices.to(device), counts.tolist()
    if conv.subm:
        # Of a submanifold kernel spconv counts one half only: the other is its mirror image, and
        # under the cell in the middle every voxel meets itself.
        half = counts_K[: len(counts_K) // 2]
        counts_K = [*half, len(indices), *reversed(half)]
    else:
        shape = ops.get_conv_output_size(shape, *window)
    pairs = VoxelPairs.from_table(table_2KV.to(device), counts_K, len(indices))
    if conv.subm:
        voxels.indice_dict[conv.indice_key] = pairs
    return indices, shape, pairs


def _residuals(channels: int, level: str) -> list[nn.Module]:
    return [SparseResidual(channels, level) for _ in range(2)]


def _stage(
    in_channels: int, out_channels: int, padding: Sequence[int], level: str
) -> nn.Sequential:
    down = SparseConvBnRelu(in_channels, out_channels, stride=(2, 2, 2), padding=padding)
    return nn.Sequential(down, *_residuals(out_channels, level))


def _import_spconv() -> Any:
    try:
        import spconv.pytorch as spconv
    except ImportError as error:
        raise ImportError(
            'SECOND and CenterPoint need spconv: pip install spconv (CPU) or the spconv-cuXXX '
            f'that fits your CUDA ({error})',
            name=error.name,
        ) from error
    # spconv's tensor type lets itself be traced by torch.fx; torch warns of that, to nobody's use.
    logging.getLogger('torch.fx._symbolic_trace').setLevel(logging.ERROR)
    return spconv
