"""KITTI frames: to the bit as the official code reads them, and clear about broken files."""

import shutil

import cv2
import numpy as np
import pytest

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.kitti_files import read_frame_list, read_labels
from cmkd_ros.training.data.augment import flip_sample
from cmkd_ros.training.data.collate import downsample_depth
from cmkd_ros.training.data.frames import ConcatFrames, crop_to_range
from cmkd_ros.training.data.image_space import image_to_ref, inside_image, ref_to_image
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.png import read_png_depth

CLASSES = ('Car', 'Pedestrian', 'Cyclist')
RANGES = {
    'scd_R50_V2': (2, -30.08, -3, 46.8, 30.08, 1),
    'ctp_R50_V2': (2, -30, -3, 46.8, 30, 1),
}


def golden_frames(shared_dir, config, **options) -> KittiFrames:
    return KittiFrames(
        shared_dir / 'goldens',
        ['000000', '000001', '000002'],
        CLASSES,
        split_folder='frames',
        range_m=RANGES[config],
        **options,
    )


def golden_elements(array: np.ndarray, n: int) -> np.ndarray:
    """The elements that the golden files sample (spec K2)."""
    if array.size <= n:
        return array.ravel()
    chosen = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(array.size)
    return array.ravel()[chosen.astype(np.int64)]


@pytest.fixture(scope='module')
def goldens(shared_dir):
    return np.load(shared_dir / 'goldens' / 'data_goldens.npz')


@pytest.mark.parametrize('config', list(RANGES))
@pytest.mark.parametrize('index', range(3))
def test_points_and_calibration_are_the_official_ones(shared_dir, goldens, config, index):
    sample = golden_frames(shared_dir, config)[index]
    key = f'{config}.{index}.'
    assert np.array_equal(sample.ref_to_cam_44, goldens[key + 'trans_lidar_to_cam'])
    assert np.array_equal(sample.cam_to_img_34, goldens[key + 'trans_cam_to_img'])
    assert len(sample.points_N4) == goldens[key + 'counts_raw_fov_range_voxels'][2]
    expected = goldens[key + 'points.samp']
    assert np.array_equal(golden_elements(sample.points_N4, len(expected)), expected)
    assert sample.points_N4.dtype == np.float32


@pytest.mark.parametrize('index', range(3))
def test_the_camera_sees_the_official_number_of_points(shared_dir, goldens, index):
    frames = KittiFrames(
        shared_dir / 'goldens', ['000000', '000001', '000002'], CLASSES, split_folder='frames'
    )
    expected = goldens[f'scd_R50_V2.{index}.counts_raw_fov_range_voxels'][1]
    assert len(frames[index].points_N4) == expected


@pytest.mark.parametrize('index', range(3))
def test_boxes_and_depth_are_the_official_ones(shared_dir, goldens, index):
    sample = golden_frames(shared_dir, 'scd_R50_V2', with_depth=True)[index]
    expected_M8 = goldens[f'scd_R50_V2.{index}.gt_boxes']
    np.testing.assert_allclose(sample.boxes_M7, expected_M8[:, :7], atol=1e-5)
    assert sample.class_ids_M.tolist() == expected_M8[:, 7].tolist()
    expected_hw = goldens[f'scd_R50_V2.{index}.depth_map_ds8']
    assert np.array_equal(downsample_depth(sample.depth_HW, 8), expected_hw)


@pytest.mark.parametrize('config', list(RANGES))
@pytest.mark.parametrize('index', (1, 2))
def test_flipped_frames_are_the_official_ones(shared_dir, goldens, config, index):
    sample = golden_frames(shared_dir, config).sample(index, flip_sample)
    key = f'{config}.{index}.flip.'
    assert list(sample.points_N4.shape) == goldens[key + 'points.shape'].tolist()
    expected = goldens[key + 'points.samp']
    np.testing.assert_allclose(
        golden_elements(sample.points_N4, len(expected)), expected, atol=1e-4
    )
    pixels = sample.image_HW3.astype(np.float32) / np.float32(255)
    expected = goldens[key + 'image.samp']
    np.testing.assert_allclose(golden_elements(pixels, len(expected)), expected, atol=1e-7)
    if config == 'scd_R50_V2':
        np.testing.assert_allclose(sample.boxes_M7, goldens[key + 'gt_boxes'][:, :7], atol=1e-4)


def test_all_kitti_mini_frames_read_and_labels_survive_the_round_trip(shared_dir):
    root = shared_dir / 'kitti_mini'
    frames = KittiFrames(root, read_frame_list(root / 'ImageSets/train.txt'), CLASSES)
    assert len(frames) == 27
    for sample in (frames[index] for index in range(len(frames))):
        labels = read_labels(root / 'training/label_2' / f'{sample.frame_id}.txt')
        wanted = labels.select([i for i, name in enumerate(labels.names) if name in CLASSES])
        locations_N3, dimensions_N3, _, _ = Boxes3D(sample.boxes_M7).to_kitti(sample.ref_to_cam_44)
        np.testing.assert_allclose(locations_N3, wanted.locations_N3, atol=1e-3)
        np.testing.assert_allclose(dimensions_N3, wanted.dimensions_N3, atol=1e-5)
        assert [CLASSES[i - 1] for i in sample.class_ids_M] == list(wanted.names)


