"""Which topics of a recording hold the images, their calibration and the scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO, CLOUD = 'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/PointCloud2'
# CompressedImage too, but no pictures.
_OTHER_TRANSPORTS = ('/compressedDepth', '/theora')
# The option that chooses among several, and the types, by what a topic holds.
_KINDS = {
    'image': ('--image', 'sensor_msgs/Image or CompressedImage'),
    'camera_info': ('--camera-info', 'sensor_msgs/CameraInfo'),
    'point cloud': ('--points', 'sensor_msgs/PointCloud2'),
}


@dataclass(frozen=True)
class TopicChoice:
    """Names of topics; empty for the only one that fits."""

    image: str = ''
    camera_info: str = ''
    points: str = ''


@dataclass(frozen=True)
class Topics:
    """The connections of a reader, by what they hold; several may carry one topic."""

    images: tuple[Any, ...]
    infos: tuple[Any, ...]
    clouds: tuple[Any, ...]


def find_topics(path: Path, connections: Sequence[Any], choice: TopicChoice) -> Topics:
    """Choose by type; of an image beside its own compressed form the raw one.

    Args:
        path: of the recording, for messages.
        connections: of a rosbags reader.
        choice: what the user asked for.

    Raises:
        ValueError: a topic that is not there, none of a kind, or several; they are listed with the
            option that chooses.
    """
    images = _of_types(connections, {IMAGE, COMPRESSED})
    images = {t: c for t, c in images.items() if not t.endswith(_OTHER_TRANSPORTS)}
    image = _choose(path, 'image', _without_copies(images), choice.image, tuple(images))
    infos = _of_types(connections, {INFO})
    wanted = choice.camera_info
    if not wanted and len(infos) > 1:
        beside = f'{image.removesuffix("/compressed").rpartition("/")[0]}/camera_info'
        wanted = beside if beside in infos else ''
    info = _choose(path, 'camera_info', tuple(infos), wanted)
    clouds = _of_types(connections, {CLOUD})
    cloud = _choose(path, 'point cloud', tuple(clouds), choice.points)
    return Topics(images[image], infos[info], clouds[cloud])


def _of_types(connections: Sequence[Any], types: set[str]) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for connection in sorted(connections, key=lambda connection: connection.topic):
        if connection.msgtype in types:
            found[connection.topic] = (*found.get(connection.topic, ()), connection)
    return found


def _without_copies(topics: dict[str, Any]) -> tuple[str, ...]:
    ending = '/compressed'
    return tuple(
        t for t in topics if not t.endswith(ending) or t.removesuffix(ending) not in topics
    )


def _choose(
    path: Path, kind: str, fitting: Sequence[str], wanted: str, known: Sequence[str] = ()
) -> str:
    known = known or fitting
    option, types = _KINDS[kind]
    if wanted:
        if wanted not in known:
            raise ValueError(
                f'{path}: {option} {wanted}: no such {kind} topic; there are: '
                f'{", ".join(known) or "none"}'
            )
        return wanted
    if not fitting:
        raise ValueError(f'{path}: no {kind} topic in it ({types})')
    if len(fitting) > 1:
        raise ValueError(
            f'{path}: {len(fitting)} {kind} topics: {", ".join(fitting)}; choose one with {option}'
        )
    return fitting[0]
