"""The database of objects, and pasting them into other frames."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cmkd_ros.geometry.overlap import rotated_intersection_bev
from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.augment import InTurn, RandomFlip, TeacherAugmentation
from cmkd_ros.training.data.gt_database import PasteObjects, open_database, points_in_boxes
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.loader import make_loader

CLASSES = ('Car', 'Pedestrian', 'Cyclist')


@pytest.fixture(scope='module')
def frames(shared_dir):
    root = shared_dir / 'kitti_mini'
    return KittiFrames(root, read_frame_list(root / 'ImageSets/train.txt')[:8], CLASSES)


@pytest.fixture(scope='module')
def database(frames, tmp_path_factory):
    return open_database(tmp_path_factory.mktemp('database') / 'gt.safetensors', frames)


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def test_objects_hold_their_points(database):
    assert len(database) > 5
    assert {1, 2} <= set(database.class_ids_K.tolist())
    for index in range(len(database)):
        points = database.points_of(index)
        assert len(points) >= 5
        assert points_in_boxes(points[:, :3], database.boxes_K7[index : index + 1]).all()
    assert sum(len(database.points_of(i)) for i in range(len(database))) == len(database.points_P4)


def test_points_in_boxes_by_the_definition():
    points_N3 = generator().uniform(-4, 4, (3000, 3)).astype(np.float32)
    boxes_M7 = np.array([[0.5, 0, 0, 4, 2, 1.5, 0.7], [-1, 1, 1, 1, 3, 2, -2.5]], np.float32)
    inside_MN = points_in_boxes(points_N3, boxes_M7)
    for (x, y, z, l, w, h, yaw), row_N in zip(boxes_M7.astype(float), inside_MN, strict=True):
        local = (points_N3 - [x, y, z]) @ np.array(
            [[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
        )
        assert np.array_equal(row_N, (np.abs(local) < [l / 2, w / 2, h / 2]).all(axis=1))
        assert row_N.any()


def test_a_second_opening_reads_the_file(frames, tmp_path, caplog):
    path = tmp_path / 'gt.safetensors'
    first = open_database(path, frames)
    written = path.stat().st_mtime_ns
    second = open_database(path, frames)
    assert path.stat().st_mtime_ns == written
    assert np.array_equal(first.points_P4, second.points_P4)
    assert not caplog.records


@pytest.mark.parametrize('damage', ('byte', 'cut', 'classes', 'frames', 'points'))
def test_damaged_and_foreign_files_are_made_anew(shared_dir, frames, tmp_path, caplog, damage):
    path = tmp_path / 'gt.safetensors'
    expected = open_database(path, frames)
    if damage == 'byte':
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
        open_again = frames
    elif damage == 'cut':
        path.write_bytes(path.read_bytes()[:-100])
        open_again = frames
    else:
        root = shared_dir / 'kitti_mini'
        ids = frames.frame_ids[:4] if damage == 'frames' else frames.frame_ids
        open_again = KittiFrames(root, ids, ('Cyclist',) if damage == 'classes' else CLASSES)
    again = open_database(path, open_again, min_points=50 if damage == 'points' else 5)
    assert 'made anew' in caplog.text
    if damage in ('byte', 'cut'):
        assert np.array_equal(again.points_P4, expected.points_P4)
    else:
        assert len(again) < len(expected)


def test_pasted_objects_touch_nothing_and_bring_their_points(frames, database):
    paste = PasteObjects(database, {1: 6, 2: 3, 3: 2})
    pasted_in_all = 0
    for seed in range(12):
        sample = frames[seed % len(frames)]
        after = paste(sample, generator(seed))
        known = len(sample.boxes_M7)
        new_S7 = after.boxes_M7[known:]
        pasted_in_all += len(new_S7)
        assert np.array_equal(after.boxes_M7[:known], sample.boxes_M7)
        assert len(after.class_ids_M) == len(after.boxes_M7)
        shared = rotated_intersection_bev(
            torch.from_numpy(new_S7), torch.from_numpy(after.boxes_M7)
        )
        shared[torch.arange(len(new_S7)), known + torch.arange(len(new_S7))] = 0
        assert (shared == 0).all()
        for box_7 in new_S7:
            index = int(np.flatnonzero((database.boxes_K7 == box_7).all(axis=1))[0])
            inside_N = points_in_boxes(after.points_N4[:, :3], box_7[None])[0]
            assert np.array_equal(after.points_N4[inside_N], database.points_of(index))
    assert pasted_in_all > 20


def test_filling_up_counts_what_is_there(frames, database):
    sample = next(frames[i] for i in range(len(frames)) if (frames[i].class_ids_M == 1).sum() >= 2)
    cars = int((sample.class_ids_M == 1).sum())
    assert PasteObjects(database, {1: cars}, fill_up=True)(sample, generator()) is sample
    for seed in range(5):
        after = PasteObjects(database, {1: cars + 1}, fill_up=True)(sample, generator(seed))
        assert (after.class_ids_M == 1).sum() <= cars + 1


def test_pasting_follows_the_generator_and_works_in_a_loader(frames, database):
    augment = InTurn((PasteObjects(database, {1: 5}), TeacherAugmentation()))
    first, second = (next(iter(make_loader(frames, 2, 5, augment=augment))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.points, second.points, strict=True))
    apart = next(iter(make_loader(frames, 2, 5, augment=augment, workers=1)))
    assert all(torch.equal(a, b) for a, b in zip(first.points, apart.points, strict=True))


def test_steps_run_in_turn(frames):
    sample = frames[0]
    twice = InTurn((RandomFlip(1.0), RandomFlip(1.0)))(sample, generator())
    assert np.array_equal(twice.image_HW3, sample.image_HW3)
    once = InTurn((RandomFlip(1.0), RandomFlip(0.0)))(sample, generator())
    assert not np.array_equal(once.image_HW3, sample.image_HW3)


def test_impossible_requests(shared_dir, frames, database, tmp_path):
    unlabelled = KittiFrames(
        shared_dir / 'kitti_mini', ['000000'], CLASSES, split_folder='unlabeled', labelled=False
    )
    with pytest.raises(ValueError, match='labelled'):
        open_database(tmp_path / 'gt', unlabelled)
    with pytest.raises(ValueError, match='needs a scan'):
        PasteObjects(database, {1: 1})(replace(frames[0], points_N4=None), generator())
