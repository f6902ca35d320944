"""Bags read message by message, without ROS; every fault of a file is one sentence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cmkd_ros.transform_buffer import TransformBuffer

LOG = logging.getLogger('cmkd.bag')
_RESCUE = (
    'a recording that was cut off may be saved by `ros2 bag reindex` or `mcap recover`, '
    'one of ROS 1 by `rosbag reindex`'
)


class BagMessage(NamedTuple):
    """One message.

    Attributes:
        connection: of rosbags; has `topic` and `msgtype`.
        time_ns: when it was recorded.
        raw: as it was recorded, serialised.
        content: deserialised.
    """

    connection: Any
    time_ns: int
    raw: bytes | memoryview
    content: Any


class BagReader:
    """One bag; use `open_bag`.

    Attributes:
        path: of the bag.
        connections: of rosbags, each with `topic`, `msgtype` and `msgcount`; ROS 1's types have
            their ROS 2 names.
        is_ros1: whether messages are serialised as in ROS 1.
    """

    def __init__(self, reader: Any, path: Path) -> None:
        self.path = path
        self._reader = reader
        self.connections: Sequence[Any] = tuple(reader.connections)
        self.is_ros1: bool = not reader.is2

    @property
    def start_ns(self) -> int:
        """Time of the first message of any topic."""
        return int(self._reader.start_time)

    def messages(self, connections: Sequence[Any]) -> Iterator[BagMessage]:
        """Yield the messages of some connections in the order of recording.

        Raises:
            ValueError: the bag is damaged.
        """
        try:
            for connection, time_ns, raw in self._reader.messages(connections=connections):
                content = self._reader.deserialize(raw, connection.msgtype)
                yield BagMessage(connection, time_ns, raw, content)
        except Exception as error:  # storages and compressions raise all sorts
            raise _unreadable(self.path, error) from error

    def put_transforms(self, buffer: TransformBuffer, message: BagMessage) -> None:
        """Store those of a recorded TFMessage; broken ones are told and ignored, as by the node."""
        topic = message.connection.topic
        try:
            buffer.put(message.content.transforms, topic.rpartition('/')[2] == 'tf_static')
        except ValueError as error:
            LOG.warning('%s: %s: ignored: %s', self.path, topic, error)


@contextlib.contextmanager
def open_bag(path: Path) -> Iterator[BagReader]:
    """Open a bag: folder or file of a rosbag2 (sqlite3, mcap), or a `.bag` file of ROS 1.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, or damaged.
        ImportError: no rosbags.
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
        yield BagReader(reader, path)


def stamp_ns(header: Any) -> int:
    """Nanoseconds of a header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = ' '.join(str(error).split()).rstrip('.')
    return ValueError(f'{path}: damaged, or not a bag: {reason}; {_RESCUE}')
