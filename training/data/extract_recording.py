"""A recording with a camera and a LiDAR: small topics in memory, images and scans on demand."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmkd_ros.training.data.extract_topics import COMPRESSED, TopicChoice, Topics, find_topics
from cmkd_ros.transform_buffer import TransformBuffer

LOG = logging.getLogger('cmkd.data')
_TRANSFORMS = ('tf2_msgs/msg/TFMessage', 'tf/msg/tfMessage')


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
    def message_count(self) -> int:
        """Number of images and scans."""
        return sum(c.msgcount for c in (*self.topics.images, *self.topics.clouds))

    @property
    def start_ns(self) -> int:
        """Time of the first message of any topic."""
        return int(self._reader.start_time)

    def messages(self) -> Iterator[tuple[bool, int, Any]]:
        """Yield (is it an image, header stamp, message) in the order of recording."""
        connections = [*self.topics.images, *self.topics.clouds]
        images = {connection.topic for connection in self.topics.images}
        for connection, _, raw in self._reader.messages(connections=connections):
            message = self._reader.deserialize(raw, connection.msgtype)
            yield connection.topic in images, stamp_ns(message.header), message

    @property
    def is_compressed(self) -> bool:
        """Whether the images are JPEG or PNG."""
        return self.topics.images[0].msgtype == COMPRESSED

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
        for connection, _, raw in self._reader.messages(connections=[*infos, *wanted]):
            message = self._reader.deserialize(raw, connection.msgtype)
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


@contextlib.contextmanager
def open_recording(path: Path, choice: TopicChoice) -> Iterator[Recording]:
    """Open a bag: folder of a rosbag2 (sqlite3, mcap), or a `.bag` file of ROS 1.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, damaged, or its topics are not there or not unique.
    """
    from rosbags.highlevel import AnyReader, AnyReaderError
    from rosbags.rosbag1 import ReaderError as ReaderError1
    from rosbags.rosbag2 import ReaderError as ReaderError2
    from rosbags.serde import SerdeError
    from rosbags.typesys import Stores, get_typestore

    if not path.exists():
        raise FileNotFoundError(f'{path}: no such bag')
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            yield Recording(reader, path, choice)
    except (AnyReaderError, ReaderError1, ReaderError2, SerdeError, sqlite3.Error) as error:
        raise ValueError(f'{path}: cannot be read as a bag: {error}') from error


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
