"""How many frames a second each step of reading takes: is a GPU going to wait for the loader?

python -m cmkd_ros.training.data.reading_speed KITTI [--split FILE] [--seconds 3] [--workers 0 1 2]
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, cycle
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from cmkd_ros.evaluation.kitti_split import CLASSES
from cmkd_ros.kitti_files import read_calibration, read_frame_list, read_labels
from cmkd_ros.training.data.augment import RandomFlip
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.loader import ResumableLoader, make_loader
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.sample import Batch
from cmkd_ros.training.data.scan import read_scan

LOG = logging.getLogger('cmkd.data')
_BATCH_SIZE = 4
# What, frames per second, and frames per second of processor time (where one process works alone:
# what a quiet machine gives).
Row = tuple[str, float, float | None]


def measure_steps(folder: KittiFolder, frames: Sequence[str], seconds: float) -> Iterator[Row]:
    """Time every single step of reading in this process.

    Args:
        folder: labelled frames with scans.
        frames: which of them; read in turn, so that files come from the system's memory.
        seconds: for each step.

    Yields:
        What, frames per second, and per second of processor time.

    Raises:
        FileNotFoundError, ValueError: a file is missing or damaged.
    """
    steps: dict[str, Callable[[str], object]] = {
        'decode the PNG': lambda frame: read_png_rgb(folder.image(frame)),
        'read the scan': lambda frame: read_scan(folder.scan(frame)),
        'read the calibration': lambda frame: read_calibration(folder.calib(frame)),
        'read the labels': lambda frame: read_labels(folder.label(frame)),
    }
    for name, step in steps.items():
        yield name, *_rate(step, frames, seconds)
    with tempfile.TemporaryDirectory(prefix='cmkd_') as place:
        decoded = {frame: Path(place, f'{frame}.npy') for frame in frames}
        for frame, path in decoded.items():
            np.save(path, read_png_rgb(folder.image(frame)))
        yield 'read a decoded picture', *_rate(lambda f: np.load(decoded[f]), frames, seconds)


def measure_loaders(
    folder: KittiFolder, frames: Sequence[str], seconds: float, workers: Sequence[int]
) -> Iterator[Row]:
    """Time the loaders that train a student and a teacher.

    Args:
        folder, frames, seconds: as `measure_steps`.
        workers: numbers of processes to try.

    Yields:
        What, frames per second, and per second of processor time.
    """
    root, name = folder.path.parent, folder.path.name
    for number in workers:
        student = KittiFrames(root, frames, CLASSES, split_folder=name, with_depth=True)
        yield f'student, {number} workers', *_loader_rate(student, seconds, number)
        teacher = KittiFrames(root, frames, CLASSES, split_folder=name, with_image=False)
        yield f'teacher, {number} workers', *_loader_rate(teacher, seconds, number, flip=False)
    cached = KittiFrames(root, frames, CLASSES, split_folder=name, with_depth=True, cache=True)
    yield 'student, decoded frames in memory, 0 workers', *_loader_rate(cached, seconds, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)
    cv2.setNumThreads(0)  # as in workers
    table = Table('step', 'frames per second', 'per CPU second', title=f'Reading {options.kitti}')
    try:
        root = options.kitti
        folder = KittiFolder(root / 'training' if (root / 'training').is_dir() else root)
        names = sorted(folder.frames('image'))
        frames = read_frame_list(options.split) if options.split else names
        if not frames:
            raise FileNotFoundError(f'{folder.path / "image_2"}: no *.png images there')
        rows = chain(
            measure_steps(folder, frames, options.seconds),
            measure_loaders(folder, frames, options.seconds, options.workers),
        )
        for name, rate, by_processor in rows:
            alone = '' if by_processor is None else f'{by_processor:.0f}'
            table.add_row(name, f'{rate:.0f}', alone)
    except (OSError, ValueError) as error:
        LOG.error('%s', error)
        return 2
    Console().print(table)
    return 0


def _rate(
    step: Callable[[str], object], frames: Sequence[str], seconds: float
) -> tuple[float, float]:
    for frame in frames[:4]:
        step(frame)
    begin, spent = time.perf_counter(), time.process_time()
    for done, frame in enumerate(cycle(frames), 1):
        step(frame)
        if (passed := time.perf_counter() - begin) >= seconds:
            return done / passed, done / (time.process_time() - spent)
    raise ValueError('expected frames to read, found none')


def _loader_rate(
    source: KittiFrames, seconds: float, workers: int, flip: bool = True
) -> tuple[float, float | None]:
    batch_size = min(_BATCH_SIZE, len(source))
    augment = RandomFlip() if flip else None
    loader = make_loader(source, batch_size, 0, workers=workers, augment=augment)
    batches = _endless(loader)
    for _ in range(len(loader)):  # workers begin, caches fill
        next(batches)
    begin, spent = time.perf_counter(), time.process_time()
    for done, batch in enumerate(batches, 1):
        if (passed := time.perf_counter() - begin) >= seconds:
            frames = done * len(batch)
            spent = time.process_time() - spent
            return frames / passed, None if workers else frames / spent
    raise ValueError('expected frames to read, found none')


def _endless(loader: ResumableLoader) -> Iterator[Batch]:
    for epoch in count():
        loader.order.set_epoch(epoch)
        yield from loader


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else None)
    parser.add_argument('kitti', type=Path, help='KITTI folder with labels and scans')
    parser.add_argument('--split', type=Path, help='frame list; default: every image')
    parser.add_argument('--seconds', type=float, default=3.0, help='per step')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 1, 2])
    return parser


if __name__ == '__main__':
    sys.exit(main())
