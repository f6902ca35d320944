"""Recordings with a camera and a LiDAR -> unlabelled frames in KITTI layout, ready to distil from.

Letters: H W image rows and columns, N points.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cmkd_ros.training.data.extract_check import write_check
from cmkd_ros.training.data.extract_folder import ExtractFolder, FrameRecord, frame_name
from cmkd_ros.training.data.extract_frame import ExtractedFrame, FrameMaker
from cmkd_ros.training.data.extract_pairs import Pair
from cmkd_ros.training.data.extract_plan import BagPlan, ExtractPlan
from cmkd_ros.training.data.extract_recording import Recording, open_recording
from cmkd_ros.training.data.kitti_layout import KittiFolder

LOG = logging.getLogger('cmkd.data')
Progress = Callable[[int, int], None]
_THUMBNAIL = (64, 32)


@dataclass(frozen=True)
class ExtractReport:
    """What became of the recordings.

    Attributes:
        out: the folder.
        counts: messages, frames, and what was left out, by what it is.
    """

    out: Path
    counts: dict[str, int]

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        return [f'{number:8d} {what}' for what, number in self.counts.items()]


def extract_frames(plan: ExtractPlan, out: Path, progress: Progress | None = None) -> ExtractReport:
    """Write the frames of a plan; one that was interrupted goes on when it is called again.

    Args:
        plan: of `plan_extraction`.
        out: folder to write: `data.sources=[{root: OUT, frames: ImageSets/train.txt, labelled:
            false}]` reads it.
        progress: called with (frames done, frames in all).

    Raises:
        FileExistsError: `out` holds something else, or is complete.
        FileNotFoundError, ValueError: a bag that cannot be read, or no frame that can be used.
        OSError: the disk is full; free space and call again to go on.
    """
    extraction = _Extraction(plan, ExtractFolder(out, plan.settings()), progress)
    try:
        for bag in plan.bags:
            extraction.extract(bag)
        if extraction.records:
            _draw_checks(out, extraction.records)
            extraction.folder.finish(extraction.records, plan.options.dataset)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            f'{out}: no space left: {len(extraction.records)} of {plan.frames} frames are written; '
            'free space and run the same command again to go on'
        ) from error
    if not extraction.records:
        extraction.folder.discard()
        raise ValueError(f'{out}: no frame can be used: {extraction.first_fault}')
    counts = {**plan.counts, **extraction.counts, 'frames': len(extraction.records)}
    return ExtractReport(out, counts)


class _Extraction:
    """One run: what is written and counted so far."""

    def __init__(self, plan: ExtractPlan, folder: ExtractFolder, progress: Progress | None) -> None:
        self.folder = folder
        self.records: list[FrameRecord] = []
        self.counts: Counter[str] = Counter()
        self.first_fault = ''
        self._plan = plan
        self._progress = progress
        self._done = 0

    def extract(self, bag: BagPlan) -> None:
        """Write the frames of a bag that are not there yet."""
        options = self._plan.options
        changes = _Changes(options.least_change)
        with open_recording(bag.path, options.topics) as recording:
            maker = FrameMaker(recording, options, self._plan.intensity_full)
            for pair, image, cloud in _messages(recording, bag.pairs):
                # What shows something new depends on the frame before, so that one is made again.
                if not options.least_change and self.folder.holds(frame_name(pair.image_ns)):
                    self._count(bag, pair)
                    continue
                try:
                    frame = maker.make(image, cloud)
                except ValueError as error:
                    self._note_fault(bag, pair, error)
                    continue
                if changes.is_new(frame.image_HW3):
                    self._write(frame_name(pair.image_ns), frame)
                    self._count(bag, pair)
                else:
                    self._step('pairs left out: the image shows nothing new')

    def _write(self, name: str, frame: ExtractedFrame) -> None:
        if not self.folder.holds(name):
            self.folder.write(name, frame.image_HW3, frame.points_N4, frame.calibration)

    def _count(self, bag: BagPlan, pair: Pair) -> None:
        name, where = frame_name(pair.image_ns), bag.path.resolve().name
        self.records.append(FrameRecord(name, bag.drive, pair.image_ns, pair.scan_ns, where))
        self._step()

    def _note_fault(self, bag: BagPlan, pair: Pair, error: ValueError) -> None:
        where = f'{bag.path}: frame {frame_name(pair.image_ns)}'
        if not self.first_fault:
            self.first_fault = str(error)
            LOG.warning('%s: left out: %s (further ones are counted)', where, error)
        self._step('pairs left out: image, calibration or scan cannot be used')

    def _step(self, left_out: str = '') -> None:
        if left_out:
            self.counts[left_out] += 1
        self._done += 1
        if self._progress:
            self._progress(self._done, self._plan.frames)


class _Changes:
    """Tells images that show something new from those of a robot that stands still."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._last: NDArray[np.float32] | None = None

    def is_new(self, image_HW3: NDArray[np.uint8]) -> bool:
        if not self._least:
            return True
        small = cv2.resize(image_HW3, _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
        if self._last is not None and np.abs(small - self._last).mean() < self._least:
            return False
        self._last = small
        return True


def _messages(recording: Recording, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Any, Any]]:
    """The image and the scan of each pair, as soon as both were met."""
    waiting = {(True, pair.image_ns): pair for pair in pairs}
    waiting |= {(False, pair.scan_ns): pair for pair in pairs}
    met: dict[tuple[bool, int], Any] = {}
    for is_image, stamp, message in recording.messages():
        pair = waiting.pop((is_image, stamp), None)
        if pair is None:
            continue
        other = met.pop((not is_image, pair.scan_ns if is_image else pair.image_ns), None)
        if other is None:
            met[is_image, stamp] = message
        else:
            yield (pair, message, other) if is_image else (pair, other, message)


def _draw_checks(out: Path, records: Sequence[FrameRecord]) -> None:
    """The middle frame of each bag, for people to look at."""
    by_bag: dict[str, list[str]] = {}
    for record in records:
        by_bag.setdefault(record.bag, []).append(record.frame)
    for bag, frames in by_bag.items():
        middle = sorted(frames)[len(frames) // 2]
        write_check(KittiFolder(out / 'training'), middle, out / 'check' / f'{bag}.png')
