"""What the training reads: one frame (`Sample`), and several frames on one canvas (`Batch`).

Letters: B batch, H W image rows and columns (the canvas), h w depth-target rows and columns,
N points, M labelled boxes. Frames: ref (FLU at the LiDAR), cam (optical).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Sample:
    """One camera frame with what the LiDAR saw, and labels where there are any.

    Attributes:
        frame_id: name of the frame in its data set, for messages and results.
        image_HW3: uint8 RGB.
        cam_to_img_34: float32 projection of the rectified camera, pixels.
        ref_to_cam_44: float32 rigid transform from ref to the rectified camera.
        points_N4: float32 x, y, z in ref and intensity in [0, 1], None when there is no scan.
        boxes_M7: float32 (x, y, z, l, w, h, yaw) in ref, gravity centres, of the wanted classes.
        class_ids_M: int64, 1-based index into the class names (0 is never used: official padding).
        depth_HW: float32 metres per pixel, 0 where unknown; None when no depth target is wanted.
        labelled: False for frames of an unlabelled drive: then the boxes are empty by definition.
        road_plane_4: float64 a, b, c, d of the road in cam, of the frame as it was recorded; None
            when it is not wanted.
    """

    frame_id: str
    image_HW3: np.ndarray
    cam_to_img_34: np.ndarray
    ref_to_cam_44: np.ndarray
    points_N4: np.ndarray | None
    boxes_M7: np.ndarray
    class_ids_M: np.ndarray
    depth_HW: np.ndarray | None
    labelled: bool
    road_plane_4: np.ndarray | None = None


@dataclass(frozen=True)
class Batch:
    """Frames on one canvas; smaller images are padded right and bottom with NaN.

    Attributes:
        frame_ids: B names.
        image_B3HW: float32 RGB in [0, 1], NaN where a smaller image ends.
        image_sizes_B2: int64 true (height, width) of every image.
        cam_to_img_B34, ref_to_cam_B44: float32.
        points: B tensors (N, 4), or None when the batch has no scans.
        boxes, class_ids: B tensors (M, 7) float32 and (M,) int64.
        depth_Bhw: float32 depth targets at the feature stride, NaN on the padding, or None.
        labelled_B: bool.
    """

    frame_ids: tuple[str, ...]
    image_B3HW: torch.Tensor
    image_sizes_B2: torch.Tensor
    cam_to_img_B34: torch.Tensor
    ref_to_cam_B44: torch.Tensor
    points: tuple[torch.Tensor, ...] | None
    boxes: tuple[torch.Tensor, ...]
    class_ids: tuple[torch.Tensor, ...]
    depth_Bhw: torch.Tensor | None
    labelled_B: torch.Tensor

    def __len__(self) -> int:
        return len(self.frame_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with every tensor on `device`."""

        def move(value: Any) -> Any:
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
                return tuple(v.to(device, non_blocking=non_blocking) for v in value)
            return value

        return replace(self, **{name: move(value) for name, value in vars(self).items()})
