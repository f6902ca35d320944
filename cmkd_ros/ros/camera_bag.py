"""A recorded drive as the node's input: images with calibration, frame id and pose, in order."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmkd_ros.bag_reader import BagReader, open_bag, stamp_ns
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

    def __init__(self, bag: BagReader, image_topic: str, info_topic: str) -> None:
        """Read all but the images; use `open_camera_bag`."""
        if bag.is_ros1:
            raise ValueError(
                f'{bag.path}: a bag of ROS 1, whose messages a ROS 2 node cannot be sent; '
                '`rosbags-convert --src FILE --dst FOLDER` makes a rosbag2 of it'
            )
        self.path = bag.path
        self._bag = bag
        self._images = _connection(bag, IMAGE, image_topic)
        self.image_topic = self._images[0].topic
        infos = _connection(bag, INFO, info_topic)
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
            ValueError: two images have one stamp, so that answers could not be told apart; an image
                is in another frame than the camera_info; or the bag is damaged.
        """
        seen: set[int] = set()
        for index, (_, time_ns, raw, image) in enumerate(self._bag.messages(self._images)):
            frame, stamp = image.header.frame_id, stamp_ns(image.header)
            if stamp in seen:
                raise ValueError(
                    f'{self.path}: image {index} of {self.image_topic} has the same stamp '
                    f'({stamp} ns) as an earlier one'
                )
            seen.add(stamp)
            info_cdr, info = self._info_for(frame, stamp)
            name = self._names.get(time_ns, f'{index:06d}')
            yield BagImage(name, stamp, frame, bytes(raw), info_cdr, info)

    def _info_for(self, frame: str, stamp: int) -> tuple[bytes, Any]:
        """The camera_info of equal stamp, else the last one before, else the first."""
        place = bisect_right(self._infos, stamp, key=lambda entry: entry[0])
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
            for connection in self._bag.connections
            if connection.topic in (infos_topic, FRAME_ID_TOPIC, '/tf', '/tf_static')
        ]
        for message in self._bag.messages(wanted):
            content, topic = message.content, message.connection.topic
            if topic == infos_topic:
                self._infos.append((stamp_ns(content.header), bytes(message.raw), content))
            elif topic == FRAME_ID_TOPIC:
                self._names[message.time_ns] = content.data
            else:
                self._bag.put_transforms(self.transforms, message)
        self._infos.sort(key=lambda entry: entry[0])
        if not self._infos:
            raise ValueError(f'{self.path}: no message on {infos_topic}')


@contextlib.contextmanager
def open_camera_bag(path: Path, image_topic: str = '', info_topic: str = '') -> Iterator[CameraBag]:
    """Open a bag.

    Args:
        path: of a rosbag2.
        image_topic, info_topic: empty for the only topic of that type.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, one of ROS 1, damaged, or the topics are not there or not unique.
    """
    with open_bag(path) as bag:
        yield CameraBag(bag, image_topic, info_topic)


def _connection(bag: BagReader, kind: str, topic: str) -> list[Any]:
    """The connections of one topic."""
    found = [connection for connection in bag.connections if connection.msgtype == kind]
    topics = sorted({connection.topic for connection in found})
    if topic and topic not in topics:
        raise ValueError(
            f'{bag.path}: no topic {topic} of {kind}; there are: {", ".join(topics) or "none"}'
        )
    if not topic and len(topics) != 1:
        raise ValueError(
            f'{bag.path}: expected one topic of {kind}, found {", ".join(topics) or "none"}; '
            'choose one'
        )
    return [connection for connection in found if connection.topic == (topic or topics[0])]
