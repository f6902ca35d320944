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
_OPTIONS = {'image': '--image', 'camera_info': '--camera-info', 'point cloud': '--points'}


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
    pictures = {IMAGE, COMPRESSED}
    images = _of_types(connections, pictures)
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
    return tuple(t for t in topics if t.removesuffix('/compressed') == t or t[:-11] not in topics)


def _choose(
    path: Path, kind: str, fitting: Sequence[str], wanted: str, known: Sequence[str] = ()
) -> str:
    known = known or fitting
    option = _OPTIONS[kind]
    if wanted:
        if wanted not in known:
            raise ValueError(
                f'{path}: {option} {wanted}: no such {kind} topic; there are: '
                f'{", ".join(known) or "none"}'
            )
        return wanted
    if not fitting:
        raise ValueError(f'{path}: expected a topic with a {kind}, found none')
    if len(fitting) > 1:
        raise ValueError(
            f'{path}: {len(fitting)} topics with a {kind}: {", ".join(fitting)}; '
            f'choose one with {option}'
        )
    return fitting[0]
