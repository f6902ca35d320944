"""The lift: image features spread over depth and sampled at voxel centres, without the frustum.

The official code builds the frustum volume feature x depth probability and samples it trilinearly
at every voxel centre. Trilinear weights separate, so a voxel equals the sum over 4 image corners of
w_xy * (w_near * p_near + w_far * p_far) * feature, and for one camera all indices and weights are
constants: `LiftIndices`, built once and kept (cmkd-spec C3).

Letters: B batch, C channels, D depth logits (bins + 1), H W feature rows and columns, P = H * W
pixels, Z voxel layers, M columns of voxels (BEV cells) that the camera sees, V = M * Z voxels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cmkd_ros.geometry.depth_bins import BinMode
from cmkd_ros.model.lift_indices import (
    LiftIndices,
    build_lift_indices,
    voxel_frustum_coordinates,
)


@dataclass(frozen=True)
class VoxelColumns:
    """Voxel features of the BEV cells that one camera sees.

    Attributes:
        values_MZC: (M, Z, C) voxel features, bottom layer first.
        cells_M: (M,) int64 cell of each column, y * X + x, increasing.
    """

    values_MZC: torch.Tensor
    cells_M: torch.Tensor


class _WeightedCorners(torch.autograd.Function):
    """Weighted sum of 4 feature rows per voxel, with the transposed sum as gradient.

    The stock gradient of `embedding_bag` sorts the indices at every step; here they are constants.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_PC: torch.Tensor, corners_V4: torch.Tensor, indices: LiftIndices
    ) -> torch.Tensor:
        ctx.save_for_backward(rows_PC, corners_V4)
        ctx.indices = indices
        return _sum_corners(rows_PC, corners_V4, indices)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_VC: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows_PC, corners_V4 = ctx.saved_tensors
        grad_rows = grad_corners = None
        if ctx.needs_input_grad[0]:
            taps_T, begins_P = ctx.indices.taps_by_pixel
            grad_rows = F.embedding_bag(
                taps_T // 4,
                grad_VC,
                begins_P,
                mode='sum',
                per_sample_weights=corners_V4.flatten()[taps_T],
            )
        if ctx.needs_input_grad[1]:
            with torch.enable_grad():
                corners = corners_V4.detach().requires_grad_()
                values = _sum_corners(rows_PC.detach(), corners, ctx.indices)
            (grad_corners,) = torch.autograd.grad(values, corners, grad_VC)
        return grad_rows, grad_corners, None


def _sum_corners(
    rows_PC: torch.Tensor, corners_V4: torch.Tensor, indices: LiftIndices
) -> torch.Tensor:
    return F.embedding_bag(indices.pixels_V4, rows_PC, mode='sum', per_sample_weights=corners_V4)


def sample_voxels(
    features_CHW: torch.Tensor, probability_HWD: torch.Tensor, indices: LiftIndices, n_z: int
) -> VoxelColumns:
    """Voxel features of one image; differentiable in the features and the distribution.

    Args:
        features_CHW: image features.
        probability_HWD: depth distribution, same dtype as the features.
        indices: taps whose weights have that dtype too.
        n_z: voxel layers of the grid.
    """
    rows_PC = features_CHW.permute(1, 2, 0).flatten(0, 1)
    taps_V8 = probability_HWD.flatten().index_select(0, indices.bins_V8)
    corners_V4 = (taps_V8.view_as(indices.weights_V42) * indices.weights_V42).sum(dim=-1)
    values_VC = _WeightedCorners.apply(rows_PC, corners_V4, indices)
    return VoxelColumns(values_VC.view(-1, n_z, values_VC.shape[1]), indices.cells_M)


