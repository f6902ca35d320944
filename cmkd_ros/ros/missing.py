"""What an active node that gets no images waits for, in words that name the cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

_MOST_NAMED = 4


def describe_wait(
    node: Node, images: Any, kind: str, infos: Any, frames: Sequence[str], silent_s: float | None
) -> str:
    """Say what keeps the node waiting.

    Args:
        node: that waits.
        images: its subscription of images.
        kind: their type, such as 'sensor_msgs/msg/Image'.
        infos: its subscription of camera_infos.
        frames: frames that a camera_info has come for.
        silent_s: seconds since the last image, None before the first.

    Returns:
        One sentence: since when, who publishes, how, and what there is instead.
    """
    topic = images.topic_name
    since = 'yet' if silent_s is None else f'for {silent_s:.0f} s'
    sentence = f'no image on {topic} {since}: {_publishers(node, topic, kind)}'
    if frames:
        return sentence
    info_topic = infos.topic_name
    who = _publishers(node, info_topic, 'sensor_msgs/msg/CameraInfo')
    return f'{sentence}; no camera_info on {info_topic} either: {who}'


def _publishers(node: Node, topic: str, kind: str) -> str:
    found = sorted({_one(endpoint, kind) for endpoint in node.get_publishers_info_by_topic(topic)})
    if found:
        many = '' if len(found) <= _MOST_NAMED else f' and {len(found) - _MOST_NAMED} more'
        listed = ', '.join(found[:_MOST_NAMED])
        return f'published by {listed}{many}, but nothing arrives'
    own, near = f'{node.get_fully_qualified_name()}/', node.get_namespace()
    others = [
        name
        for name, kinds in node.get_topic_names_and_types()
        if kind in kinds and name != topic and not name.startswith(own)
    ]
    others.sort(key=lambda name: (not name.startswith(near), name))
    published = [name for name in others if node.count_publishers(name)][:_MOST_NAMED]
    instead = f'; there are {", ".join(published)}' if published else ''
    return f'nobody publishes it{instead}'


def _one(endpoint: TopicEndpointInfo, kind: str) -> str:
    name = f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}'
    if endpoint.topic_type != kind:
        return f'{name} as {endpoint.topic_type} instead of {kind}'
    qos = endpoint.qos_profile
    return f'{name} ({qos.reliability.name.lower()}, {qos.durability.name.lower()})'
