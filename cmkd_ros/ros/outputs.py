"""Everything the node publishes about an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Float64, Header
from vision_msgs.msg import Detection3DArray, LabelInfo, VisionClass
from visualization_msgs.msg import MarkerArray

from cmkd_ros.ros.detection_messages import DetectionArrayPool
from cmkd_ros.ros.markers import detection_markers
from cmkd_ros.ros.overlay import debug_image
from cmkd_ros.ros.pipeline import SeenFrame
from cmkd_ros.ros.qos import LATCHED_QOS


class Outputs:
    """The publishers of detections and of pictures of them; lifecycle-managed by the node."""

    def __init__(self, node: LifecycleNode, classes: tuple[str, ...]) -> None:
        """Create the publishers on `node`; `classes` are the model's class names."""
        self._node = node
        self._classes = classes
        self._pool = DetectionArrayPool()
        self._made: list[Any] = []
        self._detections = self._publisher(Detection3DArray, 'detections', 10)
        self._markers = self._publisher(MarkerArray, '~/markers', 1)
        self._debug_image = self._publisher(Image, '~/debug_image', 1)
        self._processing_ms = self._publisher(Float64, 'debug/processing_time_ms', 1)
        self._latency_ms = self._publisher(Float64, 'debug/pipeline_latency_ms', 1)
        self._labels = self._publisher(LabelInfo, '~/label_info', LATCHED_QOS)

    def is_watched(self) -> bool:
        """Whether anybody subscribes to what a processed image gives."""
        return any(
            publisher.get_subscription_count()
            for publisher in (self._detections, self._markers, self._debug_image)
        )

    def publish_labels(self, stamp: Time, score_threshold: float) -> None:
        """Tell the model's classes, in their order, to everybody who comes now or later."""
        message = LabelInfo(threshold=score_threshold)
        message.header.stamp = stamp
        message.class_map = [
            VisionClass(class_id=index, class_name=name) for index, name in enumerate(self._classes)
        ]
        self._labels.publish(message)

    def publish_detections(self, frame: SeenFrame) -> None:
        """Publish the array, empty ones too.

        Raises:
            ValueError: a number of the detections is not finite; nothing was published.
        """
        array = self._pool.fill(frame.header, frame.detections, frame.T_header_ref)
        self._detections.publish(array)

    def publish_pictures(self, image_header: Header, frame: SeenFrame) -> None:
        """Publish markers and debug image where somebody looks at them.

        Args:
            image_header: of the image, for the debug image; markers are where the detections are.
            frame: what was seen.
        """
        if self._markers.get_subscription_count():
            markers = detection_markers(
                frame.header, frame.detections, frame.T_header_ref, self._classes
            )
            self._markers.publish(markers)
        if self._debug_image.get_subscription_count():
            self._debug_image.publish(debug_image(image_header, frame))

    def publish_times(self, processing_ms: float, latency_ms: float) -> None:
        """Publish how long the image took inside the node, and since its stamp."""
        self._processing_ms.publish(Float64(data=processing_ms))
        self._latency_ms.publish(Float64(data=latency_ms))

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._made:
            self._node.destroy_lifecycle_publisher(publisher)
        self._made.clear()

    def _publisher(self, kind: type, topic: str, qos: int | QoSProfile) -> Any:
        create: Callable[..., Any] = self._node.create_lifecycle_publisher
        self._made.append(create(kind, topic, qos))
        return self._made[-1]
