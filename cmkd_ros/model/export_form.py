"""A student as one graph for other engines: image and camera indices in, raw head maps out.

Where a camera's voxels look is an input of the graph, so that another calibration needs no other
file. The lift is written in gathers, products and sums, which every engine has: layer by layer,
over the BEV cells the camera sees, then one gather back to the whole map.

Letters: C channels, H W rows and columns, P pixels of the feature map, Z voxel layers, M cells the
camera sees, O channels of the BEV map, X Y the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.fast_lift import FastCollapse
from cmkd_ros.model.lift_indices import LiftIndices
from cmkd_ros.model.student import Student


class CameraInputs(NamedTuple):
    """What the graph must know of a camera; names and order of its inputs.

    Attributes:
        pixels_Z4M: int64 feature pixel (row * W + column) of each corner.
        bins_Z42M: int64 into the flat (P, depth logits) distribution.
        weights_Z42M: float32, 0 for taps outside the frustum.
        cells_YX: int64 (Y * X,) row of the table of seen cells; M for a cell not seen.
    """

    pixels_Z4M: torch.Tensor
    bins_Z42M: torch.Tensor
    weights_Z42M: torch.Tensor
    cells_YX: torch.Tensor


def camera_inputs(indices: LiftIndices, cells_xyz: Sequence[int]) -> CameraInputs:
    """The graph's inputs for one camera.

    Args:
        indices: from `Lift.indices`.
        cells_xyz: the grid.
    """
    n_x, n_y, n_z = cells_xyz
    n_seen = len(indices.cells_M)
    cells_YX = torch.full((n_y * n_x,), n_seen, dtype=torch.int64)
    cells_YX[indices.cells_M] = torch.arange(n_seen)
    return CameraInputs(
        indices.pixels_V4.view(n_seen, n_z, 4).permute(1, 2, 0).contiguous(),
        indices.bins_V8.view(n_seen, n_z, 4, 2).permute(1, 2, 3, 0).contiguous(),
        indices.weights_V42.view(n_seen, n_z, 4, 2).permute(1, 2, 3, 0).float().contiguous(),
        cells_YX,
    )


class ExportForm(nn.Module):
    """A student for one image, on public operators only."""

    weight_ZCO: torch.Tensor
    bias_O: torch.Tensor

    def __init__(self, student: Student) -> None:
        """Take a student with a head, in eval mode.

        Raises:
            ValueError: a student without head.
        """
        super().__init__()
        fast = fast_form(student, packed=False, row_products=False)
        if fast.bev_backbone is None or fast.head is None:
            raise ValueError('a stage-1 student has no head; export a stage-2 student')
        collapse = fast.collapse
        if not isinstance(collapse, FastCollapse):
            raise TypeError(f'expected a FastCollapse, found {type(collapse).__name__}')
        self.image_backbone, self.depth_head = fast.image_backbone, fast.depth_head
        self.reduce, self.adaptation = fast.reduce, fast.adaptation
        self.bev_backbone, self.head = fast.bev_backbone, fast.head
        n_x, n_y, n_z = collapse.cells_xyz
        self.size_yx = (n_y, n_x)
        weight_OK = collapse.weight
        # (Z, C, O): one matrix per voxel layer.
        weight_ZCO = weight_OK.view(len(weight_OK), n_z, -1).permute(1, 2, 0).contiguous()
        self.register_buffer('weight_ZCO', weight_ZCO)
        self.register_buffer('bias_O', collapse.bias)

    def forward(
        self,
        image_13HW: torch.Tensor,
        pixels_Z4M: torch.Tensor,
        bins_Z42M: torch.Tensor,
        weights_Z42M: torch.Tensor,
        cells_YX: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Raw head maps in the order of the head's output.

        Args:
            image_13HW: RGB in [0, 1].
            pixels_Z4M, bins_Z42M, weights_Z42M, cells_YX: `CameraInputs`.
        """
        features, deep = self.image_backbone(image_13HW)
        probability = self.depth_head(deep).permute(0, 2, 3, 1).softmax(dim=-1).flatten()
        rows_PC = self.reduce(features).permute(0, 2, 3, 1).flatten(0, 2)
        corners_Z4M = (probability[bins_Z42M] * weights_Z42M).sum(dim=2)
        cells_MO = self.bias_O
        for pixels_4M, corners_4M, weight_CO in zip(
            pixels_Z4M.unbind(0), corners_Z4M.unbind(0), self.weight_ZCO.unbind(0), strict=True
        ):
            values_MC = (rows_PC[pixels_4M] * corners_4M[..., None]).sum(dim=0)
            cells_MO = cells_MO + values_MC @ weight_CO
        table = torch.cat([cells_MO, self.bias_O[None]]).relu()
        bev_1OYX = table[cells_YX].view(1, *self.size_yx, -1).permute(0, 3, 1, 2)
        head = self.head(self.bev_backbone(self.adaptation(bev_1OYX)))
        return tuple(vars(head).values())
