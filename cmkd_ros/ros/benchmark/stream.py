"""Camera, node and listener, a process each: how old results are, what is dropped, what stalls.

The node is alone in its process, so that nothing of the measurement takes time from it but a timer;
the age of a result is taken where it was published and, in this process, where it arrives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64
from vision_msgs.msg import Detection3DArray

from cmkd_ros.ros.benchmark.camera import KITTI_SIZE
from cmkd_ros.ros.benchmark.camera_process import run_camera, shared_memory_profile
from cmkd_ros.ros.benchmark.measured_node import NodeRecord, run_measured_node
from cmkd_ros.ros.benchmark.peer_process import PeerProcess
from cmkd_ros.ros.exchange import START_TIMEOUT_S
from cmkd_ros.ros.node_process import ros_environment
from cmkd_ros.ros.pairing import stamp_ns

WARM_UP_S = 3.0  # while the processes find each other; its images do not count
_LAST_ANSWER_S = 10.0  # to wait for it, beside the time of the stand-in
_QUANTILES = (50, 95, 99, 100)


@dataclass(frozen=True)
class Stream:
    """One run; times in milliseconds.

    Attributes:
        width, height: of the images, pixels.
        rate_hz: images a second.
        network: what ran, the model's path or the time of the stand-in.
        sent, answered: images after the warm-up, and those of them that were answered.
        published_ms: from before publishing an image to having published its boxes, by percentile.
        arrived_ms: the same until another process has them.
        longest_tick_ms: between two calls of a timer of 50 ms on the node's executor.
        counts: the node's counters that are not zero, warm-up included.
        memory_mb: of the node's process, after a fifth of the time and at the end.
    """

    width: int
    height: int
    rate_hz: float
    network: str
    sent: int
    answered: int
    published_ms: dict[str, float]
    arrived_ms: dict[str, float]
    longest_tick_ms: float
    counts: dict[str, int]
    memory_mb: dict[str, float]


def measure_stream(
    seconds: float,
    rate_hz: float = 30.0,
    network_s: float = 0.15,
    size: tuple[int, int] = KITTI_SIZE,
    model: Path | None = None,
    precision: str = 'auto',
    warm_up_s: float = WARM_UP_S,
) -> Stream:
    """Run camera and node for some time.

    Args:
        seconds: how long, after the warm-up.
        rate_hz: of the camera.
        network_s: time of the stand-in for a network, which leaves the processor free as one on a
            GPU does.
        size: width and height of the images, pixels.
        model: bundle to run instead of the stand-in.
        precision: of the model, as the node's parameter.
        warm_up_s: seconds before.

    Raises:
        FailedError, TimeoutError: a process ended, or did not answer.
    """
    os.environ.update(ros_environment())
    namespace = f'/cmkd_benchmark_{os.getpid()}'
    parameters = {
        'pose.source': 'mount',
        'model.path': str(model or ''),
        'precision': precision,
    }
    wait_s = None if model else network_s
    images = (namespace, warm_up_s + seconds, rate_hz, size)
    with (
        PeerProcess('node', run_measured_node, namespace, parameters, wait_s) as node,
        _Listener(namespace) as listener,
        shared_memory_profile(),
        PeerProcess('camera', run_camera, *images) as camera,  # sends once the node subscribes
    ):
        node.hear(START_TIMEOUT_S)
        listener.connect()
        listener.listen_until(camera.has_spoken)
        stamps_ns = camera.hear(START_TIMEOUT_S)
        over = time.monotonic() + _LAST_ANSWER_S + network_s
        listener.listen_until(lambda: listener.has(stamps_ns[-1]) or time.monotonic() > over)
        node.tell('end')
        record = node.hear(START_TIMEOUT_S)
    network = model.name if model else f'{1e3 * network_s:g} ms'
    begin_ns = stamps_ns[0] + int(warm_up_s * 1e9)
    return _summary(listener, record, stamps_ns, begin_ns, (size, rate_hz, network))


class _Listener:
    """Subscribes what the node publishes; the messages are read when all is over."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.arrays: list[tuple[int, bytes]] = []
        self.latencies: list[tuple[int, bytes]] = []

    def __enter__(self) -> _Listener:
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node('listener', namespace=self._namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        qos = QoSProfile(depth=100)
        self._subscriptions = [
            self._node.create_subscription(kind, topic, _keep(kept), qos, raw=True)
            for kind, topic, kept in (
                (Detection3DArray, 'detections', self.arrays),
                (Float64, 'debug/pipeline_latency_ms', self.latencies),
            )
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()

    def connect(self) -> None:
        """Wait for the node's publishers."""
        deadline = time.monotonic() + START_TIMEOUT_S

        def connected() -> bool:
            if time.monotonic() > deadline:
                raise TimeoutError('the node was not found by another process')
            return all(one.get_publisher_count() for one in self._subscriptions)

        self.listen_until(connected)

    def has(self, stamp: int) -> bool:
        """Whether the last answer is to the image of that stamp, and its time is here too."""
        if not self.arrays or len(self.latencies) < len(self.arrays):
            return False
        return _stamp_of(self.arrays[-1][1]) == stamp

    def listen_until(self, condition: Callable[[], bool]) -> None:
        """Keep what comes until the condition is true."""
        while not condition():
            self._executor.spin_once(0.05)


def _keep(kept: list[tuple[int, bytes]]) -> Callable[[bytes], None]:
    return lambda message_cdr: kept.append((time.time_ns(), message_cdr))


def _stamp_of(array_cdr: bytes) -> int:
    return stamp_ns(deserialize_message(array_cdr, Detection3DArray).header.stamp)


def _summary(
    listener: _Listener,
    record: NodeRecord,
    stamps_ns: Sequence[int],
    begin_ns: int,
    setting: tuple[tuple[int, int], float, str],
) -> Stream:
    (width, height), rate_hz, network = setting
    sent = {stamp for stamp in stamps_ns if stamp >= begin_ns}
    arrived_ms = {}
    for time_ns, message_cdr in listener.arrays:
        if (stamp := _stamp_of(message_cdr)) in sent:
            arrived_ms[stamp] = (time_ns - stamp) / 1e6
    published_ms = []
    for time_ns, message_cdr in listener.latencies:
        latency_ms = deserialize_message(message_cdr, Float64).data
        if time_ns - latency_ms * 1e6 >= begin_ns:
            published_ms.append(latency_ms)
    ticks_ns = np.array([tick for tick in record.ticks_ns if begin_ns <= tick <= stamps_ns[-1]])
    settled_mb = record.memory_mb[len(record.memory_mb) // 5 :]
    return Stream(
        width=width,
        height=height,
        rate_hz=rate_hz,
        network=network,
        sent=len(sent),
        answered=len(arrived_ms),
        published_ms=_percentiles(published_ms),
        arrived_ms=_percentiles(list(arrived_ms.values())),
        longest_tick_ms=round(float(np.diff(ticks_ns).max(initial=0)) / 1e6, 1),
        counts={name: count for name, count in record.counts.items() if count},
        memory_mb={'then': round(settled_mb[0], 1), 'at_the_end': round(settled_mb[-1], 1)},
    )


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """Empty where nothing was answered."""
    if not values_ms:
        return {}
    return {f'p{q}': round(float(np.percentile(values_ms, q)), 2) for q in _QUANTILES}
