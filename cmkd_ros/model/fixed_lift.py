"""The lift over the whole grid: the same sizes for every camera, so that a graph can be replayed.

`FastLift` gathers for the cells that a camera sees. Here the other cells are gathered too, from the
first pixel and with weight zero: another camera is then another content of the same buffers. That
costs a third more gathers (of one pixel, which stays in the nearest cache) and spares the scatter
into the map: what `Collapse` gives for cells not seen comes out of its bias by itself.

The sum over corners is one `embedding_bag`, which never writes the gathered rows to memory: as
gather, product and sum they would be 270 MB for `scd_r50`.

Letters: C channels, D depth logits (bins + 1), H W feature rows and columns, P = H * W pixels,
Z voxel layers, X Y the grid, V = Y * X * Z voxels, T = V * 4 corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from cmkd_ros.model.fast_lift import FastCollapse
from cmkd_ros.model.lift_indices import LiftIndices


class GridTaps(NamedTuple):
    """Where one camera's voxels look, for every voxel of the grid, layers of a cell together.

    Attributes:
        pixels_V4: int32 feature pixel (row * W + column) of each corner.
        near_bins_T, far_bins_T: int32 into the flat (P, D) distribution.
        near_weights_T, far_weights_T: float32, 0 for taps outside the frustum.
    """

    pixels_V4: torch.Tensor
    near_bins_T: torch.Tensor
    far_bins_T: torch.Tensor
    near_weights_T: torch.Tensor
    far_weights_T: torch.Tensor

    @classmethod
    def empty(cls, cells_xyz: Sequence[int], device: torch.device) -> GridTaps:
        """Of a camera that sees nothing."""
        n_x, n_y, n_z = cells_xyz
        n_voxels = n_x * n_y * n_z
        bins = [torch.zeros(4 * n_voxels, dtype=torch.int32, device=device) for _ in range(2)]
        weights = [torch.zeros(4 * n_voxels, device=device) for _ in range(2)]
        pixels_V4 = torch.zeros(n_voxels, 4, dtype=torch.int32, device=device)
        return cls(pixels_V4, *bins, *weights)

    def fill(self, indices: LiftIndices, cells_xyz: Sequence[int]) -> None:
        """Write a camera into these buffers.

        Args:
            indices: from `Lift.indices`, on their device.
            cells_xyz: the grid.
        """
        n_cells = cells_xyz[0] * cells_xyz[1]
        n_seen = len(indices.cells_M)
        bins_T2 = indices.bins_V8.view(-1, 2)
        weights_T2 = indices.weights_V42.reshape(-1, 2)
        columns = [indices.pixels_V4, *bins_T2.unbind(1), *weights_T2.unbind(1)]
        for buffer, values in zip(self, columns, strict=True):
            rows = values.to(buffer.dtype).reshape(n_seen, -1 if n_seen else 4 * cells_xyz[2])
            buffer.zero_().view(n_cells, -1).index_copy_(0, indices.cells_M, rows)


def lift_whole_grid(
    features_CHW: torch.Tensor,
    depth_logits_DHW: torch.Tensor,
    taps: GridTaps,
    collapse: FastCollapse,
) -> torch.Tensor:
    """Lift and collapse of one image.

    Probabilities stay float32 up to the weight of a corner, as in `FastLift`.

    Args:
        features_CHW: what is lifted.
        depth_logits_DHW: depth distribution before the softmax.
        taps: of the camera.
        collapse: of the same student.

    Returns:
        BEV map (1, channels, Y, X), channels last.
    """
    n_x, n_y, n_z = collapse.cells_xyz
    flat = depth_logits_DHW.permute(1, 2, 0).float().softmax(dim=-1).flatten()
    near_T = flat.index_select(0, taps.near_bins_T).mul_(taps.near_weights_T)
    far_T = flat.index_select(0, taps.far_bins_T)
    corners_V4 = near_T.addcmul_(far_T, taps.far_weights_T).view(-1, 4)
    rows_PC = features_CHW.permute(1, 2, 0).flatten(0, 1)
    values_VC = F.embedding_bag(
        taps.pixels_V4, rows_PC, mode='sum', per_sample_weights=corners_V4.to(rows_PC.dtype)
    )
    values = values_VC.view(n_y * n_x, -1).to(collapse.weight.dtype)
    cells = F.linear(values, collapse.weight, collapse.bias).relu_()
    return cells.view(1, n_y, n_x, -1).permute(0, 3, 1, 2)
