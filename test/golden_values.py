"""Reading the golden values: a record holds the shape and a sample of every large array.

Source: cmkd-spec K2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cmkd_ros.training.data.kitti import KittiFrames

FRAMES = ('000000', '000001', '000002')
CLASSES = ('Car', 'Pedestrian', 'Cyclist')


def golden_frames(shared_dir: Path, range_m, frames=FRAMES, **options) -> KittiFrames:
    """The KITTI frames behind the golden values, cropped to a range; options of `KittiFrames`."""
    return KittiFrames(
        shared_dir / 'goldens', frames, CLASSES, split_folder='frames', range_m=range_m, **options
    )


def sampled(array: np.ndarray, n: int = 4096) -> np.ndarray:
    """The elements of an array that a record keeps."""
    flat = np.ascontiguousarray(array).ravel()
    if flat.size <= n:
        return flat
    chosen = np.arange(n, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(flat.size)
    return flat[chosen.astype(np.int64)]


def relative_rms(tensor: torch.Tensor, record, name: str) -> float:
    """Deviation of a tensor from the record `name`, over the root mean square of the record.

    Raises:
        ValueError: the shapes differ.
    """
    if tuple(tensor.shape) != tuple(record[f'{name}.shape']):
        raise ValueError(
            f'{name}: expected {tuple(record[f"{name}.shape"])}, found {tuple(tensor.shape)}'
        )
    expected = record[f'{name}.samp'].astype(np.float64)
    found = sampled(tensor.detach().numpy(), len(expected)).astype(np.float64)
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))
