"""Shared by the tests of the networks: KITTI's camera."""

import pytest
import torch


@pytest.fixture
def kitti_camera() -> tuple[torch.Tensor, torch.Tensor]:
    """(cam_to_img_34, ref_to_cam_44) of one KITTI drive, without the small rotations."""
    cam_to_img = torch.tensor(
        [
            [721.5377, 0.0, 609.5593, 44.85728],
            [0.0, 721.5377, 172.854, 0.2163791],
            [0.0, 0.0, 1.0, 0.002745884],
        ]
    )
    ref_to_cam = torch.tensor(
        [
            [0.0, -1.0, 0.0, 0.0],
            [0.0, 0.0, -1.0, -0.08],
            [1.0, 0.0, 0.0, -0.27],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    return cam_to_img, ref_to_cam