def test_pixels_and_points_are_inverse(made_kitti):
    sample = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)[0]
    pixels_N2, depths_N = ref_to_image(
        sample.points_N4[:, :3], sample.ref_to_cam_44, sample.cam_to_img_34
    )
    assert inside_image(pixels_N2, depths_N, sample.image_HW3.shape[:2]).all()
    back_N3 = image_to_ref(pixels_N2, depths_N, sample.ref_to_cam_44, sample.cam_to_img_34)
    np.testing.assert_allclose(back_N3, sample.points_N4[:, :3], atol=1e-4)


def test_depth_from_the_lidar_keeps_the_nearest_point_of_each_pixel(made_kitti):
    sample = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES, with_depth=True)[0]
    slow_HW = np.full(sample.image_HW3.shape[:2], np.inf)
    pixels_N2, depths_N = ref_to_image(
        sample.points_N4[:, :3], sample.ref_to_cam_44, sample.cam_to_img_34
    )
    for (u, v), depth in zip(pixels_N2, depths_N, strict=True):
        slow_HW[int(v), int(u)] = min(slow_HW[int(v), int(u)], depth)
    slow_HW[np.isinf(slow_HW)] = 0
    assert (slow_HW > 0).sum() > 50
    assert np.abs(sample.depth_HW - slow_HW).max() <= 0.5 / 256 + 1e-6
    assert np.array_equal(sample.depth_HW * 256, np.round(sample.depth_HW * 256))


def test_depth_maps_of_the_folder_come_before_the_lidar(made_kitti):
    folder = made_kitti.root / 'training/depth_2'
    folder.mkdir()
    for frame in made_kitti.frames:
        size = cv2.imread(str(made_kitti.root / f'training/image_2/{frame}.png')).shape[:2]
        cv2.imwrite(str(folder / f'{frame}.png'), np.full(size, 1280, dtype=np.uint16))
    shutil.rmtree(made_kitti.root / 'training/velodyne')
    frames = KittiFrames(
        made_kitti.root, made_kitti.frames, CLASSES, with_points=False, with_depth=True
    )
    assert (frames[0].depth_HW == 5.0).all()
    assert frames[0].points_N4 is None
    cv2.imwrite(str(folder / '000001.png'), np.zeros((7, 9), dtype=np.uint16))
    with pytest.raises(ValueError, match=r'depth_2/000001.png.*found \(7, 9\)'):
        frames[1]
    cv2.imwrite(str(folder / '000001.png'), np.zeros((7, 9), dtype=np.uint8))
    with pytest.raises(ValueError, match=r'depth_2/000001.png.*16-bit'):
        read_png_depth(folder / '000001.png')


def test_unlabelled_frames_need_no_labels(made_kitti):
    shutil.rmtree(made_kitti.root / 'training/label_2')
    sample = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES, labelled=False)[0]
    assert not sample.labelled
    assert sample.boxes_M7.shape == (0, 7)
    assert sample.class_ids_M.shape == (0,)


def test_teachers_need_no_pixels(made_kitti):
    seen, black = (
        KittiFrames(made_kitti.root, made_kitti.frames, CLASSES, with_image=with_image)[1]
        for with_image in (True, False)
    )
    assert black.image_HW3.shape == seen.image_HW3.shape
    assert not black.image_HW3.any()
    assert np.array_equal(black.points_N4, seen.points_N4)


def test_crop_keeps_boxes_with_any_corner_inside(made_kitti):
    sample = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES)[0]
    x, y, z, l, w, h, _ = sample.boxes_M7[0]
    just_in = (x + l / 2 - 0.1, y + w / 2 - 0.1, -3, 46.8, 30, 1)
    just_out = (x + l / 2 + 0.1, y + w / 2 - 0.1, -3, 46.8, 30, 1)
    too_low = (2, -30, z + h / 2 + 0.1, 46.8, 30, 5)
    assert len(crop_to_range(sample, just_in).boxes_M7) == 1
    assert len(crop_to_range(sample, just_out).boxes_M7) == 0
    cropped = crop_to_range(sample, too_low)
    assert len(cropped.boxes_M7) == len(cropped.class_ids_M) == 0
    assert (cropped.points_N4[:, 2] < too_low[2]).any(), 'points are not filtered by z'


def test_cached_frames_are_equal_and_read_once(made_kitti):
    frames = KittiFrames(made_kitti.root, made_kitti.frames, CLASSES, cache=True)
    first = frames[3]
    shutil.rmtree(made_kitti.root / 'training/image_2')
    again = frames[3]
    assert np.array_equal(first.image_HW3, again.image_HW3)
    with pytest.raises(FileNotFoundError, match=r'image_2/000004.png'):
        frames[4]


def test_concatenated_frames_keep_order_range_and_labels(made_kitti):
    near = (2, -30, -3, 30, 30, 1)
    labelled = KittiFrames(made_kitti.root, made_kitti.frames[:2], CLASSES, range_m=near)
    unlabelled = KittiFrames(made_kitti.root, made_kitti.frames[2:], CLASSES, labelled=False)
    both = ConcatFrames([labelled, unlabelled])
    assert both.frame_ids == made_kitti.frames
    assert [both[i].frame_id for i in range(len(both))] == list(made_kitti.frames)
    assert [both[i].labelled for i in range(3)] == [True, True, False]
    assert both[1].points_N4[:, 0].max() <= 30 < both[2].points_N4[:, 0].max()
    with pytest.raises(IndexError):
        both[6]
    with pytest.raises(ValueError, match='at least one'):
        ConcatFrames([])
