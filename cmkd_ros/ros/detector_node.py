"""The lifecycle node `detector`: image + camera_info in, Detection3DArray out.

Two threads. The executor's receives messages, answers services and never computes; the worker's
loads the network, runs it and publishes. Between them is one slot with the newest image.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import (
    QoSMessageLostInfo,
    QoSRequestedIncompatibleQoSInfo,
    SubscriptionEventCallbacks,
)
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_policy_name_from_kind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmkd_ros.ros.health import Health, diagnostic_array
from cmkd_ros.ros.image_loop import REPEAT_S, ImageLoop
from cmkd_ros.ros.missing import describe_wait
from cmkd_ros.ros.outputs import Outputs
from cmkd_ros.ros.pairing import CameraInfos
from cmkd_ros.ros.parameter_handler import ParameterHandler
from cmkd_ros.ros.parameters import Parameters
from cmkd_ros.ros.pipeline import Pipeline
from cmkd_ros.ros.pose import PoseChooser
from cmkd_ros.ros.qos import input_qos, overriding_options
from cmkd_ros.ros.tf_subscription import subscribe_transforms
from cmkd_ros.ros.worker import Worker

if TYPE_CHECKING:
    from cmkd_ros.detector import Detector

SILENT_S = 2.0  # without an image for so long, the node asks where they are
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DetectorNode(LifecycleNode):
    """See the module."""

    def __init__(
        self, load: Callable[[Parameters], tuple[Detector, float]] | None = None, **kwargs: Any
    ) -> None:
        """Declare the parameters; everything else is made when the node is configured.

        Args:
            load: gives the detector and the height of its reference frame above the ground,
                metres; None reads `model.path`. It is called in the worker's thread.
            kwargs: of rclpy's node.

        Raises:
            ValueError, rclpy.exceptions.ParameterException: a parameter that does not validate.
        """
        super().__init__('detector', **kwargs)
        self._settings = ParameterHandler(self, may_change_all=self._is_unconfigured)
        self._load = load or load_model
        self._health = Health()
        self._infos = CameraInfos()
        # One for the node's life: memory that a thread has freed goes back to that thread only.
        self._worker = Worker('cmkd_worker')
        self._pipeline: Pipeline | None = None
        self._outputs: Outputs | None = None
        self._wake: Callable[[], None] = _do_nothing
        self._images: Any = None
        self._info_subscription: Any = None
        self._subscriptions_made: list[Any] = []
        self._facts: dict[str, str] = {}
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # By a clock of its own: simulated time may stand still, and just then it must speak.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1.0, self._report, clock=steady)

    @property
    def autostart(self) -> bool:
        """Whether the process is to configure and activate the node at once."""
        return self._settings.current.autostart

    @property
    def counts(self) -> dict[str, int]:
        """Counters of images since the last configure, by the names of `health.COUNTERS`."""
        return self._health.counts

    @property
    def times(self) -> dict[str, float]:
        """Percentiles of the last results' times, as in the table of diagnostics."""
        return self._health.times()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, make the publishers, listen for calibrations and transforms."""
        try:
            self._configure(self._settings.current)
        except (OSError, ValueError, RuntimeError, MemoryError, ParameterException) as error:
            self._tell_failure(f'cannot be configured: {error}')
            self._release()
            return FAILURE
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Warm the network up, then begin to take images."""
        started = time.perf_counter()
        try:
            topic = self._activate(self._settings.current)
        except (ValueError, RuntimeError, MemoryError) as error:
            self._tell_failure(f'cannot be activated: {error}')
            self._stop_images()
            return FAILURE
        self._health.failed_transition('')
        self.get_logger().info(
            f'active after {time.perf_counter() - started:.1f} s of warm-up; images on {topic}, '
            f'detections on {self.resolve_topic_name("detections")}'
        )
        super().on_activate(state)  # switches the publishers on
        if self._outputs is not None and self._pipeline is not None:
            threshold = self._pipeline.post(self._settings.current).score_threshold
            self._outputs.publish_labels(self.get_clock().now().to_msg(), threshold)
        # What lives now lives until the node stops: keep the garbage collector, which halts every
        # thread, from walking it again and again.
        gc.freeze()
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
        self._worker.stop()
        self.destroy_node()

    def _configure(self, parameters: Parameters) -> None:
        self._health.reset()
        detector, reference_height_m = self._worker.call(lambda: self._load(parameters))
        self._facts = {
            'model': parameters.model.path,
            'device': str(detector.device),
            'precision': detector.precision,
            'backend': detector.backend,
            'classes': ', '.join(detector.class_names),
        }
        self.get_logger().info('loaded ' + ', '.join(self._facts.values()))
        self._settings.declare_classes(detector.class_names)
        self._info_subscription = self._subscribe(
            CameraInfo, self.resolve_topic_name('camera_info'), self._infos.put, parameters.qos, 10
        )
        self._subscriptions_made = [self._info_subscription]
        transforms = None
        if parameters.pose.source in ('auto', 'tf') or parameters.target_frame:
            transforms, subscriptions = subscribe_transforms(self)
            self._subscriptions_made += subscriptions
        poses = PoseChooser(reference_height_m, transforms)
        self._pipeline = Pipeline(detector, self._infos, poses, self._decided)
        self._outputs = Outputs(self, detector.class_names)
        gc.collect()  # what loading left behind

    def _activate(self, parameters: Parameters) -> str:
        """Return the topic that images are taken from."""
        pipeline, worker, outputs = self._pipeline, self._worker, self._outputs
        if pipeline is None or outputs is None:
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
        kind = CompressedImage if compressed else Image
        self._images = self._subscribe(kind, topic, loop.put, parameters.qos, 1)
        worker.repeat(loop.step)
        self._wake = loop.wake
        return self._images.topic_name

    def _stop_images(self) -> None:
        gc.unfreeze()
        if self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
        self._wake()
        self._worker.pause()

    def _release(self) -> None:
        self._stop_images()
        if self._outputs is not None:
            self._outputs.destroy()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._pipeline = self._outputs = self._info_subscription = None
        self._subscriptions_made, self._facts = [], {}
        self._wake = _do_nothing  # it holds the loop, and so the model
        self._infos.clear()
        gc.collect()

    def _decided(self, subject: str, decision: str, doubt: str) -> None:
        self._health.decide(subject, decision, doubt)
        self.get_logger().info(f'{subject}: {decision}')
        if doubt:
            self.get_logger().warning(f'{subject}: {doubt}')

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: str, depth: int
    ) -> Any:
        return self.create_subscription(
            kind,
            topic,
            callback,
            input_qos(qos, depth),
            event_callbacks=self._events(topic, counts_losses=kind is not CameraInfo),
            qos_overriding_options=overriding_options(self, topic),
            raw=kind is Image,
        )

    def _events(self, topic: str, counts_losses: bool) -> SubscriptionEventCallbacks:
        def lose(event: QoSMessageLostInfo) -> None:
            if counts_losses:
                self._health.count('lost', event.total_count_change)

        def tell(event: QoSRequestedIncompatibleQoSInfo) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind)
            sentence = (
                f'a publisher on {topic} offers another {policy} than parameter qos = '
                f"'{self._settings.current.qos}' asks for, nothing of it arrives"
            )
            self._health.doubt(f'qos of {topic}', sentence)
            self.get_logger().warning(sentence)

        self._health.doubt(f'qos of {topic}', '')
        return SubscriptionEventCallbacks(incompatible_qos=tell, message_lost=lose)

    def _tell_failure(self, sentence: str) -> None:
        self._health.failed_transition(sentence)
        self.get_logger().error(sentence)

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
        if self.get_clock().ros_time_is_active and not self.get_clock().now().nanoseconds:
            return 'use_sim_time is true, but no time has come on /clock yet'
        silent_s = self._health.seconds_since_image()
        if silent_s is not None and silent_s < SILENT_S:
            return ''  # images that cannot be processed are told of one by one
        kind = Image if self._images.msg_type is Image else CompressedImage
        return describe_wait(
            self,
            self._images,
            f'sensor_msgs/msg/{kind.__name__}',
            self._info_subscription,
            self._infos.frames(),
            silent_s,
        )


def load_model(parameters: Parameters) -> tuple[Detector, float]:
    """Load the detector of `model.path`; also return the height of its reference frame."""
    if not parameters.model.path:
        raise ValueError('parameter model.path is empty, expected a model file (*.cmkd)')
    # Imported here, in the worker: torch takes a second, and signals are answered meanwhile.
    from cmkd_ros.checkpoint import load_bundle
    from cmkd_ros.detector import Detector

    bundle = load_bundle(parameters.model.path)
    detector = Detector.from_bundle(
        bundle, parameters.device, parameters.precision, parameters.backend
    )
    return detector, bundle.reference_height_m


def _do_nothing() -> None:
    pass
