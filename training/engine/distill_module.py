"""Distillation of a frozen teacher into a student, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, StudentOutput
from cmkd_ros.model.spec import CenterHeadSpec, NetworkSpec
from cmkd_ros.model.student import Student
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.distill.center_label_loss import center_label_loss, center_targets
from cmkd_ros.training.distill.center_response_loss import center_response_loss
from cmkd_ros.training.distill.depth_loss import depth_loss
from cmkd_ros.training.distill.feature_loss import feature_loss
from cmkd_ros.training.distill.response_loss import anchor_response_loss
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import DistillWeights, OptimiserSpec
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput


class DistillModule(TrainingModule):
    """The student learns the teacher's BEV map (stage 1) and its head maps too (stage 2).

    Labels are not used, but by a centre head on labelled frames (cmkd-spec F4). The teacher sees
    the points of the same, equally augmented frame; it is frozen, in eval mode, and no part of
    checkpoints or of the optimiser.
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
        self.spec = spec
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
        # The teacher first: what it needs for a moment is free again when the student's
        # activations are kept.
        with torch.no_grad():
            teacher = self.teacher(batch.points)
        student = self.network(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
        with torch.autocast(self.device.type, enabled=False):
            terms = self._terms(student, teacher, batch)
        return self.log_terms(terms, len(batch))

    def _terms(
        self, student: StudentOutput, teacher: TeacherOutput, batch: Batch
    ) -> dict[str, torch.Tensor]:
        return distillation_terms(student, teacher, batch, self.spec, self.weights)


def distillation_terms(
    student: StudentOutput,
    teacher: TeacherOutput,
    batch: Batch,
    spec: NetworkSpec,
    weights: DistillWeights,
) -> dict[str, torch.Tensor]:
    """Every weighted loss of cmkd-spec F1-F4 that is switched on, by name.

    Args:
        student, teacher: what both networks gave for the batch.
        batch: its depth targets; labels count for a centre head only.
        spec: of the student.
        weights: factors; 0 switches the features or the depth off.

    Raises:
        ValueError: maps that differ in shape or kind, or depth targets that are missing.
    """
    terms: dict[str, torch.Tensor] = {}
    if weights.bev:
        terms |= feature_loss(student.bev_BCYX, teacher.bev_BCYX, weights.bev).as_dict()
    if weights.depth:
        if batch.depth_Bhw is None:
            raise ValueError('weights.depth > 0 but the frames carry no depth targets')
        bins = spec.depth
        terms |= depth_loss(
            student.depth_logits_BDHW,
            batch.depth_Bhw,
            bins.mode,
            bins.min_m,
            bins.max_m,
            weights.depth,
        ).as_dict()
    match student.head, teacher.head:
        case None, _:
            pass
        case AnchorHeadOutput() as own, AnchorHeadOutput() as given:
            terms |= anchor_response_loss(
                own,
                given,
                len(spec.classes),
                cls_weight=weights.cls,
                box_weight=weights.box,
                dir_weight=weights.dir,
            ).as_dict()
        case CenterHeadOutput() as own, CenterHeadOutput() as given:
            terms |= center_response_loss(own, given, weights.cls, weights.box).as_dict()
            if bool(batch.labelled_B.any()):
                terms |= _center_label_terms(own, batch, spec, weights)
        case own, given:
            raise ValueError(
                f'the heads of student and teacher differ: {type(own).__name__} and '
                f'{type(given).__name__}'
            )
    return terms


def _center_label_terms(
    maps: CenterHeadOutput, batch: Batch, spec: NetworkSpec, weights: DistillWeights
) -> dict[str, torch.Tensor]:
    head = spec.head
    if not isinstance(head, CenterHeadSpec):
        raise ValueError(f'{spec.name}: centre maps from a head of kind {head.kind}')
    targets = [
        center_targets(
            boxes_M7,
            class_ids_M,
            len(spec.classes),
            spec.grid.range_m,
            (maps.hm.shape[2], maps.hm.shape[3]),
            head.gaussian_overlap,
            head.min_radius,
        )
        if labelled
        else None
        for boxes_M7, class_ids_M, labelled in zip(
            batch.boxes, batch.class_ids, batch.labelled_B.tolist(), strict=True
        )
    ]
    return center_label_loss(maps, targets, weights.label_cls, weights.label_box).as_dict()
