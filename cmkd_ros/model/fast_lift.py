"""The lift and the collapse over the cells a camera sees, on indices made once per camera.

Letters: B batch, C channels, D depth logits (bins + 1), H W feature rows and columns, Z voxel
layers, M columns of voxels (BEV cells) that the camera sees, V = M * Z voxels, Y X the BEV map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.bev import Collapse
from cmkd_ros.model.fast_conv import fold_batch_norm
from cmkd_ros.model.lift import Lift, VoxelColumns
from cmkd_ros.model.lift_indices import LiftIndices


class FastLift(Lift):
    """`Lift` without gradients, in the type of the features.

    The two depth taps of a corner are gathered apart, so that every operation runs over one long
    row. Probabilities stay float32 up to the weight of a corner.
    """

    def __init__(self, plain: Lift) -> None:
        super().__init__(
            plain.range_m, plain.cells_xyz, plain.depth_bins, cached_cameras=plain.cached_cameras
        )
        self._taps: dict[int, tuple[LiftIndices, _Taps]] = {}

    def forward(
        self,
        features_BCHW: torch.Tensor,
        depth_logits_BDHW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
        canvas_hw: tuple[int, int],
    ) -> list[VoxelColumns]:
        """As `Lift.forward`; voxels have the type of the features."""
        columns = []
        like = features_BCHW.new_empty((0, *features_BCHW.shape[2:]), dtype=torch.float32)
        for b, features_CHW in enumerate(features_BCHW):
            indices = self.indices(cam_to_img_B34[b], ref_to_cam_B44[b], canvas_hw, like)
            taps = self._taps_of(indices)
            logits_HWD = depth_logits_BDHW[b].permute(1, 2, 0)
            flat = logits_HWD.float().softmax(dim=-1).flatten()
            near_V4 = flat.index_select(0, taps.near_bins).mul_(taps.near_weights)
            far_V4 = flat.index_select(0, taps.far_bins)
            corners_V4 = near_V4.addcmul_(far_V4, taps.far_weights).view(-1, 4)
            rows_PC = features_CHW.permute(1, 2, 0).flatten(0, 1)
            values_VC = F.embedding_bag(
                taps.pixels_V4,
                rows_PC,
                mode='sum',
                per_sample_weights=corners_V4.to(rows_PC.dtype),
            )
            n_z = self.cells_xyz[2]
            columns.append(VoxelColumns(values_VC.view(-1, n_z, rows_PC.shape[1]), indices.cells_M))
        return columns

    def _taps_of(self, indices: LiftIndices) -> _Taps:
        found = self._taps.get(id(indices))
        if found is None or found[0] is not indices:
            alive = {id(kept) for kept in self._cache.values()}
            self._taps = {key: value for key, value in self._taps.items() if key in alive}
            with torch.inference_mode(False), torch.no_grad():
                found = (indices, _Taps(indices))
            self._taps[id(indices)] = found
        return found[1]


class _Taps:
    """Indices of one camera, near and far depth taps apart, in 32 bits."""

    def __init__(self, indices: LiftIndices) -> None:
        bins_V2 = indices.bins_V8.view(-1, 2).int()
        weights_V2 = indices.weights_V42.view(-1, 2)
        self.near_bins, self.far_bins = (bins_V2[:, i].contiguous() for i in range(2))
        self.near_weights, self.far_weights = (weights_V2[:, i].contiguous() for i in range(2))
        self.pixels_V4 = indices.pixels_V4.int()


class FastCollapse(nn.Module):
    """`Collapse` in eval mode: one matrix product over the cells seen, a constant elsewhere."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, plain: Collapse, dtype: torch.dtype) -> None:
        super().__init__()
        self.cells_xyz = plain.cells_xyz
        n_z = self.cells_xyz[2]
        weight, bias = fold_batch_norm(plain.conv.weight, plain.conv.bias, plain.bn)
        # Columns in the order of the voxels' memory, z * C + c.
        matrix = weight.flatten(1).unflatten(1, (-1, n_z)).transpose(1, 2).flatten(1)
        self.register_buffer('weight', matrix.to(dtype).contiguous(), persistent=False)
        self.register_buffer('bias', bias.to(dtype), persistent=False)

    def forward(self, columns: Sequence[VoxelColumns]) -> torch.Tensor:
        """As `Collapse.forward`; channels last."""
        n_x, n_y, _ = self.cells_xyz
        maps = []
        for column in columns:
            values_MC = column.values_MZC.flatten(1).to(self.weight.dtype)
            cells_MC = F.linear(values_MC, self.weight, self.bias).relu_()
            full = self.bias.relu().expand(n_y * n_x, -1).contiguous()
            maps.append(full.index_copy_(0, column.cells_M, cells_MC))
        return torch.stack(maps).view(len(maps), n_y, n_x, -1).permute(0, 3, 1, 2)
