"""A detector that takes a given time and always sees the same, so that the node itself is seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cmkd_ros.detector import Detections, Detector
from cmkd_ros.geometry import Boxes3D, CameraModel
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.ros.benchmark.camera import KITTI_FX_PX


class FixedDetector(Detector):
    """Does all that a detector does but for the network and the suppression: for these it waits."""

    def __init__(self, network_s: float = 0.0, boxes: int = 20) -> None:
        """Prepare the answer.

        Args:
            network_s: time to wait, during which other threads may run, as beside a GPU.
            boxes: number of boxes that every image is answered with.
        """
        self.device, self.precision, self.backend = torch.device('cpu'), 'none', 'none'
        self.class_names, self.post = ('Car', 'Pedestrian', 'Cyclist'), PostSpec()
        self.class_thresholds = {}
        self.train_fx_px = KITTI_FX_PX
        self._rectifier = None
        self._network_s = network_s
        rng = np.random.default_rng(0)
        low, high = [5, -20, -1.5, 3, 1.5, 1.4, -3], [60, 20, -0.5, 5, 2, 2, 3]
        self._seen = Detections(
            Boxes3D(rng.uniform(low, high, (boxes, 7))),
            np.sort(rng.uniform(0.3, 1.0, boxes))[::-1],
            tuple(rng.choice(self.class_names, boxes).tolist()),
        )

    def __call__(
        self, image_HW3: np.ndarray, camera: CameraModel, T_cam_ref: np.ndarray
    ) -> Detections:
        """Prepare the image as the network would get it, wait, and give the fixed answer."""
        self.tensors(image_HW3, camera, T_cam_ref)
        if self._network_s > 0:
            time.sleep(self._network_s)
        return self._seen


def fixed_loader(network_s: float = 0.0) -> Callable[[Any], tuple[Detector, float]]:
    """What `DetectorNode` loads such a detector by, in KITTI's reference frame.

    Args:
        network_s: as of `FixedDetector`.
    """
    return lambda parameters: (FixedDetector(network_s), 1.73)
