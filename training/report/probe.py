"""What a student and its teacher make of a few frames.

Letters: C channels, Y X BEV rows and columns, D depth bins, h w feature pixels, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cmkd_ros.geometry import Boxes3D
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import NetworkSpec
from cmkd_ros.model.student import Student
from cmkd_ros.training.data.collate import make_batch
from cmkd_ros.training.data.sample import Sample
from cmkd_ros.training.teacher.lidar_teacher import LidarTeacher


@dataclass(frozen=True)
class Probe:
    """One frame, seen by both networks.

    Attributes:
        sample: the frame.
        student_CYX, teacher_CYX: BEV maps; the teacher's is None without a teacher.
        probability_Dhw: depth distribution of the student over its bins, 'beyond' left out.
        beyond_hw: probability of 'beyond'.
        depth_hw: metres of the LiDAR, 0 where unknown; None where the frame has none.
        found: boxes of the student, None for one without head.
        taught: boxes of the teacher, None without teacher or head.
    """

    sample: Sample
    student_CYX: np.ndarray
    teacher_CYX: np.ndarray | None
    probability_Dhw: np.ndarray
    beyond_hw: np.ndarray
    depth_hw: np.ndarray | None
    found: Boxes3D | None
    taught: Boxes3D | None


@torch.inference_mode()
def probe_frames(
    student: Student, teacher: LidarTeacher | None, spec: NetworkSpec, samples: Sequence[Sample]
) -> list[Probe]:
    """Run both networks in eval mode over frames, one by one."""
    student.eval()
    return [_probe(student, teacher and teacher.eval(), spec, sample) for sample in samples]


def _probe(
    student: Student, teacher: LidarTeacher | None, spec: NetworkSpec, sample: Sample
) -> Probe:
    batch = make_batch([sample], depth_stride=spec.image.stride_px)
    own = student(batch.image_B3HW, batch.cam_to_img_B34, batch.ref_to_cam_B44)
    given = None if teacher is None or batch.points is None else teacher(batch.points)
    probability = own.depth_logits_BDHW[0].float().softmax(0).numpy()
    return Probe(
        sample=sample,
        student_CYX=own.bev_BCYX[0].float().numpy(),
        teacher_CYX=None if given is None else given.bev_BCYX[0].float().numpy(),
        probability_Dhw=probability[:-1],
        beyond_hw=probability[-1],
        depth_hw=None if batch.depth_Bhw is None else batch.depth_Bhw[0].numpy(),
        found=_boxes(student.head, own.head, spec),
        taught=None if teacher is None or given is None else _boxes(teacher.head, given.head, spec),
    )


def _boxes(head: object, maps: object, spec: NetworkSpec) -> Boxes3D | None:
    if head is None or maps is None:
        return None
    boxes_K7 = find_boxes(head, maps, spec.post)[0].boxes_K7  # type: ignore[arg-type]
    return Boxes3D(boxes_K7.double().numpy())
