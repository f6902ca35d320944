"""Distillation of a frozen teacher into a student, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.model.outputs import AnchorHeadOutput, StudentOutput
from cmkd_ros.model.spec import NetworkSpec
from cmkd_ros.model.student import Student
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.distill.depth_loss import depth_loss
from cmkd_ros.training.distill.feature_loss import feature_loss
from cmkd_ros.training.distill.response_loss import anchor_response_loss
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import DistillWeights, OptimiserSpec
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput


class DistillModule(TrainingModule):
    """The student learns the teacher's BEV map (stage 1) and its head maps too (stage 2).

    Labels are never used. The teacher sees the points of the same, equally augmented frame; it is
    frozen, in eval mode, and no part of checkpoints or of the optimiser.
    """

    def __init__(
        self,
        student: Student,
        teacher: torch.nn.Module,
        spec: NetworkSpec,
        optimiser: OptimiserSpec,
        weights: DistillWeights,
    ) -> None:
        # Channels last: convolutions in bf16 run several times faster so, on CPUs and GPUs.
        # (The ignore: torch's type stubs lack this form of `to`.)
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(student, optimiser)
        self.depth_bins = spec.depth
        self.n_classes = len(spec.classes)
        self.weights = weights
        # In a list, so that Lightning neither registers, saves nor switches it to train mode.
        self._frozen = [teacher.eval().requires_grad_(False)]

    @property
    def teacher(self) -> torch.nn.Module:
        """The frozen teacher."""
        return self._frozen[0]

    def on_fit_start(self) -> None:
        self.teacher.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Weighted sum of the distillation losses of cmkd-spec F1-F4."""
        student = self.network(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
        with torch.no_grad():
            teacher = self.teacher(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            terms = self._terms(student, teacher, batch)
        return self.log_terms(terms, len(batch))

    def _terms(
        self, student: StudentOutput, teacher: TeacherOutput, batch: Batch
    ) -> dict[str, torch.Tensor]:
        weights = self.weights
        terms: dict[str, torch.Tensor] = {}
        if weights.bev:
            terms |= feature_loss(student.bev_BCYX, teacher.bev_BCYX, weights.bev).as_dict()
        if weights.depth:
            if batch.depth_Bhw is None:
                raise ValueError('weights.depth > 0 but the frames carry no depth targets')
            bins = self.depth_bins
            terms |= depth_loss(
                student.depth_logits_BDHW,
                batch.depth_Bhw,
                bins.mode,
                bins.min_m,
                bins.max_m,
                weights.depth,
            ).as_dict()
        if isinstance(student.head, AnchorHeadOutput):
            if not isinstance(teacher.head, AnchorHeadOutput):
                raise ValueError('the student has an anchor head, the teacher has not')
            terms |= anchor_response_loss(
                student.head,
                teacher.head,
                self.n_classes,
                cls_weight=weights.cls,
                box_weight=weights.box,
                dir_weight=weights.dir,
            ).as_dict()
        return terms
