"""The lift: image features spread over depth and sampled at voxel centres, without the frustum.

The official code builds the frustum volume feature x depth probability and samples it trilinearly
at every voxel centre. Trilinear weights separate, so a voxel equals the sum over 4 image corners of
w_xy * (w_near * p_near + w_far * p_far) * feature, and for one camera all indices and weights are
constants: `LiftIndices`, built once and kept (cmkd-spec C1-C3).

Letters: B batch, C channels, D depth logits (bins + 1), H W feature rows and columns, Y X Z grid
cells, M columns of voxels (BEV cells) that the camera sees, V = M * Z voxels. Ref frame is FLU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.geometry.depth_bins import BinMode, depth_to_bin

Triple = tuple[float, float, float]
OUTSIDE = -2.0  # a frustum coordinate that no tap reaches


@dataclass(frozen=True)
class VoxelColumns:
    """Voxel features of the BEV cells that one camera sees.

    Attributes:
        values_MZC: (M, Z, C) voxel features, bottom layer first.
        cells_M: (M,) int64 cell of each column, y * X + x, increasing.
    """

    values_MZC: torch.Tensor
    cells_M: torch.Tensor


@dataclass(frozen=True)
class LiftIndices:
    """Where one camera's voxels sample its image features and depth distribution.

    Attributes:
        cells_M: (M,) int64 visible columns, y * X + x, increasing.
        pixels_V4: (V, 4) int64 feature pixels (row * W + column) around each voxel centre.
        bins_V8: (V * 8,) int64 into the flat (H * W, D) distribution: 2 depth taps per pixel.
        weights_V42: (V, 4, 2) trilinear weights, 0 for taps outside the frustum.
    """

    cells_M: torch.Tensor
    pixels_V4: torch.Tensor
    bins_V8: torch.Tensor
    weights_V42: torch.Tensor


def voxel_frustum_coordinates(
    cam_to_img_34: torch.Tensor,
    ref_to_cam_44: torch.Tensor,
    range_m: Sequence[float],
    cells_xyz: Sequence[int],
    canvas_hw: tuple[int, int],
    feature_hw: tuple[int, int],
    depth_bins: tuple[BinMode, int, float, float],
) -> torch.Tensor:
    """Frustum position of every voxel centre, computed in float64.

    Args:
        cam_to_img_34: projection of the camera, pixels of the canvas.
        ref_to_cam_44: rigid transform from ref to cam.
        range_m, cells_xyz: the grid, as in `Lift`.
        canvas_hw: rows and columns of the image, padding included.
        feature_hw: rows and columns of its feature map.
        depth_bins: (mode, bins, nearest, farthest in metres).

    Returns:
        (Y, X, Z, 3) float64 (column, row, bin) in units of feature pixels and bins, integer at
        their centres; OUTSIDE, element by element, where the projection has no value.
    """
    projection, pose = cam_to_img_34.double(), ref_to_cam_44.double()
    axes = []
    for low, high, count in zip(range_m[:3], range_m[3:], cells_xyz, strict=True):
        steps = torch.arange(count, dtype=torch.float64, device=projection.device)
        axes.append(low + (steps + 0.5) * ((high - low) / count))
    x, y, z = torch.meshgrid(*axes, indexing='ij')
    centers_YXZ3 = torch.stack([x, y, z], dim=-1).transpose(0, 1)

    cam_YXZ3 = centers_YXZ3 @ pose[:3, :3].T + pose[:3, 3]
    img_YXZ3 = cam_YXZ3 @ projection[:, :3].T + projection[:, 3]
    u_px, v_px = (img_YXZ3[..., axis] / (img_YXZ3[..., 2] + 1e-8) for axis in (0, 1))
    mode, n_bins, d_min, d_max = depth_bins
    bin_YXZ = depth_to_bin(img_YXZ3[..., 2] - projection[2, 3], mode, n_bins, d_min, d_max)

    # Quirk kept: the official grid is normalised as if corners were aligned (pixel / (size - 1))
    # but sampled as if they were not, along depth (bins - 1) as well as in the image.
    coordinates = []
    for value, size, length in (
        (u_px, feature_hw[1], canvas_hw[1] - 1),
        (v_px, feature_hw[0], canvas_hw[0] - 1),
        (bin_YXZ, n_bins, n_bins - 1),
    ):
        coordinates.append(value * (size / max(length, 1)) - 0.5)
    stacked = torch.stack(coordinates, dim=-1)
    return torch.where(stacked.isfinite(), stacked, OUTSIDE)


def build_lift_indices(
    coordinates_YXZ3: torch.Tensor, feature_hw: tuple[int, int], n_bins: int
) -> LiftIndices:
    """Trilinear taps of every voxel in a column that has any, zero padding outside.

    Args:
        coordinates_YXZ3: from `voxel_frustum_coordinates`.
        feature_hw: rows and columns of the feature map.
        n_bins: depth bins; the distribution has one entry more.

    Returns:
        Indices and float64 weights.
    """
    height, width = feature_hw
    flat_CZ3 = coordinates_YXZ3.flatten(0, 1)
    columns, w_columns = _taps(flat_CZ3[..., 0], width)
    rows, w_rows = _taps(flat_CZ3[..., 1], height)
    bins, w_bins = _taps(flat_CZ3[..., 2], n_bins)
    corner_weights = (w_rows[..., :, None] * w_columns[..., None, :]).flatten(-2)
    weights_CZ42 = corner_weights[..., :, None] * w_bins[..., None, :]
    cells_M = weights_CZ42.flatten(1).any(dim=1).nonzero()[:, 0]

    pixels_MZ4 = (rows[cells_M][..., :, None] * width + columns[cells_M][..., None, :]).flatten(-2)
    bins_MZ42 = pixels_MZ4[..., :, None] * (n_bins + 1) + bins[cells_M][..., None, :]
    return LiftIndices(
        cells_M=cells_M,
        pixels_V4=pixels_MZ4.flatten(0, 1),
        bins_V8=bins_MZ42.flatten(),
        weights_V42=weights_CZ42[cells_M].flatten(0, 1),
    )


def _taps(coordinate: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two neighbours of a coordinate: indices (..., 2) inside [0, size), and weights."""
    # Clamping keeps huge values in the range of integers; they stay out of reach of every tap.
    coordinate = coordinate.clamp(OUTSIDE, size + 1)
    low = coordinate.floor()
    far = coordinate - low
    index = torch.stack([low, low + 1], dim=-1)
    weight = torch.stack([1 - far, far], dim=-1)
    inside = (index >= 0) & (index < size)
    return index.clamp(0, size - 1).long(), torch.where(inside, weight, 0.0)


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
    values_VC = F.embedding_bag(
        indices.pixels_V4, rows_PC, mode='sum', per_sample_weights=corners_V4
    )
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
            return LiftIndices(
                cells_M=indices.cells_M,
                pixels_V4=indices.pixels_V4,
                bins_V8=indices.bins_V8,
                weights_V42=indices.weights_V42.to(like.dtype),
            )
