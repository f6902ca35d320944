"""Quality of service by name."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


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


LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
STATIC_TRANSFORMS_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
MOVING_TRANSFORMS_QOS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100)
