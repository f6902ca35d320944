"""Frames of different size on one canvas.

Letters: B batch, H W canvas rows and columns, h w depth-target cells, M labelled boxes.
Source: cmkd-spec B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cmkd_ros.training.data.image_space import Float32
from cmkd_ros.training.data.sample import Batch, Sample


def make_batch(
    samples: Sequence[Sample], canvas: tuple[int, int] | None = None, depth_stride: int = 8
) -> Batch:
    """Put frames together.

    Args:
        samples: at least one; all with points or none, all with depth or none.
        canvas: (height, width) that every image is padded to, right and bottom; None takes the
            largest height and the largest width of these frames, as the official code does.
        depth_stride: pixels per cell of the depth target (the stride of the image features).

    Returns:
        The batch; images divided by 255, padding NaN.

    Raises:
        ValueError: no samples, an image larger than the canvas, a mixture, stride below 1.
    """
    if not samples:
        raise ValueError('make_batch: expected at least one frame, found none')
    if depth_stride < 1:
        raise ValueError(f'depth_stride: expected at least 1, found {depth_stride}')
    sizes_B2 = np.array([sample.image_HW3.shape[:2] for sample in samples], dtype=np.int64)
    if canvas is None:
        height, width = sizes_B2.max(axis=0).tolist()
    else:
        height, width = canvas
        _check_fits(samples, height, width)
    with_points = _all_or_none(samples, 'points_N4')
    with_depth = _all_or_none(samples, 'depth_HW')
    return Batch(
        frame_ids=tuple(sample.frame_id for sample in samples),
        image_B3HW=_pad_images(samples, height, width),
        image_sizes_B2=torch.from_numpy(sizes_B2),
        cam_to_img_B34=_stack([sample.cam_to_img_34 for sample in samples]),
        ref_to_cam_B44=_stack([sample.ref_to_cam_44 for sample in samples]),
        points=tuple(_tensor(sample.points_N4) for sample in samples) if with_points else None,
        boxes=tuple(_tensor(sample.boxes_M7) for sample in samples),
        class_ids=tuple(_tensor(sample.class_ids_M) for sample in samples),
        depth_Bhw=_pad_depths(samples, height, width, depth_stride) if with_depth else None,
        labelled_B=torch.tensor([sample.labelled for sample in samples]),
    )


def downsample_depth(depth_HW: Float32, stride: int) -> Float32:
    """Mean of the known depths of every stride x stride block, 0 where a block has none.

    Args:
        depth_HW: float32 metres, 0 where unknown.
        stride: side of a block in pixels; blocks at the right and bottom may stick out.

    Returns:
        (ceil(H / stride), ceil(W / stride)) float32, rounded as the official code rounds.
    """
    height, width = depth_HW.shape
    padded = np.pad(depth_HW, ((0, -height % stride), (0, -width % stride)))
    # Quirk kept: both sums are divided by the block's area, and 1e-10 added to the second.
    area = np.float32(stride * stride)
    mean_hw = _block_sums(padded, stride) / area
    known_hw = _block_sums((padded != 0).astype(np.float32), stride) / area
    return mean_hw / (known_hw + np.float32(1e-10))


def _block_sums(picture_HW: Float32, stride: int) -> Float32:
    # Rows first: sums over contiguous rows are several times faster than over short blocks.
    height, width = picture_HW.shape
    rows_hW = picture_HW.reshape(height // stride, stride, width).sum(axis=1)
    return rows_hW.reshape(height // stride, width // stride, stride).sum(axis=2)


def _check_fits(samples: Sequence[Sample], height: int, width: int) -> None:
    for sample in samples:
        found = sample.image_HW3.shape[:2]
        if found[0] > height or found[1] > width:
            raise ValueError(
                f'frame {sample.frame_id}: image of {found[0]} x {found[1]} (height x width) is '
                f'larger than the canvas {height} x {width}'
            )


def _all_or_none(samples: Sequence[Sample], field: str) -> bool:
    present = [getattr(sample, field) is not None for sample in samples]
    if any(present) and not all(present):
        with_it = samples[present.index(True)].frame_id
        without = samples[present.index(False)].frame_id
        raise ValueError(
            f'{field}: frame {with_it} has it and frame {without} does not; '
            'one batch needs it in all frames or in none'
        )
    return all(present)


def _pad_images(samples: Sequence[Sample], height: int, width: int) -> torch.Tensor:
    image_B3HW = torch.full((len(samples), 3, height, width), float('nan'))
    for image_3HW, sample in zip(image_B3HW, samples, strict=True):
        rows, columns = sample.image_HW3.shape[:2]
        pixels_3HW = _tensor(sample.image_HW3).permute(2, 0, 1)
        torch.div(pixels_3HW, 255.0, out=image_3HW[:, :rows, :columns])
    return image_B3HW


def _pad_depths(samples: Sequence[Sample], height: int, width: int, stride: int) -> torch.Tensor:
    cells = -(-height // stride), -(-width // stride)
    depth_Bhw = torch.full((len(samples), *cells), float('nan'))
    for target_hw, sample in zip(depth_Bhw, samples, strict=True):
        if sample.depth_HW is None:
            raise ValueError(f'frame {sample.frame_id}: expected a depth picture, found none')
        known_hw = torch.from_numpy(downsample_depth(sample.depth_HW, stride))
        target_hw[: known_hw.shape[0], : known_hw.shape[1]] = known_hw
    return depth_Bhw


def _tensor(array: np.ndarray | None) -> torch.Tensor:
    # A copy: samples may be shared (a cache) and may be read-only.
    return torch.tensor(array)


def _stack(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))
