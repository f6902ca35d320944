"""Augmentations of frames: pure functions, and the random draws that call them.

Letters: H W image rows and columns, N points, M labelled boxes. Frames: ref (FLU at the LiDAR).
Students are augmented so that image, scan and labels stay together; teachers, which see no
image, are augmented in the scan only. Source: cmkd-spec A (teachers) and B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from cmkd_ros.geometry.frames import wrap_angle
from cmkd_ros.training.data.frames import Augmentation
from cmkd_ros.training.data.image_space import Float32, image_to_ref, ref_to_image
from cmkd_ros.training.data.sample import Sample


@dataclass(frozen=True)
class InTurn:
    """Several augmentations, one after the other, drawing from the same generator."""

    steps: tuple[Augmentation, ...]

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        for step in self.steps:
            sample = step(sample, generator)
        return sample


@dataclass(frozen=True)
class RandomFlip:
    """Mirror a frame left to right with a probability; the students' only augmentation."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check_probability('RandomFlip', self.probability)

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        return flip_sample(sample) if generator.random() < self.probability else sample


@dataclass(frozen=True)
class TeacherAugmentation:
    """Random flip, rotation and scaling of a scan and its labels, then a shuffle of the points.

    Only for training without images: image, depth and calibration stay and no longer match.

    Attributes:
        flip_probability: of mirroring left to right.
        rotation_rad: largest rotation about z, to either side.
        scale: smallest and largest factor.
        shuffle: reorder the points, so that a full voxel keeps other ones every time.
    """

    flip_probability: float = 0.5
    rotation_rad: float = 0.785
    scale: tuple[float, float] = (0.95, 1.05)
    shuffle: bool = True

    def __post_init__(self) -> None:
        _check_probability('TeacherAugmentation', self.flip_probability)
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f'scale: expected 0 < smallest <= largest, found {self.scale}')

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if generator.random() < self.flip_probability:
            sample = mirror_scan(sample)
        sample = rotate_scan(sample, generator.uniform(-self.rotation_rad, self.rotation_rad))
        sample = scale_scan(sample, generator.uniform(*self.scale))
        if self.shuffle and sample.points_N4 is not None:
            order_N = generator.permutation(len(sample.points_N4))
            sample = replace(sample, points_N4=sample.points_N4[order_N])
        return sample


def flip_sample(sample: Sample) -> Sample:
    """Mirror image, depth, points and boxes left to right, the latter two in image space.

    A point seen at column u is put where one would be seen at width - u, at its own depth (quirk
    kept: the picture itself maps u to width - 1 - u). Calibration and intensities stay.

    Returns:
        The mirrored frame, yaws wrapped to [-pi, pi). Source: cmkd-spec B.
    """
    width = sample.image_HW3.shape[1]
    points_N4 = sample.points_N4
    if points_N4 is not None:
        points_N3 = _mirror_in_image(points_N4[:, :3], sample, width)
        points_N4 = np.concatenate([points_N3, points_N4[:, 3:]], axis=1)
    boxes_M7 = sample.boxes_M7.copy()
    boxes_M7[:, :3] = _mirror_in_image(boxes_M7[:, :3], sample, width)
    boxes_M7[:, 6] = wrap_angle(-boxes_M7[:, 6])
    depth_HW = sample.depth_HW
    return replace(
        sample,
        image_HW3=cv2.flip(sample.image_HW3, 1),
        depth_HW=None if depth_HW is None else cv2.flip(depth_HW, 1),
        points_N4=points_N4,
        boxes_M7=boxes_M7,
    )


def mirror_scan(sample: Sample) -> Sample:
    """Mirror points and boxes at the vertical plane y = 0."""
    points_N4, boxes_M7 = _copies(sample)
    if points_N4 is not None:
        points_N4[:, 1] *= -1
    boxes_M7[:, 1] *= -1
    boxes_M7[:, 6] = wrap_angle(-boxes_M7[:, 6])
    return replace(sample, points_N4=points_N4, boxes_M7=boxes_M7)


def rotate_scan(sample: Sample, angle_rad: float) -> Sample:
    """Turn points and boxes about the z axis of ref, counter-clockwise from above."""
    points_N4, boxes_M7 = _copies(sample)
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn_22 = np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
    if points_N4 is not None:
        points_N4[:, :2] = points_N4[:, :2] @ turn_22.T
    boxes_M7[:, :2] = boxes_M7[:, :2] @ turn_22.T
    boxes_M7[:, 6] = wrap_angle(boxes_M7[:, 6] + angle_rad)
    return replace(sample, points_N4=points_N4, boxes_M7=boxes_M7)


def scale_scan(sample: Sample, factor: float) -> Sample:
    """Scale positions and sizes by a factor, from the origin of ref."""
    points_N4, boxes_M7 = _copies(sample)
    if points_N4 is not None:
        points_N4[:, :3] *= np.float32(factor)
    boxes_M7[:, :6] *= np.float32(factor)
    return replace(sample, points_N4=points_N4, boxes_M7=boxes_M7)


def _mirror_in_image(points_N3: Float32, sample: Sample, width: int) -> Float32:
    pixels_N2, depths_N = ref_to_image(points_N3, sample.ref_to_cam_44, sample.cam_to_img_34)
    pixels_N2[:, 0] = width - pixels_N2[:, 0]
    return image_to_ref(pixels_N2, depths_N, sample.ref_to_cam_44, sample.cam_to_img_34)


def _copies(sample: Sample) -> tuple[Float32 | None, Float32]:
    points_N4 = None if sample.points_N4 is None else sample.points_N4.copy()
    return points_N4, sample.boxes_M7.copy()


def _check_probability(owner: str, probability: float) -> None:
    if not 0 <= probability <= 1:
        raise ValueError(f'{owner}: expected a probability in [0, 1], found {probability}')
