"""KITTI layout -> rosbag2: what a camera, a LiDAR and a calibrated mount would have published.

Topics, all frames in order at one stamp each:
    /camera/image        sensor_msgs/Image, rgb8, frame `camera`: the rectified left colour image
    /camera/camera_info  sensor_msgs/CameraInfo of these pixels: P = P2, K = P[:, :3], D = 0, R = I
    /points              sensor_msgs/PointCloud2 x, y, z, intensity (float32), frame `velodyne`
    /tf_static           velodyne -> camera, when all frames share one calibration
    /tf                  the same at each stamp, when they do not
    /frame_id            std_msgs/String: the KITTI name of the frame recorded at that time
P keeps KITTI's fourth column: the `camera` frame is the rectified camera 0, whose images would be
projected without it. Stamps come from a `timestamps.txt` (KITTI raw's form, one line a frame) in
the folder or in its image_2, else they count up at 10 Hz from the day KITTI was recorded.
"""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from cmkd_ros.kitti_files import read_calibration, read_frame_list
from cmkd_ros.training.data.bag_messages import BagMessages
from cmkd_ros.training.data.kitti_layout import KittiFolder, check_frames
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.scan import read_scan

IMAGE_TOPIC = '/camera/image'
INFO_TOPIC = '/camera/camera_info'
POINTS_TOPIC = '/points'
FRAME_ID_TOPIC = '/frame_id'
TYPES = {
    IMAGE_TOPIC: 'sensor_msgs/msg/Image',
    INFO_TOPIC: 'sensor_msgs/msg/CameraInfo',
    POINTS_TOPIC: 'sensor_msgs/msg/PointCloud2',
    FRAME_ID_TOPIC: 'std_msgs/msg/String',
    '/tf': 'tf2_msgs/msg/TFMessage',
    '/tf_static': 'tf2_msgs/msg/TFMessage',
}

_EPOCH_NS = int(datetime.datetime(2011, 9, 26, tzinfo=datetime.timezone.utc).timestamp()) * 10**9
_PERIOD_NS = 10**8


