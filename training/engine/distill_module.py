"""Distillation of a frozen teacher into a student, as a Lightning module."""

from __future__ import annotations

import torch

from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput, StudentOutput
from cmkd_ros.model.spec import AnchorHeadSpec, CenterHeadSpec, NetworkSpec
from cmkd_ros.model.student import Student
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.distill.center_label_loss import center_label_loss, center_targets
from cmkd_ros.training.distill.center_response_loss import center_response_loss
from cmkd_ros.training.distill.depth_loss import depth_loss
from cmkd_ros.training.distill.feature_loss import feature_loss
from cmkd_ros.training.distill.response_loss import anchor_response_loss
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.recipe import DistillWeights, OptimiserSpec, SupervisedWeights
from cmkd_ros.training.teacher.lidar_teacher import TeacherOutput
from cmkd_ros.training.teacher.supervised_loss import anchor_head_loss


class DistillModule(TrainingModule):
    """The student learns the teacher's BEV map (stage 1) and its head maps too (stage 2).

    Labels are not used, but by a centre head on labelled frames (cmkd-spec F4), and where `labels`
    asks for it. The teacher sees the points of the same, equally augmented frame; it is frozen, in
    eval mode, and no part of checkpoints or of the optimiser.
    """

    network: Student

    def __init__(
        self,
        student: Student,
        teacher: torch.nn.Module | None,
        spec: NetworkSpec,
        optimiser: OptimiserSpec,
        weights: DistillWeights,
        labels: SupervisedWeights | None = None,
    ) -> None:
        # Channels last: convolutions in bf16 run several times faster so, on CPUs and GPUs.
        # (The ignore: torch's type stubs lack this form of `to`.)
        student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(student, optimiser)
        self.spec = spec
        self.weights = weights
        self.labels = labels
        # In a list, so that Lightning neither registers, saves nor switches it to train mode.
        self._frozen = [] if teacher is None else [teacher.eval().requires_grad_(False)]

    @property
    def teacher(self) -> torch.nn.Module | None:
        """The frozen teacher, None where only labels and the LiDAR's depth teach."""
        return self._frozen[0] if self._frozen else None

    def on_fit_start(self) -> None:
        for teacher in self._frozen:
            teacher.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """Weighted sum of the losses of cmkd-spec F1-F4, and of F5 where labels teach."""
        # The teacher first: what it needs for a moment is free again when the student's
        # activations are kept.
        with torch.no_grad():
            teacher = None if self.teacher is None else self.teacher(batch.points)
        student = self.network(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
        with torch.autocast(self.device.type, enabled=False):
            terms = self._terms(student, teacher, batch)
        return self.log_terms(terms, len(batch))

    def _terms(
        self, student: StudentOutput, teacher: TeacherOutput | None, batch: Batch
    ) -> dict[str, torch.Tensor]:
        terms = distillation_terms(student, teacher, batch, self.spec, self.weights)
        if self.labels is not None:
            head = self.network.head
            terms |= anchor_label_terms(head, student, batch, self.spec, self.labels)
        return terms


def distillation_terms(
    student: StudentOutput,
    teacher: TeacherOutput | None,
    batch: Batch,
    spec: NetworkSpec,
    weights: DistillWeights,
) -> dict[str, torch.Tensor]:
    """Every weighted loss of cmkd-spec F1-F4 that is switched on, by name.

    Args:
        student, teacher: what both networks gave for the batch; without a teacher what is left
            is the depth, and the labels of a centre head.
        batch: its depth targets; labels count for a centre head only.
        spec: of the student.
        weights: factors; 0 switches the features or the depth off.

    Raises:
        ValueError: maps that differ in shape or kind, or depth targets that are missing.
    """
    terms: dict[str, torch.Tensor] = {}
    if weights.bev and teacher is not None:
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
    match student.head, None if teacher is None else teacher.head:
        case None, _:
            pass
        case AnchorHeadOutput(), None if teacher is None:
            pass
        case CenterHeadOutput() as own, None if teacher is None:
            if bool(batch.labelled_B.any()):
                terms |= _center_label_terms(own, batch, spec, weights)
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


def anchor_label_terms(
    head: torch.nn.Module | None,
    student: StudentOutput,
    batch: Batch,
    spec: NetworkSpec,
    weights: SupervisedWeights,
) -> dict[str, torch.Tensor]:
    """The teachers' detection loss (cmkd-spec F5) of a student on the labelled frames of a batch.

    Args:
        head: of the student.
        student: what it gave for the batch.
        batch: frames without labels do not count.
        spec: of the student.
        weights: factors.

    Returns:
        The terms by name, none where no frame is labelled.

    Raises:
        ValueError: the student has no anchor head.
    """
    maps, of_head = student.head, spec.head
    if not (
        isinstance(head, AnchorHead)
        and isinstance(maps, AnchorHeadOutput)
        and isinstance(of_head, AnchorHeadSpec)
    ):
        raise ValueError(
            f'{spec.name}: labels are for an anchor head, found {of_head.kind}; a centre head '
            'learns from labels by weights.label_cls and weights.label_box'
        )
    labelled = batch.labelled_B.nonzero().squeeze(1).tolist()
    if not labelled:
        return {}
    terms = anchor_head_loss(
        head,
        AnchorHeadOutput(
            maps.cls_logits[labelled], maps.box_deltas[labelled], maps.dir_logits[labelled]
        ),
        [batch.boxes[b] for b in labelled],
        [batch.class_ids[b] for b in labelled],
        [anchor.matched_iou for anchor in of_head.anchors],
        [anchor.unmatched_iou for anchor in of_head.anchors],
        cls_weight=weights.cls,
        box_weight=weights.box,
        dir_weight=weights.dir,
    )
    return {f'label_{name}': value for name, value in terms.as_dict().items()}
