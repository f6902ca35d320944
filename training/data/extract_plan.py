"""The first look through recordings: topics, poses, pairs of image and scan, brightness.

Everything that can be wrong with a recording as a whole is told here, before anything is written.

Letters: N points.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmkd_ros.camera_info import camera_from_info
from cmkd_ros.training.data.extract_cloud import IntensityScale, cloud_to_points
from cmkd_ros.training.data.extract_folder import drive_name_at, frame_name
from cmkd_ros.training.data.extract_options import ExtractOptions
from cmkd_ros.training.data.extract_pairs import Pair, Pairing, pair_scans, thin_out
from cmkd_ros.training.data.extract_pose import (
    check_heading,
    ground_below_ref_m,
    judge_ground,
    rig_pose,
)
from cmkd_ros.training.data.extract_recording import Recording, open_recording

LOG = logging.getLogger('cmkd.data')
Progress = Callable[[int, int], None]
_GROUND_SCANS = 20  # of a recording, spread over it, in which the road is looked for


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
            pairing = _pair(recording, options, scale, counts, progress)
            drive = drive_name_at(recording.start_ns)
        chosen = thin_out(pairing.pairs, options.every, options.rate_hz)
        fresh = tuple(pair for pair in chosen if frame_name(pair.image_ns) not in taken)
        taken |= {frame_name(pair.image_ns) for pair in fresh}
        counts['scans left out: no image near enough'] += pairing.lonely_scans
        counts['pairs left out: thinned out'] += len(pairing.pairs) - len(chosen)
        counts['pairs left out: of a time that another bag has'] += len(chosen) - len(fresh)
        if not fresh:
            raise ValueError(
                f'{path}: another bag has frames of the same times; if these are different drives, '
                'as of a simulator whose clock starts at 0, extract them one by one, each with a '
                '--name of its own'
            )
        plans.append(BagPlan(path, drive, fresh))
    full = options.intensity_full or scale.full()
    LOG.info('intensity: %s', scale.describe(full))
    return ExtractPlan(tuple(plans), options, full, {k: n for k, n in counts.items() if n})


@dataclass
class _Overview:
    """What was seen of a recording.

    Attributes:
        images_ns, scans_ns: header stamps.
        camera_frame, lidar_frame: of the first headers.
        scans_N4: some scans, in the LiDAR's frame.
    """

    images_ns: list[int] = field(default_factory=list)
    scans_ns: list[int] = field(default_factory=list)
    camera_frame: str = ''
    lidar_frame: str = ''
    scans_N4: list[NDArray[np.float32]] = field(default_factory=list)


def _pair(
    recording: Recording,
    options: ExtractOptions,
    scale: IntensityScale,
    counts: Counter[str],
    progress: Progress | None,
) -> Pairing:
    """The pairs of a recording whose calibration and poses are known and right."""
    seen = _look_through(recording, scale, progress)
    counts['images'] += len(seen.images_ns)
    counts['scans'] += len(seen.scans_ns)
    pairing = pair_scans(seen.images_ns, seen.scans_ns, round(options.max_gap_s * 1e9))
    if not pairing.pairs:
        gaps = f': {pairing.describe_gaps()}' if pairing.gaps_ns else ''
        raise ValueError(
            f'{recording.path}: no scan has an image within {options.max_gap_s * 1e3:g} ms '
            f'(--max-gap), of {len(seen.scans_ns)} scans and {len(seen.images_ns)} images{gaps}'
        )
    time_ns = pairing.pairs[0].image_ns
    info = recording.info_for(seen.camera_frame, time_ns)
    try:
        camera = camera_from_info(info, options.rectified, options.use_projection_offset)
        pose = rig_pose(
            options.pose, recording.transforms, seen.camera_frame, seen.lidar_frame, time_ns
        )
        check_heading(pose)
    except ValueError as error:
        raise ValueError(f'{recording.path}: {error}') from None
    resize = options.width / camera.width if options.width else 1.0
    LOG.info(
        '%s: images of %.0f x %.0f pixels, focal length %.0f pixels', recording.path,
        resize * camera.width, resize * camera.height, resize * camera.fx_px,
    )  # fmt: skip
    LOG.info('%s: reference frame: %s', recording.path, pose.source)
    grounds = [ground_below_ref_m(pose.to_ref(points_N4)) for points_N4 in seen.scans_N4]
    found = [ground for ground in grounds if ground is not None]
    ground_m = float(np.median(found)) if found else None
    if fault := judge_ground(pose, ground_m):
        LOG.warning('%s: %s', recording.path, fault)
    else:
        LOG.info('%s: the road lies %.2f m below it, as it should', recording.path, ground_m)
    return pairing


def _look_through(
    recording: Recording, scale: IntensityScale, progress: Progress | None
) -> _Overview:
    seen = _Overview()
    apart = max(1, recording.scan_count // _GROUND_SCANS)
    total = recording.image_count + recording.scan_count
    for done, (is_image, stamp_ns, message) in enumerate(recording.messages(), 1):
        if is_image:
            seen.camera_frame = seen.camera_frame or message.header.frame_id
            seen.images_ns.append(stamp_ns)
        else:
            seen.lidar_frame = seen.lidar_frame or message.header.frame_id
            seen.scans_ns.append(stamp_ns)
            points_N4 = _see(scale, message)
            if points_N4 is not None and len(seen.scans_ns) % apart == 0:
                seen.scans_N4.append(points_N4)
        if progress:
            progress(done, total)
    return seen


def _see(scale: IntensityScale, message: Any) -> NDArray[np.float32] | None:
    try:
        points_N4 = cloud_to_points(message)
    except ValueError as error:  # told and counted when its frame is made
        LOG.debug('%s', error)
        return None
    scale.see(message, points_N4)
    return points_N4
