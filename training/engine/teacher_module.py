"""Supervised training of a LiDAR teacher, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import OptimiserSpec, TeacherWeights
from cmkd_ros.training.teacher.pointpillars import PointPillars
from cmkd_ros.training.teacher.supervised_loss import anchor_head_loss


class TeacherModule(TrainingModule):
    """Trains a teacher with an anchor head on labelled frames."""

    def __init__(
        self,
        teacher: PointPillars,
        optimiser: OptimiserSpec,
        weights: TeacherWeights,
    ) -> None:
        if teacher.head is None:
            raise ValueError('a teacher without head cannot learn from labels')
        super().__init__(teacher, optimiser)
        self.anchor_head = [teacher.head]  # in a list: it is a part of the network already
        self.matched_iou = teacher.matched_iou
        self.unmatched_iou = teacher.unmatched_iou
        self.weights = weights

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Weighted sum of the classification, box and direction losses."""
        output = self.network(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            terms = anchor_head_loss(
                self.anchor_head[0],
                output.head,
                batch.boxes,
                batch.class_ids,
                self.matched_iou,
                self.unmatched_iou,
                cls_weight=self.weights.cls,
                box_weight=self.weights.box,
                dir_weight=self.weights.dir,
            )
        return self.log_terms(terms.as_dict(), len(batch))
