"""The reference form of a student: plain modules, and the frustum volume built and sampled.

What the official code computes, step by step and in its memory format. Slow on purpose: it is what
the fast form is measured against.

Letters: B batch, C channels, D depth bins, H W feature rows and columns, X Y Z the grid.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.lift import Lift, VoxelColumns
from cmkd_ros.model.lift_indices import voxel_frustum_coordinates
from cmkd_ros.model.student import Student


class VolumeLift(Lift):
    """`Lift` by way of the frustum volume feature x probability and trilinear `grid_sample`."""

    def forward(
        self,
        features_BCHW: torch.Tensor,
        depth_logits_BDHW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
        canvas_hw: tuple[int, int],
    ) -> list[VoxelColumns]:
        """As `Lift.forward`, with all cells of the grid, seen or not."""
        feature_hw = (features_BCHW.shape[2], features_BCHW.shape[3])
        sizes = (feature_hw[1], feature_hw[0], self.depth_bins[1])
        grids = []
        for cam_to_img_34, ref_to_cam_44 in zip(cam_to_img_B34, ref_to_cam_B44, strict=True):
            coordinates = voxel_frustum_coordinates(
                cam_to_img_34, ref_to_cam_44, self.range_m, self.cells_xyz, canvas_hw, feature_hw,
                self.depth_bins,
            )  # fmt: skip
            # grid_sample's own convention, corners not aligned.
            grids.append((2 * coordinates + 1) / coordinates.new_tensor(sizes) - 1)
        probability_BDHW = depth_logits_BDHW.softmax(dim=1)[:, :-1]
        frustum_BCDHW = features_BCHW[:, :, None] * probability_BDHW[:, None]
        grid_BZYX3 = torch.stack(grids).permute(0, 3, 1, 2, 4)
        voxels_BCZYX = F.grid_sample(
            frustum_BCDHW, grid_BZYX3, padding_mode='zeros', align_corners=False
        )
        cells_M = torch.arange(voxels_BCZYX[0, 0, 0].numel(), device=voxels_BCZYX.device)
        return [
            VoxelColumns(voxels_CZYX.flatten(2).permute(2, 1, 0), cells_M)
            for voxels_CZYX in voxels_BCZYX
        ]


def reference_form(student: Student) -> Student:
    """A student of the same parameters in reference form.

    Args:
        student: in eval mode; shares its parameters with the result.
    """
    reference = copy.copy(student)
    lift = student.lift
    reference._modules = dict(student._modules)
    reference.lift = VolumeLift(lift.range_m, lift.cells_xyz, lift.depth_bins)
    backbone = copy.copy(student.image_backbone)
    backbone._modules = dict(backbone._modules)
    backbone.conv1 = nn.Sequential(_ChannelsFirst(), backbone.conv1)  # type: ignore[assignment]
    reference.image_backbone = backbone
    return reference


class _ChannelsFirst(nn.Module):
    """Undoes the channels-last layout, which convolutions then keep to the end."""

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        return maps_BCHW.contiguous()
