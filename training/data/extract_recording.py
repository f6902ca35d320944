"""A recording with a camera and a LiDAR: small topics in memory, images and scans on demand."""

from __future__ import annotations

import contextlib
import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmkd_ros.training.data.extract_topics import COMPRESSED, TopicChoice, Topics, find_topics
from cmkd_ros.transform_buffer import TransformBuffer

LOG = logging.getLogger('cmkd.data')
_TRANSFORMS = ('tf2_msgs/msg/TFMessage', 'tf/msg/tfMessage')
_RESCUE = (
    'a recording that was cut off may be saved by `ros2 bag reindex` or `mcap recover`, '
    'one of ROS 1 by `rosbag reindex`'
)


class Recording:
    """One bag; use `open_recording`.

    Attributes:
        path: of the bag.
        topics: those that are read.
        transforms: all of /tf and /tf_static.
    """

    def __init__(self, reader: Any, path: Path, choice: TopicChoice) -> None:
        self.path = path
        self._reader = reader
        self.topics: Topics = find_topics(path, reader.connections, choice)
        self.transforms = TransformBuffer(keep_all=True)
        self._trust_info = bool(choice.camera_info)
        self._infos: list[tuple[int, Any]] = []
        self._read_small_topics()

    @property
    def image_count(self) -> int:
        """Number of images."""
        return sum(connection.msgcount for connection in self.topics.images)

    @property
    def scan_count(self) -> int:
        """Number of scans."""
        return sum(connection.msgcount for connection in self.topics.clouds)

    @property
    def start_ns(self) -> int:
        """Time of the first message of any topic."""
        return int(self._reader.start_time)

    @property
    def is_compressed(self) -> bool:
        """Whether the images are JPEG or PNG."""
        return self.topics.images[0].msgtype == COMPRESSED

    def messages(self) -> Iterator[tuple[bool, int, Any]]:
        """Yield (is it an image, header stamp, message) in the order of recording.

        Raises:
            ValueError: the bag is damaged.
        """
        images = {connection.topic for connection in self.topics.images}
        for connection, message in self._read([*self.topics.images, *self.topics.clouds]):
            yield connection.topic in images, stamp_ns(message.header), message

    def info_for(self, frame_id: str, stamp: int) -> Any:
        """The camera_info of equal stamp, else the last one before, else the first.

        Raises:
            ValueError: it is of another frame than the image, and was not asked for by name.
        """
        place = bisect_right(self._infos, stamp, key=lambda entry: entry[0])
        info = self._infos[max(place - 1, 0)][1]
        if info.header.frame_id.lstrip('/') != frame_id.lstrip('/') and not self._trust_info:
            raise ValueError(
                f"{self.path}: images of {self.topics.images[0].topic} are in frame '{frame_id}', "
                f"but {self.topics.infos[0].topic} is in frame '{info.header.frame_id}'; if it is "
                f'theirs, say so with --camera-info {self.topics.infos[0].topic}'
            )
        return info

    def _read_small_topics(self) -> None:
        infos = self.topics.infos
        wanted = [c for c in self._reader.connections if c.msgtype in _TRANSFORMS]
        for connection, message in self._read([*infos, *wanted]):
            if connection.msgtype not in _TRANSFORMS:
                self._infos.append((stamp_ns(message.header), message))
                continue
            try:
                self.transforms.put(
                    message.transforms, connection.topic.rpartition('/')[2] == 'tf_static'
                )
            except ValueError as error:
                LOG.warning('%s: %s: ignored: %s', self.path, connection.topic, error)
        self._infos.sort(key=lambda entry: entry[0])
        if not self._infos:
            raise ValueError(f'{self.path}: no message on {infos[0].topic}')

    def _read(self, connections: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        try:
            for connection, _, raw in self._reader.messages(connections=connections):
                yield connection, self._reader.deserialize(raw, connection.msgtype)
        except Exception as error:  # storages and compressions raise all sorts
            raise _unreadable(self.path, error) from error


@contextlib.contextmanager
def open_recording(path: Path, choice: TopicChoice) -> Iterator[Recording]:
    """Open a bag: folder or file of a rosbag2 (sqlite3, mcap), or a `.bag` file of ROS 1.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, damaged, or its topics are not there or not unique.
    """
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    if not path.exists():
        raise FileNotFoundError(f'{path}: no such bag')
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        raise ValueError(f'{path}: not a bag, or one without metadata.yaml; {_RESCUE}')
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(
                AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            )
        except Exception as error:  # storages and compressions raise all sorts
            raise _unreadable(path, error) from error
        yield Recording(reader, path, choice)


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = ' '.join(str(error).split()).rstrip('.')
    return ValueError(f'{path}: damaged, or not a bag: {reason}; {_RESCUE}')
