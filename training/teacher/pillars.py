"""Pillar features scattered to a BEV map (PointPillars' encoder).

Letters: B scans, K points, V pillars, P slots of a pillar, C channels, Y X pillar rows and columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cmkd_ros.training.teacher.voxelize import Voxels

POINT_FEATURES = 10  # x y z intensity, offset to the pillar's mean (3), to the pillar's centre (3)


class PillarEncoder(nn.Module):
    """One learned feature per pillar, placed on the BEV grid.

    The published network pads every pillar to `slots` points and runs the linear layer, the batch
    norm and the maximum over all slots. Padded slots are zero before a layer without bias, so all
    of them give the same value, which is added here in closed form: equal numbers without the
    padding, which is most of the work.
    """

    _first_center_3: torch.Tensor
    _size_3: torch.Tensor

    def __init__(
        self,
        channels: int,
        range_m: Sequence[float],
        voxel_m: Sequence[float],
        cells_xyz: Sequence[int],
        slots: int,
    ) -> None:
        """Take the grid of the pillars (metres, ref) and the number of points a pillar may hold."""
        super().__init__()
        self.linear = nn.Linear(POINT_FEATURES, channels, bias=False)
        self.norm = SlotNorm(channels)
        self.slots = slots
        self.cells_xyz = tuple(cells_xyz)
        center = [low + size / 2 for low, size in zip(range_m[:3], voxel_m, strict=True)]
        self.register_buffer('_first_center_3', torch.tensor(center), persistent=False)
        self.register_buffer('_size_3', torch.tensor(voxel_m), persistent=False)

    def forward(self, voxels: Voxels, n_scans: int) -> torch.Tensor:
        """Encode the pillars of `n_scans` scans.

        Returns:
            (B, C, Y, X) map, zero in empty cells, in channels-last memory.
        """
        features_VC = self.pillar_features(voxels)
        cells_x, cells_y, _ = self.cells_xyz
        b_V, _, y_V, x_V = voxels.coords_bzyx_V4.unbind(1)
        canvas = features_VC.new_zeros(n_scans * cells_y * cells_x, features_VC.shape[1])
        canvas = canvas.index_copy(0, (b_V * cells_y + y_V) * cells_x + x_V, features_VC)
        return canvas.view(n_scans, cells_y, cells_x, -1).permute(0, 3, 1, 2)

    def pillar_features(self, voxels: Voxels) -> torch.Tensor:
        """(V, C) feature of every pillar: maximum over its slots after linear, norm and ReLU."""
        voxel_K = voxels.voxel_of_point_K()
        values_KC = self.linear(self._point_features(voxels, voxel_K)).float()
        if len(values_KC) == 0:
            return values_KC
        scale_C, shift_C = self.norm(values_KC, len(voxels.counts_V) * self.slots)
        values_KC = values_KC * scale_C + shift_C
        highest_VC = torch.segment_reduce(values_KC, 'max', lengths=voxels.counts_V)
        # Quirk kept: empty slots take part in the maximum; a zero becomes `shift` in the norm.
        has_empty_V1 = (voxels.counts_V < self.slots)[:, None]
        highest_VC = torch.where(has_empty_V1, torch.maximum(highest_VC, shift_C), highest_VC)
        return highest_VC.relu()

    def _point_features(self, voxels: Voxels, voxel_K: torch.Tensor) -> torch.Tensor:
        points_K4 = voxels.points_K4
        xyz_K3 = points_K4[:, :3]
        sums_V3 = xyz_K3.new_zeros(len(voxels.counts_V), 3).index_add_(0, voxel_K, xyz_K3)
        means_V3 = sums_V3 / voxels.counts_V[:, None]
        cell_V3 = voxels.coords_bzyx_V4[:, [3, 2, 1]].to(xyz_K3.dtype)
        centers_V3 = cell_V3 * self._size_3 + self._first_center_3
        return torch.cat(
            [points_K4[:, :4], xyz_K3 - means_V3[voxel_K], xyz_K3 - centers_V3[voxel_K]], dim=1
        )


class SlotNorm(nn.Module):
    """Batch norm over pillars and slots, where all slots but the given values hold zero."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, channels: int, eps: float = 1e-3, momentum: float = 0.01) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, values_KC: torch.Tensor, n_slots: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm as y = x * scale + shift, so that `shift` is what a zero becomes.

        Args:
            values_KC: the values that are not padding.
            n_slots: number of values with the padding; the statistics are taken over these.

        Returns:
            scale and shift, (C,) each.
        """
        if self.training:
            mean_C = values_KC.sum(0) / n_slots
            n_padded = n_slots - len(values_KC)
            squares_C = (values_KC - mean_C).square().sum(0) + n_padded * mean_C.square()
            var_C = squares_C / n_slots
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean_C, self.momentum)
                self.running_var.lerp_(squares_C / max(1, n_slots - 1), self.momentum)
        else:
            mean_C, var_C = self.running_mean, self.running_var
        scale_C = self.weight * torch.rsqrt(var_C + self.eps)
        return scale_C, self.bias - mean_C * scale_C
