"""Question and answer with a detector node in a process of its own: one image, one array."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3DArray

from cmkd_ros.errors import FailedError
from cmkd_ros.ros.node_process import NodeProcess, detector_process, ros_environment
from cmkd_ros.ros.pairing import stamp_ns

START_TIMEOUT_S = 180.0  # process start, model and warm-up on a slow machine
_SETTLE_S = 0.3  # an answer too many would come within this
_REPEAT_INFO_S = 0.1
_QOS = QoSProfile(depth=10)  # reliable


class Exchange:
    """A context in which the node is up and active; `ask` it about images."""

    def __init__(self, parameters: Mapping[str, Any], timeout_s: float) -> None:
        """Prepare; nothing starts before the context is entered.

        Args:
            parameters: of the node, by dotted name.
            timeout_s: for the answer to one image.
        """
        self._parameters = {**parameters, 'autostart': False}
        self._timeout_s = timeout_s
        self._namespace = f'/cmkd_replay_{os.getpid()}_{time.monotonic_ns() % 1_000_000}'
        self._stack = ExitStack()
        self._answers: dict[int, list[bytes]] = {}

    def __enter__(self) -> Exchange:
        """Start the node and activate it.

        Raises:
            FailedError: it ended or refused; gives its last error.
            TimeoutError: it did not answer.
        """
        with ExitStack() as stack:
            self._process: NodeProcess = stack.enter_context(
                detector_process(self._parameters, {}, self._namespace)
            )
            self._open_client(stack)
            for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
                request = ChangeState.Request(transition=Transition(id=transition))
                if not self._call(ChangeState, 'change_state', request).success:
                    raise FailedError(f'the node cannot start: {self._process.complaint()}')
            self._wait(self._is_connected, START_TIMEOUT_S, 'did not connect to the topics')
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def ask(self, image_cdr: bytes, info_cdr: bytes, stamp: int) -> tuple[bytes, float]:
        """Send one image with its camera_info and wait for its answer.

        Args:
            image_cdr, info_cdr: serialised messages.
            stamp: of the image, ns.

        Returns:
            The serialised Detection3DArray, and the milliseconds it took.

        Raises:
            TimeoutError, FailedError: no answer; gives the node's last error.
        """
        started = time.perf_counter()
        self._infos.publish(info_cdr)
        self._images.publish(image_cdr)
        # In the burst of a large image the small camera_info can get lost, and the middleware would
        # send it again only later, while the image waits for it. A copy does no harm.
        repeat_at = time.monotonic() + _REPEAT_INFO_S
        while stamp not in self._answers and time.monotonic() < repeat_at:
            self._executor.spin_once(0.01)
        self._infos.publish(info_cdr)
        self._wait(
            lambda: stamp in self._answers, self._timeout_s, f'did not answer image {stamp} ns'
        )
        return self._answers[stamp][0], (time.perf_counter() - started) * 1e3

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Change live parameters of the node; in force when this returns.

        Raises:
            FailedError: the node refused.
        """
        messages = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        result = self._call(SetParametersAtomically, 'set_parameters_atomically', request).result
        if not result.successful:
            raise FailedError(f'the node refused a parameter: {result.reason}')

    def expect_nothing_more(self) -> None:
        """Raise FailedError if an image was answered twice, or one that was not asked about."""
        deadline = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline:
            self._executor.spin_once(0.05)
        twice = [stamp for stamp, answers in self._answers.items() if len(answers) > 1]
        if twice:
            raise FailedError(f'the node answered image {twice[0]} ns more than once')

    def _open_client(self, stack: ExitStack) -> None:
        # What the wheels' middleware needs to be found; on a machine with ROS all is set already.
        os.environ.update(ros_environment())
        context = Context()
        rclpy.init(context=context)
        stack.callback(context.try_shutdown)
        self._node = rclpy.create_node('replay', namespace=self._namespace, context=context)
        stack.callback(self._node.destroy_node)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        stack.callback(self._executor.shutdown)
        self._images = self._node.create_publisher(Image, 'image', _QOS)
        self._infos = self._node.create_publisher(CameraInfo, 'camera_info', _QOS)
        self._detections = self._node.create_subscription(
            Detection3DArray, 'detections', self._on_answer, _QOS, raw=True
        )

    def _on_answer(self, message_cdr: bytes) -> None:
        message = deserialize_message(message_cdr, Detection3DArray)
        self._answers.setdefault(stamp_ns(message.header.stamp), []).append(message_cdr)

    def _is_connected(self) -> bool:
        return bool(
            self._images.get_subscription_count()
            and self._infos.get_subscription_count()
            and self._detections.get_publisher_count()
        )

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        client = self._node.create_client(kind, f'detector/{name}')
        try:
            self._wait(client.service_is_ready, START_TIMEOUT_S, f'does not offer {name}')
            future = client.call_async(request)
            self._wait(future.done, START_TIMEOUT_S, f'did not answer {name}')
            return future.result()
        finally:
            self._node.destroy_client(client)

    def _wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self._process.exit_code() is not None:
                raise FailedError(
                    f'the node ended with exit code {self._process.exit_code()}: '
                    f'{self._process.complaint()}'
                )
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f'the node {what} within {timeout_s:.0f} s; it last said: '
                    f'{self._process.complaint()}'
                )
            self._executor.spin_once(0.05)
