"""A detector that takes a given time and always sees the same, so that the node itself is seen."""

from __future__ import annotations

import time

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
        image_HW3, camera = self.prepare(image_HW3, camera)
        if not image_HW3.flags.writeable or not image_HW3.flags.c_contiguous:
            image_HW3 = image_HW3.copy()
        torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float().div_(255.0)
        self._matrix(camera.projection_px_34)
        self._matrix(T_cam_ref)
        if self._network_s > 0:
            time.sleep(self._network_s)
        return self._seen
