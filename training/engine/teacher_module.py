"""Supervised training of a LiDAR teacher, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import OptimiserSpec, SupervisedWeights
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher


class TeacherModule(TrainingModule):
    """Trains a teacher on labelled frames, by the loss that belongs to it."""

    network: LidarTeacher

    def __init__(
        self,
        teacher: LidarTeacher,
        optimiser: OptimiserSpec,
        weights: SupervisedWeights,
    ) -> None:
        if teacher.head is None:
            raise ValueError('a teacher without head cannot learn from labels')
        super().__init__(teacher, optimiser)
        self.weights = weights

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Weighted sum of the terms of `LidarTeacher.loss`."""
        output = self.network(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.network.loss(
                output.head,
                batch.boxes,
                batch.class_ids,
                cls_weight=self.weights.cls,
                box_weight=self.weights.box,
                dir_weight=self.weights.dir,
            )
        return self.log_terms(terms.as_dict(), len(batch))
