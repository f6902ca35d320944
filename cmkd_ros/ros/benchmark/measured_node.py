"""The node under measurement, in a process that does nothing else but tick every 50 ms."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from cmkd_ros.ros.allocator import keep_large_blocks
from cmkd_ros.ros.benchmark.rig import resident_mb
from cmkd_ros.ros.detector_node import SUCCESS, DetectorNode
from cmkd_ros.ros.run_node import SWITCH_INTERVAL_S

TICK_S = 0.05
_TICKS_PER_SAMPLE = 20  # of memory: one a second
_QUIET = ['--ros-args', '--log-level', 'warn']


@dataclass
class NodeRecord:
    """What the node's process saw of itself.

    Attributes:
        ticks_ns: when a timer of 50 ms, on the node's own executor, was served; system time.
        memory_mb: of the process, about once a second.
        counts: the node's counters.
    """

    ticks_ns: list[int] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def run_measured_node(
    namespace: str, parameters: Mapping[str, Any], network_s: float | None, link: Connection
) -> None:
    """Run the node until something comes over the link; the process's main function.

    Sends True once the node is active, and a `NodeRecord` at the end. Where the node cannot be
    configured or activated its log says why, and the process ends with code 2.

    Args:
        namespace: of the node.
        parameters: by dotted name.
        network_s: time of a network that always sees the same boxes; None runs `model.path`.
        link: pipe to whoever measures.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_blocks()
    rclpy.init(args=_QUIET)
    given = [Parameter(name, value=value) for name, value in parameters.items()]
    node = DetectorNode(
        load=None if network_s is None else _waiting_network(network_s),
        namespace=namespace,
        parameter_overrides=given,
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    if node.trigger_configure() != SUCCESS or node.trigger_activate() != SUCCESS:
        sys.exit(2)
    record = NodeRecord()

    def tick() -> None:
        if len(record.ticks_ns) % _TICKS_PER_SAMPLE == 0:
            record.memory_mb.append(resident_mb())
        record.ticks_ns.append(time.time_ns())

    node.create_timer(TICK_S, tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
    link.send(True)
    while not link.poll():
        executor.spin_once()
    record.counts = node.counts
    link.send(record)
    node.close()
    rclpy.try_shutdown()


def _waiting_network(network_s: float) -> Any:
    from cmkd_ros.ros.benchmark.detector import fixed_loader

    return fixed_loader(network_s)
