"""A recorded drive as the node's input: images with calibration, frame id and pose, in order."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmkd_ros.transform_buffer import TransformBuffer

IMAGE, INFO = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo'
FRAME_ID_TOPIC = '/frame_id'  # std_msgs/String with the data set's name of the image of that time


@dataclass(frozen=True, eq=False)
class BagImage:
    """One image of a bag and what belongs to it.

    Attributes:
        frame_id: name of the frame in its data set; its number in the bag where that is unknown.
        stamp_ns: of the header.
        camera_frame: `frame_id` of the header.
        image_cdr, info_cdr: serialised messages as recorded, for publishing without a detour.
        info: the camera_info, deserialised.
    """

    frame_id: str
    stamp_ns: int
    camera_frame: str
    image_cdr: bytes
    info_cdr: bytes
    info: Any


class CameraBag:
    """A rosbag2 (sqlite3 or mcap) with images, camera_info and perhaps transforms."""

    def __init__(self, reader: Any, path: Path, image_topic: str, info_topic: str) -> None:
        """Read all but the images; use `open_camera_bag`."""
        self.path = path
        self._reader = reader
        self._images = _connection(reader, path, IMAGE, image_topic)
        self.image_topic = self._images[0].topic
        infos = _connection(reader, path, INFO, info_topic)
        self.info_topic = infos[0].topic
        self.transforms = TransformBuffer(keep_all=True)
        self._names: dict[int, str] = {}
        self._infos: list[tuple[int, bytes, Any]] = []
        self._read_small_topics(infos)

    def __len__(self) -> int:
        return sum(connection.msgcount for connection in self._images)

    def __iter__(self) -> Iterator[BagImage]:
        """Yield the images in the order of recording.

        Raises:
            ValueError: two images have one stamp, so that answers could not be told apart.
        """
        seen: set[int] = set()
        for index, (connection, time_ns, raw) in enumerate(
            self._reader.messages(connections=self._images)
        ):
            header = self._reader.deserialize(raw, connection.msgtype).header
            stamp_ns = _stamp_ns(header)
            if stamp_ns in seen:
                raise ValueError(
                    f'{self.path}: image {index} of {self.image_topic} has the same stamp '
                    f'({stamp_ns} ns) as an earlier one'
                )
            seen.add(stamp_ns)
            info_cdr, info = self._info_for(header.frame_id, stamp_ns)
            name = self._names.get(time_ns, f'{index:06d}')
            yield BagImage(name, stamp_ns, header.frame_id, bytes(raw), info_cdr, info)

    def _info_for(self, frame: str, stamp_ns: int) -> tuple[bytes, Any]:
        """The camera_info of equal stamp, else the last one before, else the first."""
        place = bisect_right(self._infos, stamp_ns, key=lambda entry: entry[0])
        _, raw, info = self._infos[max(place - 1, 0)]
        if info.header.frame_id != frame:
            raise ValueError(
                f"{self.path}: {self.image_topic} is in frame '{frame}' but {self.info_topic} in "
                f"frame '{info.header.frame_id}'"
            )
        return raw, info

    def _read_small_topics(self, infos: list[Any]) -> None:
        infos_topic = infos[0].topic
        wanted = [
            connection
            for connection in self._reader.connections
            if connection.topic in (infos_topic, FRAME_ID_TOPIC, '/tf', '/tf_static')
        ]
        for connection, time_ns, raw in self._reader.messages(connections=wanted):
            message = self._reader.deserialize(raw, connection.msgtype)
            if connection.topic == infos_topic:
                self._infos.append((_stamp_ns(message.header), bytes(raw), message))
            elif connection.topic == FRAME_ID_TOPIC:
                self._names[time_ns] = message.data
            else:
                self.transforms.put(message.transforms, connection.topic == '/tf_static')
        self._infos.sort(key=lambda entry: entry[0])
        if not self._infos:
            raise ValueError(f'{self.path}: no message on {infos_topic}')


@contextlib.contextmanager
def open_camera_bag(path: Path, image_topic: str = '', info_topic: str = '') -> Iterator[CameraBag]:
    """Open a bag.

    Args:
        path: folder of the bag.
        image_topic, info_topic: empty for the only topic of that type.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, damaged, or the topics are not there or not unique.
    """
    from rosbags.highlevel import AnyReader, AnyReaderError
    from rosbags.rosbag2 import ReaderError
    from rosbags.serde import SerdeError
    from rosbags.typesys import Stores, get_typestore

    if not path.exists():
        raise FileNotFoundError(f'{path}: no such bag')
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            yield CameraBag(reader, path, image_topic, info_topic)
    except (AnyReaderError, ReaderError, SerdeError) as error:
        raise ValueError(f'{path}: cannot be read as a rosbag2: {error}') from error


def _connection(reader: Any, path: Path, kind: str, topic: str) -> list[Any]:
    """The connections of one topic."""
    found = [connection for connection in reader.connections if connection.msgtype == kind]
    topics = sorted({connection.topic for connection in found})
    if topic and topic not in topics:
        raise ValueError(
            f'{path}: no topic {topic} of {kind}; there are: {", ".join(topics) or "none"}'
        )
    if not topic and len(topics) != 1:
        raise ValueError(
            f'{path}: expected one topic of {kind}, found {", ".join(topics) or "none"}; choose one'
        )
    return [connection for connection in found if connection.topic == (topic or topics[0])]


def _stamp_ns(header: Any) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
