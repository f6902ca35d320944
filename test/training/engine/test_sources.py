"""Frames and augmentations as recipes ask for them."""

from dataclasses import replace

import numpy as np
import pytest

from cmkd_ros.training.data.augment import TeacherAugmentation
from cmkd_ros.training.data.gt_database import PasteObjects, join_databases, open_database
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.engine.recipe import DataSpec, SourceSpec, TeacherAugment
from cmkd_ros.training.engine.sources import open_frames, teacher_augmentation

CLASSES = ('Car', 'Pedestrian', 'Cyclist')
RANGE_M = (2.0, -30.08, -3.0, 46.8, 30.08, 1.0)


def data_of(*sources: SourceSpec) -> DataSpec:
    return DataSpec(sources=sources)


def test_labelled_and_unlabelled_sources_follow_each_other(drive, tmp_path):
    listed = tmp_path / 'two.txt'
    listed.write_text('000004\n000001\n')
    frames = open_frames(
        data_of(SourceSpec(root=drive), SourceSpec(root=drive, frames=listed, labelled=False)),
        CLASSES, RANGE_M, with_depth=True,
    )  # fmt: skip
    assert frames.frame_ids == (*(f'{n:06d}' for n in range(6)), '000004', '000001')
    assert [frames[i].labelled for i in (0, 7)] == [True, False]
    assert frames[7].depth_HW is not None
    assert frames[0].image_HW3.any()


def test_teachers_are_spared_the_pictures(drive):
    data = data_of(SourceSpec(root=drive))
    seen = open_frames(data, CLASSES, RANGE_M, with_depth=False)[2]
    spared = open_frames(data, CLASSES, RANGE_M, with_depth=False, with_image=False)[2]
    assert not spared.image_HW3.any()
    for name in ('points_N4', 'boxes_M7', 'class_ids_M'):
        assert np.array_equal(getattr(spared, name), getattr(seen, name))


def test_raw_recordings_are_a_source(shared_dir, tmp_path):
    """As the official students on KITTI train and Eigen clean have them."""
    entry = '2011_09_26/2011_09_26_drive_0005_sync/image_02/data/0000000040'
    listed = tmp_path / 'eigen.txt'
    listed.write_text(f'{entry}\n')
    raw = SourceSpec(
        layout='raw', root=shared_dir / 'samples/kitti_raw', frames=listed, labelled=False
    )
    objects = SourceSpec(root=shared_dir / 'goldens', folder='frames', labelled=False)
    frames = open_frames(data_of(objects, raw), CLASSES, RANGE_M, with_depth=False)
    assert frames.frame_ids == ('000000', '000001', '000002', entry)
    sample = frames[3]
    assert (sample.image_HW3.shape, sample.labelled) == ((375, 1242, 3), False)
    assert sample.depth_HW is None
    x_N, y_N = sample.points_N4[:, 0], sample.points_N4[:, 1]
    assert x_N.min() >= 2
    assert np.abs(y_N).max() <= 30.08


def test_without_objects_to_paste_only_the_scan_changes(drive, tmp_path):
    spec = TeacherAugment(flip=0.25, rotation_rad=0.1, scale=(0.9, 1.0), shuffle=False)
    augment = teacher_augmentation(spec, data_of(SourceSpec(root=drive)), CLASSES, tmp_path)
    assert augment == TeacherAugmentation(0.25, 0.1, (0.9, 1.0), False)
    assert not list(tmp_path.iterdir())


def test_objects_of_all_labelled_sources_are_pasted(drive, tmp_path):
    spec = TeacherAugment(
        flip=0, rotation_rad=0, scale=(1, 1), shuffle=False, paste={'Car': 30, 'Cyclist': 0}
    )
    first, last = tmp_path / 'first.txt', tmp_path / 'last.txt'
    first.write_text('000000\n')
    last.write_text('000005\n')
    data = data_of(
        SourceSpec(root=drive, frames=first),
        SourceSpec(root=drive, labelled=False),
        SourceSpec(root=drive, frames=last),
    )
    augment = teacher_augmentation(spec, data, CLASSES, tmp_path)
    kept = sorted(path.name for path in tmp_path.glob('*.safetensors'))
    assert kept == ['objects_0.safetensors', 'objects_2.safetensors']
    paste = augment.steps[0]
    assert isinstance(paste, PasteObjects)
    assert paste.wanted == {1: 30, 3: 0}

    sample = open_frames(data, CLASSES, RANGE_M, with_depth=False)[0]
    empty = replace(
        sample,
        points_N4=sample.points_N4[:0],
        boxes_M7=sample.boxes_M7[:0],
        class_ids_M=sample.class_ids_M[:0],
    )
    fuller = augment(empty, np.random.default_rng(1))
    assert len(fuller.boxes_M7) > 0
    assert set(fuller.class_ids_M.tolist()) == {1}
    assert len(fuller.points_N4) >= 5 * len(fuller.boxes_M7)


def test_a_joined_database_has_the_points_of_each_object(drive, tmp_path):
    frames = [
        KittiFrames(drive, names, CLASSES)
        for names in (['000000', '000001'], ['000003'], ['000004', '000005'])
    ]
    parts = [open_database(tmp_path / f'{i}.safetensors', f) for i, f in enumerate(frames)]
    joined = join_databases(parts)
    assert len(joined) == sum(len(part) for part in parts) >= 3
    objects = [(part, index) for part in parts for index in range(len(part))]
    for index, (part, own) in enumerate(objects):
        assert np.array_equal(joined.points_of(index), part.points_of(own))
        assert np.array_equal(joined.boxes_K7[index], part.boxes_K7[own])
        assert joined.class_ids_K[index] == part.class_ids_K[own]


def test_what_cannot_be_pasted_is_named(drive, tmp_path):
    spec = TeacherAugment(paste={'Tram': 3})
    with pytest.raises(ValueError, match=r'augment.paste: Tram: not among the classes Car'):
        teacher_augmentation(spec, data_of(SourceSpec(root=drive)), CLASSES, tmp_path)
    unlabelled = data_of(SourceSpec(root=drive, labelled=False))
    with pytest.raises(ValueError, match='needs a labelled source'):
        teacher_augmentation(TeacherAugment(paste={'Car': 3}), unlabelled, CLASSES, tmp_path)
