"""The first look through recordings: topics, poses, pairs of image and scan, brightness.

Everything that can be wrong with a recording as a whole is told here, before anything is written.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cmkd_ros.training.data.extract_cloud import IntensityScale, cloud_to_points
from cmkd_ros.training.data.extract_folder import drive_name_at, frame_name
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_pairs import Pair, Pairing, pair_scans, thin_out
from cmkd_ros.training.data.extract_pose import rig_pose
from cmkd_ros.training.data.extract_recording import Recording, open_recording

LOG = logging.getLogger('cmkd.data')
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BagPlan:
    """What is wanted of one bag.

    Attributes:
        path: of the bag.
        drive: name of the drive that it is.
        pairs: image and scan of each frame, in the order of time.
    """

    path: Path
    drive: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class ExtractPlan:
    """What is wanted of all bags.

    Attributes:
        bags: one drive each.
        options: as given.
        intensity_full: the number that becomes intensity 1.
        counts: messages, and those left out so far, by what they are.
    """

    bags: tuple[BagPlan, ...]
    options: ExtractOptions
    intensity_full: float
    counts: dict[str, int]

    @property
    def frames(self) -> int:
        """How many frames are wanted."""
        return sum(len(bag.pairs) for bag in self.bags)

    def settings(self) -> dict[str, Any]:
        """What tells this extraction from another one, as JSON would hold it."""
        bags = [
            {
                'name': bag.path.resolve().name,
                'drive': bag.drive,
                'frames': len(bag.pairs),
                'first_image_ns': bag.pairs[0].image_ns,
                'last_image_ns': bag.pairs[-1].image_ns,
            }
            for bag in self.bags
        ]
        return {
            'bags': bags,
            'options': asdict(self.options),
            'intensity_full': self.intensity_full,
        }


def plan_extraction(
    bags: Sequence[Path],
    options: ExtractOptions | None = None,
    progress: Progress | None = None,
) -> ExtractPlan:
    """Look through bags and choose the frames; each bag is one drive.

    Args:
        bags: folders of rosbag2 recordings, or `.bag` files of ROS 1.
        options: what is taken.
        progress: called with (messages read, messages in all), for each bag anew.

    Raises:
        FileNotFoundError, ValueError: bags, topics or transforms that are not as needed, or a bag
            without any pair of image and scan; one sentence.
    """
    options = options or ExtractOptions()
    names = [path.resolve().name for path in bags]
    if not bags or len(set(names)) != len(names):
        raise ValueError(f'expected bags of different names, found {", ".join(names) or "none"}')
    counts: Counter[str] = Counter()
    scale = IntensityScale()
    plans: list[BagPlan] = []
    taken: set[str] = set()
    for path in bags:
        with open_recording(path, options.topics) as recording:
            pairing = _look_through(recording, options, scale, counts, progress)
            drive = drive_name_at(recording.start_ns)
        chosen = thin_out(pairing.pairs, options.every, options.rate_hz)
        fresh = tuple(pair for pair in chosen if frame_name(pair.image_ns) not in taken)
        taken |= {frame_name(pair.image_ns) for pair in fresh}
        counts['scans left out: no image near enough'] += pairing.lonely_scans
        counts['pairs left out: thinned out'] += len(pairing.pairs) - len(chosen)
        counts['pairs left out: of a time that another bag has'] += len(chosen) - len(fresh)
        if not fresh:
            raise ValueError(f'{path}: every frame of it is in another bag, too')
        plans.append(BagPlan(path, drive, fresh))
    full = options.intensity_full or scale.full()
    LOG.info('intensity: %s', scale.describe(full))
    return ExtractPlan(tuple(plans), options, full, {k: n for k, n in counts.items() if n})


def _look_through(
    recording: Recording,
    options: ExtractOptions,
    scale: IntensityScale,
    counts: Counter[str],
    progress: Progress | None,
) -> Pairing:
    stamps: tuple[list[int], list[int]] = ([], [])  # of scans, of images
    frames = ['', '']
    for done, (is_image, stamp, message) in enumerate(recording.messages(), 1):
        if not stamps[is_image]:
            frames[is_image] = message.header.frame_id
        stamps[is_image].append(stamp)
        if not is_image and options.intensity_full is None:
            _see(scale, message)
        if progress:
            progress(done, recording.message_count)
    scans, images = stamps
    counts['images'] += len(images)
    counts['scans'] += len(scans)
    pairing = pair_scans(images, scans, round(options.max_gap_s * 1e9))
    if not pairing.pairs:
        gaps = f': {pairing.describe_gaps()}' if pairing.gaps_ns else ''
        raise ValueError(
            f'{recording.path}: no scan has an image within {options.max_gap_s * 1e3:g} ms '
            f'(--max-gap), of {len(scans)} scans and {len(images)} images{gaps}'
        )
    first = pairing.pairs[0].image_ns
    recording.info_for(frames[True], first)
    try:
        pose = rig_pose(options.pose, recording.transforms, frames[True], frames[False], first)
    except ValueError as error:
        raise ValueError(f'{recording.path}: {error}') from None
    LOG.info('%s: reference frame: %s', recording.path, pose.source)
    return pairing


def _see(scale: IntensityScale, message: Any) -> None:
    try:
        scale.see(message, cloud_to_points(message))
    except ValueError as error:  # told and counted when its frame is made
        LOG.debug('%s', error)
