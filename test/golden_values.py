"""Reading the golden values: a record holds the shape and a sample of every large array.

Source: cmkd-spec K2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.parity.frames import CLASSES, FRAMES
from cmkd_ros.training.parity.records import sampled

__all__ = ['CLASSES', 'FRAMES', 'golden_frames', 'relative_rms', 'sampled']


def golden_frames(shared_dir: Path, range_m, frames=FRAMES, **options) -> KittiFrames:
    """The KITTI frames behind the golden values, cropped to a range; options of `KittiFrames`."""
    return KittiFrames(
        shared_dir / 'goldens', frames, CLASSES, split_folder='frames', range_m=range_m, **options
    )


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