def make_bag(
    kitti: Path,
    out: Path,
    *,
    frames: Sequence[str] | Path | None = None,
    points: bool = True,
    storage: Literal['mcap', 'sqlite3'] = 'mcap',
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the frames of a KITTI folder as a bag.

    Args:
        kitti: folder with image_2 and calib (or `training` with them), and velodyne for points.
        out: folder of the bag; must not exist, and is complete when it does.
        frames: frame ids in the order wanted, or a file that lists them; None for all images.
        points: whether to record the scans, where the folder has any.
        storage: 'mcap', or 'sqlite3', which is larger and slower but read by older tools.
        progress: called with (frames written, frames in all).

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: a file that is missing or wrong; the message names it.
    """
    if out.exists():
        raise FileExistsError(f'{out}: exists already; choose another name for the bag')
    folder = _find_folder(kitti)
    if isinstance(frames, Path):
        frames = read_frame_list(frames)
    names = list(frames) if frames is not None else _all_frames(folder)
    points = points and (folder.path / 'velodyne').is_dir()
    check_frames(folder, names, scans=points, labels=False, depth=False)
    stamps = _stamps(folder.path, names)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as place:
        # Same last name, because the files inside the bag are called after its folder.
        unfinished = Path(place) / out.name
        _write(unfinished, folder, names, stamps, points, storage, progress)
        os.replace(unfinished, out)
    return out


def _find_folder(kitti: Path) -> KittiFolder:
    for place in (kitti / 'training', kitti):
        if (place / 'image_2').is_dir():
            return KittiFolder(place)
    raise FileNotFoundError(f'{kitti}: expected image_2 or training/image_2 in it, found neither')


def _all_frames(folder: KittiFolder) -> list[str]:
    names = sorted(path.stem for path in (folder.path / 'image_2').glob('*.png'))
    if not names:
        raise ValueError(f'{folder.path / "image_2"}: no *.png in it')
    return names


def _stamps(folder: Path, names: Sequence[str]) -> list[int]:
    """Nanoseconds since the epoch of each frame, from a timestamps.txt or at 10 Hz."""
    for path in (folder / 'timestamps.txt', folder / 'image_2' / 'timestamps.txt'):
        if path.is_file():
            break
    else:
        return [_EPOCH_NS + index * _PERIOD_NS for index in range(len(names))]
    lines = path.read_text().split('\n')
    lines = lines[:-1] if not lines[-1] else lines
    everything = _all_frames(KittiFolder(folder))
    if len(lines) != len(everything):
        raise ValueError(
            f'{path}: expected one line for each of {len(everything)} images, found {len(lines)}'
        )
    by_name = dict(zip(everything, range(len(lines)), strict=True))
    stamps = [_parse_time(path, by_name[name] + 1, lines[by_name[name]]) for name in names]
    for index, (earlier, later) in enumerate(zip(stamps, stamps[1:], strict=False)):
        if later <= earlier:
            raise ValueError(
                f'{path}: frame {names[index + 1]} is not later than frame {names[index]}'
            )
    return stamps


def _parse_time(path: Path, number: int, line: str) -> int:
    seconds, _, fraction = line.strip().partition('.')
    try:
        moment = datetime.datetime.strptime(seconds, '%Y-%m-%d %H:%M:%S')
        nanoseconds = int(fraction.ljust(9, '0')[:9]) if fraction else 0
    except ValueError:
        raise ValueError(
            f'{path}:{number}: expected a time such as 2011-09-26 13:04:32.345808896, '
            f'found {line!r}'
        ) from None
    return int(moment.replace(tzinfo=datetime.timezone.utc).timestamp()) * 10**9 + nanoseconds


def _write(
    path: Path,
    folder: KittiFolder,
    names: Sequence[str],
    stamps: Sequence[int],
    points: bool,
    storage: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    calibrations = [read_calibration(folder.calib(name)) for name in names]
    first = calibrations[0].T_cam_ref
    fixed = all(np.array_equal(first, calibration.T_cam_ref) for calibration in calibrations)
    messages = BagMessages()
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
    if storage == 'mcap':
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with writer:
        record = _Recorder(writer, messages)
        if fixed:
            record('/tf_static', messages.transform(calibrations[0], stamps[0]), stamps[0])
        for index, (name, stamp, calibration) in enumerate(
            zip(names, stamps, calibrations, strict=True)
        ):
            image_HW3 = read_png_rgb(folder.image(name))
            if not fixed:
                record('/tf', messages.transform(calibration, stamp), stamp)
            record(INFO_TOPIC, messages.camera_info(calibration, image_HW3, stamp), stamp)
            record(FRAME_ID_TOPIC, messages.string(name), stamp)
            record(IMAGE_TOPIC, messages.image(image_HW3, stamp), stamp)
            if points:
                scan_N4 = read_scan(folder.scan(name))
                record(POINTS_TOPIC, messages.points(scan_N4, stamp), stamp)
            if progress:
                progress(index + 1, len(names))


class _Recorder:
    """Writes messages, opening each topic at its first one."""

    def __init__(self, writer: Writer, messages: BagMessages) -> None:
        self._writer = writer
        self._typestore = messages.typestore
        self._connections: dict[str, Any] = {}

    def __call__(self, topic: str, message: Any, time_ns: int) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic,
                TYPES[topic],
                typestore=self._typestore,
                offered_qos_profiles=[_qos(latched=topic == '/tf_static')],
            )
        data = self._typestore.serialize_cdr(message, TYPES[topic])
        self._writer.write(self._connections[topic], time_ns, data)


def _qos(latched: bool) -> Qos:
    """Reliable; `latched` for late joiners, as /tf_static must be when the bag is played."""
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    forever = QosTime(9223372036, 854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE,
        durability=durability,
        deadline=forever,
        lifespan=forever,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
