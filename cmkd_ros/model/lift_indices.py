"""Where a camera's voxels sample its image features and its depth distribution.

Letters: H W feature rows and columns, Y X Z grid cells, M columns of voxels (BEV cells) that the
camera sees, V = M * Z voxels. Frames: ref is FLU, cam optical. Source: cmkd-spec C1, C2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from cmkd_ros.geometry.depth_bins import BinMode, depth_to_bin

OUTSIDE = -2.0  # a frustum coordinate that no tap reaches


@dataclass(frozen=True)
class LiftIndices:
    """Where one camera's voxels sample its image features and depth distribution.

    Attributes:
        cells_M: (M,) int64 visible columns, y * X + x, increasing.
        pixels_V4: (V, 4) int64 feature pixels (row * W + column) around each voxel centre.
        bins_V8: (V * 8,) int64 into the flat (H * W, D) distribution: 2 depth taps per pixel.
        weights_V42: (V, 4, 2) trilinear weights, 0 for taps outside the frustum.
        n_pixels: H * W.
    """

    cells_M: torch.Tensor
    pixels_V4: torch.Tensor
    bins_V8: torch.Tensor
    weights_V42: torch.Tensor
    n_pixels: int

    @cached_property
    def taps_by_pixel(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The voxels of every pixel: the transpose of `pixels_V4`, for gradients.

        Returns:
            (T,) int64 positions in the flat `pixels_V4` of the taps with any weight, pixel by
            pixel, and (H * W,) int64 where each pixel's begin.
        """
        with torch.inference_mode(False), torch.no_grad():
            taps = self.weights_V42.any(dim=2).flatten().nonzero()[:, 0]
            pixels, order = self.pixels_V4.flatten()[taps].sort(stable=True)
            begins = torch.searchsorted(
                pixels, torch.arange(self.n_pixels, device=pixels.device), side='left'
            )
            return taps[order], begins


def voxel_frustum_coordinates(
    cam_to_img_34: torch.Tensor,
    ref_to_cam_44: torch.Tensor,
    range_m: Sequence[float],
    cells_xyz: Sequence[int],
    canvas_hw: tuple[int, int],
    feature_hw: tuple[int, int],
    depth_bins: tuple[BinMode, int, float, float],
) -> torch.Tensor:
    """Frustum position of every voxel centre, in the precision of the camera.

    The official code computes it in float32. So that float32 rounds alike, operations and their
    order are the official ones: it makes every later map ten times as close.

    Args:
        cam_to_img_34: projection of the camera, pixels of the canvas.
        ref_to_cam_44: rigid transform from ref to cam.
        range_m, cells_xyz: the grid, as in `Lift`.
        canvas_hw: rows and columns of the image, padding included.
        feature_hw: rows and columns of its feature map.
        depth_bins: (mode, bins, nearest, farthest in metres).

    Returns:
        (Y, X, Z, 3) (column, row, bin) in units of feature pixels and bins, integer at their
        centres; OUTSIDE, element by element, where the projection has no value.
    """
    dtype, device = cam_to_img_34.dtype, cam_to_img_34.device
    cells_3 = torch.tensor(cells_xyz, dtype=dtype, device=device)
    low_3, high_3 = torch.tensor(range_m, dtype=dtype, device=device).view(2, 3)
    axes = [torch.arange(count, dtype=dtype, device=device) + 0.5 for count in cells_xyz]
    x_cells, y_cells, z_cells = torch.meshgrid(*axes, indexing='ij')
    ref_from_cells_44 = torch.diag(torch.cat([(high_3 - low_3) / cells_3, cells_3.new_ones(1)]))
    ref_from_cells_44[:3, 3] = low_3
    # As sums of products: a matrix product on a GPU may round more coarsely.
    cam_from_cells_34 = (ref_to_cam_44[:3, :, None] * ref_from_cells_44).sum(dim=1)
    in_cam = _transform(cam_from_cells_34, x_cells, y_cells, z_cells)
    u, v, w = _transform(cam_to_img_34, *in_cam)
    scale = 1 / (w + 1e-8)
    mode, n_bins, d_min, d_max = depth_bins
    bins = depth_to_bin(w - cam_to_img_34[2, 3], mode, n_bins, d_min, d_max)

    # Quirk kept: the official grid is normalised as if corners were aligned (pixel / (size - 1))
    # but sampled as if they were not, along depth (bins - 1) as well as in the image.
    coordinates = []
    for value, size, length in (
        (u * scale, feature_hw[1], canvas_hw[1] - 1),
        (v * scale, feature_hw[0], canvas_hw[0] - 1),
        (bins, n_bins, n_bins - 1),
    ):
        normalised = value / max(length, 1) * 2 - 1
        coordinates.append(((normalised + 1) * size - 1) / 2)
    stacked_YXZ3 = torch.stack(coordinates, dim=-1).transpose(0, 1)
    return torch.where(stacked_YXZ3.isfinite(), stacked_YXZ3, OUTSIDE)


def _transform(
    matrix_34: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor
) -> list[torch.Tensor]:
    """Coordinates of points after an affine map, summed from left to right."""
    return [row[0] * x + row[1] * y + row[2] * z + row[3] for row in matrix_34]


def build_lift_indices(
    coordinates_YXZ3: torch.Tensor, feature_hw: tuple[int, int], n_bins: int
) -> LiftIndices:
    """Trilinear taps of every voxel in a column that has any, zero padding outside.

    Args:
        coordinates_YXZ3: from `voxel_frustum_coordinates`.
        feature_hw: rows and columns of the feature map.
        n_bins: depth bins; the distribution has one entry more.

    Returns:
        Indices, and weights in the precision of the coordinates.
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
        n_pixels=height * width,
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
