"""The node under measurement and a peer that talks to it over DDS, each spun by its own thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3DArray

from cmkd_ros.ros.detector_node import SUCCESS, DetectorNode
from cmkd_ros.ros.node_process import ros_environment


def resident_mb() -> float:
    """Memory of this process that is in RAM, MB (2^20 bytes)."""
    with open('/proc/self/statm') as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


class Rig:
    """A context in which the node is active and a peer publishes and listens."""

    def __init__(self, parameters: Mapping[str, Any], load: Callable | None = None) -> None:
        """Prepare; `load` as of `DetectorNode`."""
        self._parameters = parameters
        self._load = load
        self._executors: list[SingleThreadedExecutor] = []
        self._threads: list[threading.Thread] = []
        self.answers = 0
        self.last: Detection3DArray | None = None

    def __enter__(self) -> Rig:
        """Start the node and the peer.

        Raises:
            RuntimeError: the node could not be configured or activated; its log says why.
        """
        os.environ.update(ros_environment())
        self._context = Context()
        rclpy.init(context=self._context)
        space = f'/cmkd_benchmark_{os.getpid()}'
        given = [Parameter(name, value=value) for name, value in self._parameters.items()]
        self.node = DetectorNode(
            load=self._load, context=self._context, namespace=space, parameter_overrides=given
        )
        self.peer = rclpy.create_node('peer', namespace=space, context=self._context)
        self.images = self.peer.create_publisher(Image, 'image', 1)
        self.infos = self.peer.create_publisher(CameraInfo, 'camera_info', 10)
        self.peer.create_subscription(Detection3DArray, 'detections', self._count, 10)
        if self.node.trigger_configure() != SUCCESS or self.node.trigger_activate() != SUCCESS:
            raise RuntimeError('the node could not be started; its log above says why')
        for node in (self.node, self.peer):
            executor = SingleThreadedExecutor(context=self._context)
            executor.add_node(node)
            self._executors.append(executor)
            self._threads.append(threading.Thread(target=_spin, args=(executor,), daemon=True))
            self._threads[-1].start()
        self.wait(
            lambda: self.images.get_subscription_count() and self.infos.get_subscription_count()
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for executor in self._executors:
            executor.shutdown()
        for thread in self._threads:
            thread.join(5.0)
        self.node.close()
        self.peer.destroy_node()
        self._context.try_shutdown()

    def wait(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
        """Wait for a condition.

        Raises:
            TimeoutError: it did not come true.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f'the node did not answer within {timeout_s:.0f} s')
            time.sleep(0.002)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the node.

        Raises:
            TimeoutError: no answer.
        """
        client = self.peer.create_client(kind, f'detector/{name}')
        self.wait(client.service_is_ready)
        future = client.call_async(request)
        self.wait(future.done)
        self.peer.destroy_client(client)
        return future.result()

    def change_state(self, transition: str) -> bool:
        """Ask the node for a transition by its label; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(label=transition))
        return self.call(ChangeState, 'change_state', request).success

    def _count(self, message: Detection3DArray) -> None:
        self.last = message
        self.answers += 1


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()
