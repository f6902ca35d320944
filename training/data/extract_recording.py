"""A recording with a camera and a LiDAR: small topics in memory, images and scans on demand."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmkd_ros.bag_reader import BagReader, open_bag, stamp_ns
from cmkd_ros.training.data.extract_topics import COMPRESSED, TopicChoice, Topics, find_topics
from cmkd_ros.transform_buffer import TransformBuffer

_TRANSFORMS = ('tf2_msgs/msg/TFMessage', 'tf/msg/tfMessage')


class Recording:
    """One bag; use `open_recording`.

    Attributes:
        path: of the bag.
        topics: those that are read.
        transforms: all of /tf and /tf_static.
    """

    def __init__(self, bag: BagReader, choice: TopicChoice) -> None:
        self.path = bag.path
        self._bag = bag
        self.topics: Topics = find_topics(bag.path, bag.connections, choice)
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
        return self._bag.start_ns

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
        for found in self._bag.messages([*self.topics.images, *self.topics.clouds]):
            message = found.content
            yield found.connection.topic in images, stamp_ns(message.header), message

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
        wanted = [c for c in self._bag.connections if c.msgtype in _TRANSFORMS]
        for message in self._bag.messages([*infos, *wanted]):
            if message.connection.msgtype in _TRANSFORMS:
                self._bag.put_transforms(self.transforms, message)
            else:
                self._infos.append((stamp_ns(message.content.header), message.content))
        self._infos.sort(key=lambda entry: entry[0])
        if not self._infos:
            raise ValueError(f'{self.path}: no message on {infos[0].topic}')


@contextlib.contextmanager
def open_recording(path: Path, choice: TopicChoice) -> Iterator[Recording]:
    """Open a bag that `open_bag` reads.

    Raises:
        FileNotFoundError: no such bag.
        ValueError: not a bag, damaged, or its topics are not there or not unique.
    """
    with open_bag(path) as bag:
        yield Recording(bag, choice)
