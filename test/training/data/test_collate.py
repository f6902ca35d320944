"""Batches: padding, canvas, depth targets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.training.data.collate import downsample_depth, make_batch
from cmkd_ros.training.data.kitti import KittiFrames


@pytest.fixture()
def samples(made_kitti):
    frames = KittiFrames(made_kitti.root, made_kitti.frames, ('Car', 'Van'), with_depth=True)
    return [frames[index] for index in range(3)]


def test_batch_pads_to_the_largest_with_nan(samples):
    batch = make_batch(samples)
    assert batch.image_B3HW.shape == (3, 3, 41, 120)
    assert batch.image_B3HW.dtype == torch.float32
    for sample, image_3HW, size in zip(
        samples, batch.image_B3HW, batch.image_sizes_B2, strict=True
    ):
        height, width = sample.image_HW3.shape[:2]
        assert size.tolist() == [height, width]
        expected = sample.image_HW3.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        assert np.array_equal(image_3HW[:, :height, :width].numpy(), expected)
        assert image_3HW[:, height:].isnan().all()
        assert image_3HW[:, :, width:].isnan().all()
    assert len(batch) == 3
    assert batch.frame_ids == ('000000', '000001', '000002')


def test_batch_carries_everything(samples):
    samples[1] = replace(
        samples[1], labelled=False, boxes_M7=samples[1].boxes_M7[:0], class_ids_M=np.zeros(0, int)
    )
    batch = make_batch(samples)
    assert batch.labelled_B.tolist() == [True, False, True]
    assert [len(boxes) for boxes in batch.boxes] == [2, 0, 2]
    for index, sample in enumerate(samples):
        assert np.array_equal(batch.points[index].numpy(), sample.points_N4)
        assert np.array_equal(batch.boxes[index].numpy(), sample.boxes_M7)
        assert np.array_equal(batch.class_ids[index].numpy(), sample.class_ids_M)
        assert np.array_equal(batch.cam_to_img_B34[index].numpy(), sample.cam_to_img_34)
        assert np.array_equal(batch.ref_to_cam_B44[index].numpy(), sample.ref_to_cam_44)
    batch.points[0].fill_(0)
    assert samples[0].points_N4.any(), 'a batch must not share memory with a cached frame'


def test_a_fixed_canvas_does_not_depend_on_the_neighbours(samples):
    alone = make_batch(samples[:1], canvas=(48, 128))
    together = make_batch(samples, canvas=(48, 128))
    assert together.image_B3HW.shape == (3, 3, 48, 128)
    assert together.depth_Bhw.shape == (3, 6, 16)
    torch.testing.assert_close(
        alone.image_B3HW[0], together.image_B3HW[0], rtol=0, atol=0, equal_nan=True
    )
    torch.testing.assert_close(
        alone.depth_Bhw[0], together.depth_Bhw[0], rtol=0, atol=0, equal_nan=True
    )


def test_an_image_larger_than_the_canvas_is_named(samples):
    with pytest.raises(ValueError, match='frame 000001: image of 41 x 117.*canvas 40 x 128'):
        make_batch(samples, canvas=(40, 128))


def test_depth_targets_end_where_the_image_ends(samples):
    batch = make_batch(samples)
    assert batch.depth_Bhw.shape == (3, 6, 15)
    # 40 rows are 5 cells, the sixth is padding; 41 rows reach into the sixth.
    assert batch.depth_Bhw[0, 5].isnan().all()
    assert not batch.depth_Bhw[0, :5].isnan().any()
    assert not batch.depth_Bhw[1].isnan().any()
    assert make_batch(samples, depth_stride=16).depth_Bhw.shape == (3, 3, 8)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    stride=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_depth_is_the_mean_of_the_known_pixels(height, width, stride, seed):
    generator = np.random.Generator(np.random.PCG64(seed))
    steps_HW = generator.integers(1, 80 * 256, (height, width))
    steps_HW[generator.random((height, width)) < 0.6] = 0
    depth_HW = (steps_HW / 256).astype(np.float32)
    result = downsample_depth(depth_HW, stride)
    assert result.shape == (-(-height // stride), -(-width // stride))
    for row, column in np.ndindex(result.shape):
        block = depth_HW[row * stride :, column * stride :][:stride, :stride]
        known = block[block > 0]
        expected = known.mean() if known.size else 0
        assert result[row, column] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('field', ('points_N4', 'depth_HW'))
def test_mixtures_are_refused(samples, field):
    samples[2] = replace(samples[2], **{field: None})
    with pytest.raises(ValueError, match=f'{field}: frame 000000 has it and frame 000002'):
        make_batch(samples)
    bare = [replace(sample, **{field: None}) for sample in samples]
    name = {'points_N4': 'points', 'depth_HW': 'depth_Bhw'}[field]
    assert getattr(make_batch(bare), name) is None


def test_impossible_requests(samples):
    with pytest.raises(ValueError, match='at least one frame'):
        make_batch([])
    with pytest.raises(ValueError, match='depth_stride'):
        make_batch(samples, depth_stride=0)


def test_a_batch_moves_as_a_whole(samples):
    moved = make_batch(samples).to('meta')
    tensors = [moved.image_B3HW, moved.depth_Bhw, *moved.points, *moved.boxes, *moved.class_ids]
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.frame_ids == ('000000', '000001', '000002')
