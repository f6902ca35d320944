"""The lifecycle node `detector`: image + camera_info in, Detection3DArray out.

Two threads. The executor's receives messages, answers services and never computes; the worker's
loads the network, runs it and publishes. Between them is one slot with the newest image.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_policy_name_from_kind
from rclpy.signals import uninstall_signal_handlers
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmkd_ros.ros.health import Health, diagnostic_array
from cmkd_ros.ros.image_loop import REPEAT_S, ImageLoop
from cmkd_ros.ros.outputs import Outputs
from cmkd_ros.ros.pairing import CameraInfos
from cmkd_ros.ros.parameters import ParameterHandler, Parameters
from cmkd_ros.ros.pipeline import Pipeline
from cmkd_ros.ros.pose import PoseChooser
from cmkd_ros.ros.qos import input_qos
from cmkd_ros.ros.tf_subscription import subscribe_transforms
from cmkd_ros.ros.worker import Worker

if TYPE_CHECKING:
    from cmkd_ros.detector import Detector

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DetectorNode(LifecycleNode):
    """See the module."""

    def __init__(self, **kwargs: Any) -> None:
        """Declare the parameters; everything else is made when the node is configured.

        Raises:
            ValueError, rclpy.exceptions.ParameterException: a parameter that does not validate.
        """
        super().__init__('detector', **kwargs)
        self._settings = ParameterHandler(self, may_change_all=self._is_unconfigured)
        self._health = Health()
        self._infos = CameraInfos()
        self._worker: Worker | None = None
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._images: Any = None
        self._subscriptions_made: list[Any] = []
        self._facts: dict[str, str] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._timer = self.create_timer(1.0, self._report)

    @property
    def autostart(self) -> bool:
        """Whether the process is to configure and activate the node at once."""
        return self._settings.current.autostart

    @property
    def counts(self) -> dict[str, int]:
        """Counters of images since the last configure, by the names of `health.COUNTERS`."""
        return self._health.counts

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, make the publishers, listen for calibrations and transforms."""
        try:
            self._configure(self._settings.current)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            self.get_logger().error(f'cannot be configured: {error}')
            self._release()
            return FAILURE
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Warm the network up, then begin to take images."""
        started = time.perf_counter()
        try:
            topic = self._activate(self._settings.current)
        except (ValueError, RuntimeError, MemoryError) as error:
            self.get_logger().error(f'cannot be activated: {error}')
            self._stop_images()
            return FAILURE
        self.get_logger().info(
            f'active after {time.perf_counter() - started:.1f} s of warm-up; images on {topic}, '
            f'detections on {self.resolve_topic_name("detections")}'
        )
        super().on_activate(state)  # switches the publishers on
        if self._outputs is not None and self._pipeline is not None:
            threshold = self._pipeline.post(self._settings.current).score_threshold
            self._outputs.publish_labels(self.get_clock().now().to_msg(), threshold)
        return SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take no more images; returns after the one in progress."""
        self._stop_images()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and all that configure made."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, from whichever state."""
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything and be ready to be configured again."""
        self._release()
        return SUCCESS

    def close(self) -> None:
        """End the worker and destroy the node."""
        if self._worker is not None:
            self._worker.stop()
        self.destroy_node()

    def _configure(self, parameters: Parameters) -> None:
        self._health.reset()
        self._worker = Worker('cmkd_worker')
        detector, reference_height_m = self._worker.call(lambda: _load(parameters))
        self._facts = {
            'model': parameters.model.path,
            'device': str(detector.device),
            'precision': detector.precision,
            'classes': ', '.join(detector.class_names),
        }
        self.get_logger().info('loaded ' + ', '.join(self._facts.values()))
        self._subscriptions_made = [
            self.create_subscription(
                CameraInfo,
                'camera_info',
                self._infos.put,
                input_qos(parameters.qos, depth=10),
                event_callbacks=self._qos_mismatch('camera_info'),
            )
        ]
        transforms = None
        if parameters.pose.source in ('auto', 'tf'):
            transforms, subscriptions = subscribe_transforms(self)
            self._subscriptions_made += subscriptions
        poses = PoseChooser(reference_height_m, transforms)
        self._pipeline = Pipeline(detector, self._infos, poses, self._decided)
        self._outputs = Outputs(self, detector.class_names)

    def _activate(self, parameters: Parameters) -> str:
        """Return the topic that images are taken from."""
        pipeline, worker, outputs = self._pipeline, self._worker, self._outputs
        if pipeline is None or worker is None or outputs is None:
            raise RuntimeError('it was not configured')
        worker.call(lambda: pipeline.warm_up(parameters))
        loop = ImageLoop(
            pipeline,
            outputs,
            self._health,
            parameters=lambda: self._settings.current,
            now_ns=lambda: self.get_clock().now().nanoseconds,
            is_alive=self.context.ok,
            logger=self.get_logger(),
        )
        # The convention of image_transport: the compressed stream lies below the image's topic.
        compressed = parameters.image_transport == 'compressed'
        topic = self.resolve_topic_name('image') + ('/compressed' if compressed else '')
        self._images = self.create_subscription(
            CompressedImage if compressed else Image,
            topic,
            loop.put,
            input_qos(parameters.qos, depth=1),
            event_callbacks=self._qos_mismatch(topic),
        )
        worker.repeat(loop.step)
        return self._images.topic_name

    def _stop_images(self) -> None:
        if self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
        if self._worker is not None:
            self._worker.pause()

    def _release(self) -> None:
        self._stop_images()
        if self._worker is not None:
            self._worker.stop()
        if self._outputs is not None:
            self._outputs.destroy()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._worker = self._pipeline = self._outputs = None
        self._subscriptions_made, self._facts = [], {}
        self._infos.clear()
        gc.collect()

    def _decided(self, subject: str, decision: str, doubt: str) -> None:
        self._health.decide(subject, decision, doubt)
        self.get_logger().info(f'{subject}: {decision}')
        if doubt:
            self.get_logger().warning(f'{subject}: {doubt}')

    def _qos_mismatch(self, topic: str) -> SubscriptionEventCallbacks:
        def tell(event: QoSRequestedIncompatibleQoSInfo) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            sentence = (
                f'a publisher on {topic} offers another {policy} than parameter qos = '
                f"'{self._settings.current.qos}' asks for, nothing of it arrives"
            )
            self._health.doubt(f'qos of {topic}', sentence)
            self.get_logger().warning(sentence)

        self._health.doubt(f'qos of {topic}', '')
        return SubscriptionEventCallbacks(incompatible_qos=tell)

    def _is_unconfigured(self) -> bool:
        return self._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED

    def _report(self) -> None:
        """Once a second: diagnostics, and what an active node without images waits for."""
        state = self._state_machine.current_state[1]
        missing = self._what_is_missing() if state == 'active' else ''
        if missing:
            self.get_logger().warning(missing, throttle_duration_sec=REPEAT_S)
        budget_ms = self._settings.current.health.latency_budget_ms
        name = self.get_fully_qualified_name()
        status = self._health.status(name, state, budget_ms, missing, self._facts)
        self._diagnostics.publish(diagnostic_array(self.get_clock().now().to_msg(), status))

    def _what_is_missing(self) -> str:
        silent_s = self._health.seconds_since_image()
        if silent_s is not None and silent_s < 2.0:
            return ''  # images that cannot be processed are told of one by one
        since = 'yet' if silent_s is None else f'for {silent_s:.0f} s'
        publishers = self._images.get_publisher_count()
        missing = f'no image on {self._images.topic_name} {since} ({publishers} publishers match)'
        return missing if self._infos.frames() else f'{missing}; no camera_info either'


def _load(parameters: Parameters) -> tuple[Detector, float]:
    """Load the detector; also return the height of its reference frame."""
    if not parameters.model.path:
        raise ValueError('parameter model.path is empty, expected a model file (*.cmkd)')
    # Imported here, in the worker: torch takes a second, and signals are answered meanwhile.
    from cmkd_ros.checkpoint import load_bundle
    from cmkd_ros.detector import Detector

    bundle = load_bundle(parameters.model.path)
    detector = Detector.from_bundle(bundle, parameters.device, parameters.precision)
    return detector, bundle.reference_height_m


def run(args: Sequence[str] | None, ros_is_up: threading.Event) -> int:
    """Run the node until it is told to end.

    Args:
        args: command line without the program's name; None takes the process's own.
        ros_is_up: is set once rclpy handles signals.

    Returns:
        0 after SIGINT, SIGTERM or a shutdown of ROS; 2 when an argument or parameter is wrong.
    """
    # A result is worth more than a callback: let the worker have the interpreter back soon.
    sys.setswitchinterval(0.0005)
    try:
        rclpy.init(args=args)
        ros_is_up.set()
        node = DetectorNode()
    except (ValueError, RuntimeError, ParameterException) as error:
        if ros_is_up.is_set() and not rclpy.ok():
            return 0  # a signal ended ROS under the node's hands
        rclpy.logging.get_logger('detector').fatal(str(error).splitlines()[0])
        return 2
    try:
        _spin(node)
    except ExternalShutdownException:
        pass
    finally:
        _close(node)
    return 0


def _spin(node: DetectorNode) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.autostart and node.trigger_configure() == SUCCESS:
            node.trigger_activate()
        # What lives now lives long: keep the garbage collector from walking it again and again.
        gc.collect()
        gc.freeze()
        executor.spin()
    except RuntimeError:
        if rclpy.ok():  # else a signal ended ROS in the middle of a transition
            raise


def _close(node: DetectorNode) -> None:
    uninstall_signal_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    node.close()
    rclpy.try_shutdown()