class Lift(nn.Module):
    """Lifts image features into the voxel grid of the reference frame. Has no parameters."""

    def __init__(
        self,
        range_m: Sequence[float],
        cells_xyz: Sequence[int],
        depth_bins: tuple[BinMode, int, float, float],
        cached_cameras: int = 8,
    ) -> None:
        """Describe the grid and the depth bins.

        Args:
            range_m: x, y, z minima, then maxima, of the grid in ref.
            cells_xyz: cells along x, y, z.
            depth_bins: (mode, bins, nearest, farthest in metres).
            cached_cameras: cameras whose indices are kept (about 30 MB each at KITTI size).
        """
        super().__init__()
        self.range_m = tuple(range_m)
        self.cells_xyz = tuple(cells_xyz)
        self.depth_bins = depth_bins
        self.cached_cameras = cached_cameras
        self._cache: OrderedDict[tuple[object, ...], LiftIndices] = OrderedDict()

    def forward(
        self,
        features_BCHW: torch.Tensor,
        depth_logits_BDHW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
        canvas_hw: tuple[int, int],
    ) -> list[VoxelColumns]:
        """Sample every image's features at the voxels its camera sees.

        Args:
            features_BCHW: image features.
            depth_logits_BDHW: depth distribution before the softmax, last = beyond the grid.
            cam_to_img_B34: projections, pixels of the canvas.
            ref_to_cam_B44: rigid transforms from ref to cam.
            canvas_hw: rows and columns of the images, padding included.

        Returns:
            One `VoxelColumns` per image, float32 (float64 for float64 features).
        """
        dtype = torch.promote_types(features_BCHW.dtype, torch.float32)
        with torch.autocast(features_BCHW.device.type, enabled=False):
            # float32 in any precision: a softmax over 121 bins and sums of 8 products.
            features = features_BCHW.to(dtype)
            probability_BHWD = depth_logits_BDHW.permute(0, 2, 3, 1).to(dtype).softmax(dim=-1)
            return [
                sample_voxels(
                    features[b],
                    probability_BHWD[b],
                    self.indices(cam_to_img_B34[b], ref_to_cam_B44[b], canvas_hw, features[b]),
                    self.cells_xyz[2],
                )
                for b in range(len(features))
            ]

    def indices(
        self,
        cam_to_img_34: torch.Tensor,
        ref_to_cam_44: torch.Tensor,
        canvas_hw: tuple[int, int],
        features_CHW: torch.Tensor,
    ) -> LiftIndices:
        """The taps of one camera for feature maps like `features_CHW`, from the cache if known."""
        feature_hw = (features_CHW.shape[1], features_CHW.shape[2])
        calibration = torch.cat([cam_to_img_34.flatten(), ref_to_cam_44.flatten()]).detach().cpu()
        key = (
            calibration.numpy().tobytes(),
            calibration.dtype,
            canvas_hw,
            feature_hw,
            features_CHW.dtype,
            features_CHW.device,
        )
        found = self._cache.pop(key, None)
        if found is None:
            found = self._build(cam_to_img_34, ref_to_cam_44, canvas_hw, feature_hw, features_CHW)
            while len(self._cache) >= max(self.cached_cameras, 1):
                self._cache.popitem(last=False)
        self._cache[key] = found
        return found

    def _build(
        self,
        cam_to_img_34: torch.Tensor,
        ref_to_cam_44: torch.Tensor,
        canvas_hw: tuple[int, int],
        feature_hw: tuple[int, int],
        like: torch.Tensor,
    ) -> LiftIndices:
        # Outside inference mode: a training step may meet these tensors again.
        with torch.inference_mode(False), torch.no_grad():
            coordinates = voxel_frustum_coordinates(
                cam_to_img_34.to(like.device, copy=True),
                ref_to_cam_44.to(like.device, copy=True),
                self.range_m,
                self.cells_xyz,
                canvas_hw,
                feature_hw,
                self.depth_bins,
            )
            indices = build_lift_indices(coordinates, feature_hw, self.depth_bins[1])
            return replace(indices, weights_V42=indices.weights_V42.to(like.dtype))
