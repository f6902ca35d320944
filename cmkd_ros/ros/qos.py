"""Quality of service by name, and what a parameter file may override of it."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

from cmkd_ros.ros.parameter_handler import overridden

_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


def input_qos(name: str, depth: int) -> QoSProfile:
    """Profile of a subscription.

    Args:
        name: 'reliable', or 'sensor_data' for best effort, which any publisher can serve but which
            loses large messages that come in many packets.
        depth: messages that may queue up; 1 for images, as an older one is of no use.
    """
    best_effort = name == 'sensor_data'
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.VOLATILE,
    )


def overriding_options(node: Node, topic: str) -> QoSOverridingOptions | None:
    """ROS's own parameters `qos_overrides.<topic>.subscription.<policy>`, as far as they are given.

    Only those: a declared override can never be changed again, so that another value of the node's
    parameter `qos` would find it in its way at the next configure.
    """
    given = set(overridden(node))
    kinds = [
        kind
        for kind in _OVERRIDABLE
        if f'qos_overrides.{topic}.subscription.{kind.name.lower()}' in given
    ]
    return QoSOverridingOptions(kinds) if kinds else None


LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
STATIC_TRANSFORMS_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
MOVING_TRANSFORMS_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100)
