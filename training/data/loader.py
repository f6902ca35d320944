"""Loaders whose every draw follows from (seed, epoch, frame), whatever the number of workers.

A run that is resumed, or that uses more workers, sees the same frames with the same augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from cmkd_ros.training.data.collate import make_batch
from cmkd_ros.training.data.frames import Augmentation, FrameSource
from cmkd_ros.training.data.sample import Batch, Sample

_MOST_REDRAWS = 100
# The two kinds of draw use unrelated streams of the same seed.
_ORDER_STREAM, _FRAME_STREAM = (0,), (1,)


def make_loader(
    source: FrameSource,
    batch_size: int,
    seed: int,
    *,
    shuffle: bool = True,
    workers: int = 0,
    augment: Augmentation | None = None,
    canvas: tuple[int, int] | None = None,
    depth_stride: int = 8,
    drop_last: bool = True,
    redraw_empty: bool = False,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> ResumableLoader:
    """A loader of batches; call `loader.sampler.set_epoch(epoch)` before each epoch.

    Lightning calls it by itself; it must not replace the sampler (use_distributed_sampler=False).

    Args:
        source: the frames.
        batch_size: frames per batch and process.
        seed: of order and augmentation; not negative.
        shuffle: another order every epoch.
        workers: processes that read ahead; 0 reads in this one.
        augment: drawn with a generator of (seed, epoch, frame).
        canvas, depth_stride: see `make_batch`.
        drop_last: leave out the frames that do not fill a batch.
        redraw_empty: replace labelled frames left without a box by random others (spec B).
        rank, world_size: this process among all; each gets its share of the same order.
        pin_memory: for copies to a GPU.

    Raises:
        ValueError: the frames do not fill one batch, or a number is out of range.
    """
    sampler = EpochSampler(
        len(source), seed, shuffle=shuffle, rank=rank, world_size=world_size, drop_last=drop_last
    )
    if batch_size < 1 or (drop_last and len(sampler) < batch_size):
        raise ValueError(
            f'batch_size {batch_size}: expected 1 to {len(sampler)}, the frames of one process '
            f'({len(source)} frames, {world_size} processes)'
        )
    return ResumableLoader(
        _DrawnFrames(source, seed, augment, redraw_empty),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=partial(make_batch, canvas=canvas, depth_stride=depth_stride),
        drop_last=drop_last,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        # An own generator, or making an iterator would advance torch's global one.
        generator=torch.Generator().manual_seed(seed),
    )


# The type of a DataLoader is that of its frames; ours gives what collate_fn makes of them.
class ResumableLoader(DataLoader[Any]):
    """A loader of `EpochSampler` that can go on in the middle of an epoch.

    `state_dict` goes into a checkpoint, `load_state_dict` is called before the first pass.
    """

    _given = 0  # batches of the present epoch that were handed out

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        # A generator, so that workers do not begin before the epoch is set.
        sampler = self.order
        self._given = sampler.skipped // self._frames_per_batch()
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How far the epoch is; frames that workers read ahead do not count."""
        return {
            'epoch': self.order.epoch,
            'batches': self._given,
            'batch_size': self._frames_per_batch(),
            'world_size': self.order.world_size,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass where `state_dict` was taken; after a whole epoch with a new one.

        Raises:
            ValueError: in the middle of an epoch of other batches or another number of processes.
        """
        if state['batches'] >= len(self):
            return
        own = self.state_dict()
        for name in ('batch_size', 'world_size'):
            if state['batches'] and state[name] != own[name]:
                raise ValueError(
                    f'resume in the middle of an epoch: expected {name} {state[name]} as before, '
                    f'found {own[name]}'
                )
        self.order.set_epoch(state['epoch'])
        self.order.skip_once(state['batches'] * self._frames_per_batch())

    @property
    def order(self) -> EpochSampler:
        """The sampler, which knows the epoch."""
        if not isinstance(self.sampler, EpochSampler):
            raise TypeError(f'expected an EpochSampler, found {type(self.sampler).__name__}')
        return self.sampler

    def _frames_per_batch(self) -> int:
        return self.batch_size or 1


class EpochSampler(Sampler[tuple[int, int]]):
    """Order of the frames of an epoch, as (epoch, index), for one process of several.

    Args:
        length: number of frames.
        seed: not negative.
        shuffle: a new permutation every epoch.
        rank, world_size: this process takes every world_size-th frame, from the rank-th on.
        drop_last: with several processes, leave out the frames that do not go round; otherwise
            the first ones are repeated, so that all processes take equally many steps.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        *,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        if length < 1 or seed < 0 or not 0 <= rank < world_size:
            raise ValueError(
                'EpochSampler: expected length >= 1, seed >= 0 and 0 <= rank < world_size, '
                f'found {length}, {seed}, {rank}, {world_size}'
            )
        self._length = length
        self._seed = seed
        self._shuffle = shuffle
        self._rank = rank
        self._world_size = world_size
        self._share = length // world_size if drop_last else -(-length // world_size)
        self._epoch = 0
        self._skip = 0

    @property
    def epoch(self) -> int:
        """The epoch whose order comes next."""
        return self._epoch

    @property
    def skipped(self) -> int:
        """Frames that the next pass leaves out."""
        return self._skip

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self._world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def skip_once(self, frames: int) -> None:
        """Leave out the first frames of the next pass: to resume in the middle of an epoch."""
        if not 0 <= frames <= self._share:
            raise ValueError(f'skip: expected 0 to {self._share} frames, found {frames}')
        self._skip = frames

    def __len__(self) -> int:
        return self._share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self._length)
        if self._shuffle:
            order = _generator(_ORDER_STREAM, self._seed, self._epoch).permutation(order)
        mine = np.resize(order, self._share * self._world_size)[self._rank :: self._world_size]
        first, self._skip = self._skip, 0
        epoch = self._epoch
        return iter([(epoch, int(index)) for index in mine[first:]])


@dataclass(frozen=True)
class _DrawnFrames(Dataset[Sample]):
    """Frames by (epoch, index), augmented by draws that depend on nothing else but the seed."""

    source: FrameSource
    seed: int
    augment: Augmentation | None
    redraw_empty: bool

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        if not isinstance(key, tuple):
            raise TypeError(
                f'expected (epoch, index) of EpochSampler, found {key!r}: something replaced the '
                'sampler (Lightning: use_distributed_sampler=False)'
            )
        epoch, index = key
        generator = _generator(_FRAME_STREAM, self.seed, epoch, index)
        sample = self._draw(index, generator)
        redraws = 0
        while self.redraw_empty and sample.labelled and len(sample.boxes_M7) == 0:
            if redraws == _MOST_REDRAWS or len(self.source) == 1:
                raise ValueError(
                    f'frame {sample.frame_id}: no labelled box in range, and none in '
                    f'{redraws} other frames drawn in its place'
                )
            redraws += 1
            step = int(generator.integers(1, len(self.source)))
            index = (index + step) % len(self.source)
            sample = self._draw(index, generator)
        return sample

    def _draw(self, index: int, generator: np.random.Generator) -> Sample:
        if self.augment is None:
            return self.source.sample(index)
        augment = self.augment
        return self.source.sample(index, lambda sample: augment(sample, generator))


def _generator(stream: tuple[int, ...], *entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=stream)))


def _start_worker(_: int) -> None:
    # One decoder per worker: threads within it would fight with the other workers.
    cv2.setNumThreads(0)
