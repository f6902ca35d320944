"""Fills a `TransformBuffer` from /tf and /tf_static, where the message package is installed."""

from __future__ import annotations

import functools
from typing import Any

from rclpy.node import Node

from cmkd_ros.ros.qos import MOVING_TRANSFORMS_QOS, STATIC_TRANSFORMS_QOS
from cmkd_ros.transform_buffer import TransformBuffer


def subscribe_transforms(node: Node) -> tuple[TransformBuffer | None, list[Any]]:
    """Listen for transforms.

    Returns:
        The buffer and its subscriptions; None and none where tf2_msgs is not installed.
    """
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return None, []
    buffer = TransformBuffer()

    def store(message: TFMessage, static: bool) -> None:
        try:
            buffer.put(message.transforms, static)
        except ValueError as error:
            node.get_logger().error(f'ignored: {error}', throttle_duration_sec=5.0)

    static = functools.partial(store, static=True)
    moving = functools.partial(store, static=False)
    return buffer, [
        node.create_subscription(TFMessage, '/tf_static', static, STATIC_TRANSFORMS_QOS),
        node.create_subscription(TFMessage, '/tf', moving, MOVING_TRANSFORMS_QOS),
    ]
