"""Augmentations: closed-form cases, inverses, and what must stay together."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.training.data.augment import (
    RandomFlip,
    TeacherAugmentation,
    flip_sample,
    mirror_scan,
    rotate_scan,
    scale_scan,
)
from cmkd_ros.training.data.image_space import ref_to_image
from cmkd_ros.training.data.kitti import KittiFrames


@pytest.fixture()
def sample(made_kitti):
    return KittiFrames(made_kitti.root, made_kitti.frames, ('Car', 'Van'), with_depth=True)[0]


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def points_in_boxes(sample) -> list[int]:
    """How many points each box holds, by the definition."""
    counts = []
    for x, y, z, l, w, h, yaw in sample.boxes_M7.astype(np.float64):
        dx, dy, dz = (sample.points_N4[:, :3] - [x, y, z]).T
        along = dx * math.cos(yaw) + dy * math.sin(yaw)
        across = -dx * math.sin(yaw) + dy * math.cos(yaw)
        inside = (abs(along) < l / 2) & (abs(across) < w / 2) & (abs(dz) < h / 2)
        counts.append(int(inside.sum()))
    return counts


def with_points_in_boxes(sample):
    """The same frame with 50 more points within each box, 2 cm from its faces or farther."""
    centred = generator(5).uniform(-0.5, 0.5, (len(sample.boxes_M7), 50, 3))
    clouds = []
    for box_7, points_N3 in zip(sample.boxes_M7.astype(np.float64), centred, strict=True):
        local_N3 = points_N3 * (box_7[3:6] - 0.04)
        cos, sin = math.cos(box_7[6]), math.sin(box_7[6])
        turned_N3 = local_N3 @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).T
        clouds.append(np.column_stack([turned_N3 + box_7[:3], np.ones(len(points_N3))]))
    points_N4 = np.concatenate([sample.points_N4[:0], *clouds]).astype(np.float32)
    return replace(sample, points_N4=points_N4)


def test_flip_mirrors_columns_at_their_own_depth(sample):
    flipped = flip_sample(sample)
    width = sample.image_HW3.shape[1]
    for before_N3, after_N3 in (
        (sample.points_N4[:, :3], flipped.points_N4[:, :3]),
        (sample.boxes_M7[:, :3], flipped.boxes_M7[:, :3]),
    ):
        before = ref_to_image(before_N3, sample.ref_to_cam_44, sample.cam_to_img_34)
        after = ref_to_image(after_N3, sample.ref_to_cam_44, sample.cam_to_img_34)
        np.testing.assert_allclose(after[0][:, 0], width - before[0][:, 0], atol=2e-3)
        np.testing.assert_allclose(after[0][:, 1], before[0][:, 1], atol=2e-3)
        np.testing.assert_allclose(after[1], before[1], atol=1e-4)
    assert np.array_equal(flipped.points_N4[:, 3], sample.points_N4[:, 3])
    assert np.array_equal(flipped.image_HW3, sample.image_HW3[:, ::-1])
    assert np.array_equal(flipped.depth_HW, sample.depth_HW[:, ::-1])
    np.testing.assert_allclose(flipped.boxes_M7[:, 6], -sample.boxes_M7[:, 6], atol=1e-6)
    assert np.array_equal(flipped.cam_to_img_34, sample.cam_to_img_34)


def test_flip_twice_is_the_frame_itself(sample):
    twice = flip_sample(flip_sample(sample))
    np.testing.assert_allclose(twice.points_N4, sample.points_N4, atol=1e-4)
    np.testing.assert_allclose(twice.boxes_M7, sample.boxes_M7, atol=1e-4)
    assert np.array_equal(twice.image_HW3, sample.image_HW3)


def test_flip_without_points_depth_or_boxes(sample):
    bare = replace(
        sample,
        points_N4=None,
        depth_HW=None,
        boxes_M7=sample.boxes_M7[:0],
        class_ids_M=sample.class_ids_M[:0],
    )
    flipped = flip_sample(bare)
    assert flipped.points_N4 is None
    assert flipped.depth_HW is None
    assert flipped.boxes_M7.shape == (0, 7)


@pytest.mark.parametrize('probability', (0.0, 0.3, 1.0))
def test_flips_come_as_often_as_asked(sample, probability):
    flip = RandomFlip(probability)
    draws = generator()
    flips = sum(flip(sample, draws) is not sample for _ in range(300))
    expected = 300 * probability
    assert abs(flips - expected) <= 4 * math.sqrt(expected * (1 - probability))


def test_mirrored_scan(sample):
    mirrored = mirror_scan(sample)
    assert np.array_equal(mirrored.points_N4, sample.points_N4 * [1, -1, 1, 1])
    assert np.array_equal(mirrored.boxes_M7[:, 1], -sample.boxes_M7[:, 1])


def test_quarter_turn_takes_x_to_y(sample):
    turned = rotate_scan(sample, math.pi / 2)
    x_N, y_N = sample.points_N4[:, 0], sample.points_N4[:, 1]
    np.testing.assert_allclose(turned.points_N4[:, 0], -y_N, atol=1e-5)
    np.testing.assert_allclose(turned.points_N4[:, 1], x_N, atol=1e-5)
    np.testing.assert_allclose(np.cos(turned.boxes_M7[:, 6] - sample.boxes_M7[:, 6]), 0, atol=1e-6)
    assert (turned.boxes_M7[:, 6] >= -math.pi).all()
    assert (turned.boxes_M7[:, 6] < math.pi).all()


def test_scaled_scan(sample):
    scaled = scale_scan(sample, 1.05)
    np.testing.assert_allclose(scaled.points_N4[:, :3], sample.points_N4[:, :3] * 1.05, rtol=1e-6)
    assert np.array_equal(scaled.points_N4[:, 3], sample.points_N4[:, 3])
    np.testing.assert_allclose(scaled.boxes_M7[:, :6], sample.boxes_M7[:, :6] * 1.05, rtol=1e-6)
    assert np.array_equal(scaled.boxes_M7[:, 6], sample.boxes_M7[:, 6])


@pytest.mark.parametrize('seed', range(20))
def test_points_stay_in_their_boxes(sample, seed):
    full = with_points_in_boxes(sample)
    assert points_in_boxes(full) == [50, 50]
    augmented = TeacherAugmentation()(full, generator(seed))
    assert points_in_boxes(augmented) == [50, 50]
    assert points_in_boxes(mirror_scan(full)) == [50, 50]


def test_augmentations_leave_their_input_alone(sample):
    before = sample.points_N4.copy(), sample.boxes_M7.copy(), sample.image_HW3.copy()
    flip_sample(sample)
    for seed in range(4):
        TeacherAugmentation()(sample, generator(seed))
    assert np.array_equal(sample.points_N4, before[0])
    assert np.array_equal(sample.boxes_M7, before[1])
    assert np.array_equal(sample.image_HW3, before[2])


def test_teacher_augmentation_draws_within_its_limits_and_follows_the_generator(sample):
    augmentation = TeacherAugmentation(flip_probability=0.0, shuffle=False)
    for seed in range(30):
        augmented = augmentation(sample, generator(seed))
        factor = augmented.boxes_M7[0, 3] / sample.boxes_M7[0, 3]
        assert 0.95 - 1e-6 <= factor <= 1.05 + 1e-6
        turn = augmented.boxes_M7[0, 6] - sample.boxes_M7[0, 6]
        assert abs(turn) <= 0.785 + 1e-6
        again = augmentation(sample, generator(seed))
        assert np.array_equal(again.points_N4, augmented.points_N4)
    shuffled = TeacherAugmentation(0.0, 0.0, (1.0, 1.0))(sample, generator())
    assert not np.array_equal(shuffled.points_N4, sample.points_N4)
    assert np.array_equal(np.sort(shuffled.points_N4, axis=0), np.sort(sample.points_N4, axis=0))
    assert np.array_equal(Boxes3D(shuffled.boxes_M7).array_N7, Boxes3D(sample.boxes_M7).array_N7)


def test_impossible_settings():
    with pytest.raises(ValueError, match=r'\[0, 1\], found 1.5'):
        RandomFlip(1.5)
    with pytest.raises(ValueError, match='smallest <= largest'):
        TeacherAugmentation(scale=(1.1, 0.9))
