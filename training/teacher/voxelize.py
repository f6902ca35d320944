"""Points to voxels, in the exact order of the official voxeliser.

Letters: N points, K points kept, V voxels, P slots of a voxel. Frame: ref.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Voxels:
    """Occupied voxels of one or several scans, and the points that they keep.

    Attributes:
        points_K4: float32 kept points (x, y, z, intensity), voxel after voxel, inside a voxel in
            file order.
        counts_V: int64 points kept by each voxel, at least 1.
        coords_bzyx_V4: int64 scan index and cell (z, y, x) of each voxel.
    """

    points_K4: torch.Tensor
    counts_V: torch.Tensor
    coords_bzyx_V4: torch.Tensor

    def voxel_of_point_K(self) -> torch.Tensor:
        """int64 index of the voxel that keeps each point."""
        voxels = torch.arange(len(self.counts_V), device=self.counts_V.device)
        return torch.repeat_interleave(voxels, self.counts_V, output_size=len(self.points_K4))

    def means_V4(self) -> torch.Tensor:
        """Mean of the points that each voxel keeps."""
        sums_V4 = self.points_K4.new_zeros(len(self.counts_V), self.points_K4.shape[1])
        sums_V4 = sums_V4.index_add_(0, self.voxel_of_point_K(), self.points_K4)
        return sums_V4 / self.counts_V[:, None]

    def padded_VP4(self, slots: int) -> torch.Tensor:
        """The points as a dense (V, slots, 4) array, zero where a slot is empty."""
        voxel_K = self.voxel_of_point_K()
        first_V = self.counts_V.cumsum(0) - self.counts_V
        slot_K = torch.arange(len(voxel_K), device=voxel_K.device) - first_V[voxel_K]
        padded = self.points_K4.new_zeros(len(self.counts_V), slots, self.points_K4.shape[1])
        padded[voxel_K, slot_K] = self.points_K4
        return padded


def voxelize(
    points_N4: torch.Tensor,
    range_m: Sequence[float],
    voxel_m: Sequence[float],
    cells_xyz: Sequence[int],
    max_points: int,
    max_voxels: int,
) -> Voxels:
    """Group the points of one scan into voxels; the result depends on the order of the points.

    Voxels are numbered in the order in which the scan first touches them. Beyond `max_voxels` new
    ones are dropped with all their points, and a full voxel drops later points: real scans do
    overflow. Points outside the range (also NaN) are dropped.

    Args:
        points_N4: float32 (x, y, z, intensity) in ref; more columns are carried along.
        range_m: minima of x, y, z, then maxima, metres.
        voxel_m: size of a voxel along x, y, z, metres.
        cells_xyz: number of cells along x, y, z.
        max_points: points that a voxel keeps.
        max_voxels: voxels that a scan keeps.

    Returns:
        Voxels with scan index 0, on the device of the points.
    """
    # float32 throughout: in float64 points on a cell border would fall into the other cell.
    low = points_N4.new_tensor(range_m[:3])
    cell_N3 = torch.floor((points_N4[:, :3] - low) / points_N4.new_tensor(voxel_m))
    inside_N = ((cell_N3 >= 0) & (cell_N3 < cell_N3.new_tensor(cells_xyz))).all(1)
    points_M4 = points_N4[inside_N]
    x_M, y_M, z_M = cell_N3[inside_N].long().unbind(1)
    key_M = (z_M * cells_xyz[1] + y_M) * cells_xyz[0] + x_M

    # A stable sort brings the points of a voxel together and leaves them in file order.
    key_M, order_M = torch.sort(key_M, stable=True)
    is_first_M = torch.ones_like(key_M, dtype=torch.bool)
    is_first_M[1:] = key_M[1:] != key_M[:-1]
    first_S = is_first_M.nonzero().squeeze(1)
    segment_M = is_first_M.long().cumsum(0) - 1
    slot_M = torch.arange(len(key_M), device=key_M.device) - first_S[segment_M]

    segment_V = torch.argsort(order_M[first_S])[:max_voxels]  # first come, first served
    voxel_S = torch.full_like(first_S, -1)
    voxel_S[segment_V] = torch.arange(len(segment_V), device=key_M.device)
    voxel_M = voxel_S[segment_M]
    kept_M = (voxel_M >= 0) & (slot_M < max_points)

    sizes_S = torch.diff(first_S, append=first_S.new_tensor([len(key_M)]))
    counts_V = sizes_S[segment_V].clamp(max=max_points)
    begin_V = counts_V.cumsum(0) - counts_V
    place_K = begin_V[voxel_M[kept_M]] + slot_M[kept_M]
    points_K4 = points_M4.new_empty(len(place_K), points_M4.shape[1])
    points_K4[place_K] = points_M4[order_M[kept_M]]

    key_V = key_M[first_S[segment_V]]
    x_V = key_V % cells_xyz[0]
    y_V = key_V // cells_xyz[0] % cells_xyz[1]
    z_V = key_V // (cells_xyz[0] * cells_xyz[1])
    coords_V4 = torch.stack([torch.zeros_like(x_V), z_V, y_V, x_V], dim=1)
    return Voxels(points_K4, counts_V, coords_V4)


def voxelize_batch(
    scans: Sequence[torch.Tensor],
    range_m: Sequence[float],
    voxel_m: Sequence[float],
    cells_xyz: Sequence[int],
    max_points: int,
    max_voxels: int,
) -> Voxels:
    """Voxelise every scan (see `voxelize`) and join them; the scan index tells them apart.

    Raises:
        ValueError: no scan, or one that is not a float32 (N, 4) tensor.
    """
    if not scans:
        raise ValueError('no scan to voxelise')
    parts = []
    for index, points_N4 in enumerate(scans):
        if points_N4.ndim != 2 or points_N4.shape[1] < 4 or points_N4.dtype != torch.float32:
            raise ValueError(
                f'scan {index}: expected float32 (N, 4), '
                f'found {points_N4.dtype} {tuple(points_N4.shape)}'
            )
        part = voxelize(points_N4, range_m, voxel_m, cells_xyz, max_points, max_voxels)
        part.coords_bzyx_V4[:, 0] = index
        parts.append(part)
    return Voxels(
        torch.cat([part.points_K4 for part in parts]),
        torch.cat([part.counts_V for part in parts]),
        torch.cat([part.coords_bzyx_V4 for part in parts]),
    )
