"""Supervised training of a LiDAR teacher, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import OptimiserSpec, TeacherWeights
from cmkd_ros.training.teacher.supervised_loss import anchor_head_loss


class TeacherModule(TrainingModule):
    """Trains a teacher with an anchor head on labelled frames."""

    def __init__(
        self,
        teacher: torch.nn.Module,
        optimiser: OptimiserSpec,
        weights: TeacherWeights,
    ) -> None:
        super().__init__(teacher, optimiser)
        self.weights = weights

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Weighted sum of the classification, box and direction losses."""
        output = self.network(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            terms = anchor_head_loss(
                self.network.head,
                output.head,
                batch.boxes,
                batch.class_ids,
                self.network.matched_iou,
                self.network.unmatched_iou,
                cls_weight=self.weights.cls,
                box_weight=self.weights.box,
                dir_weight=self.weights.dir,
            )
        return self.log_terms(terms.as_dict(), len(batch))
