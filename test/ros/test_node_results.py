"""What the node publishes, spun for real and spoken to over DDS only."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64
from visualization_msgs.msg import MarkerArray

from cmkd_ros import CameraModel
from cmkd_ros.geometry import camera_mount_pose
from cmkd_ros.ros.detection_messages import detections_from_message

POSE = camera_mount_pose(1.65)


def test_detections_equal_the_detector_and_carry_the_images_header(
    active, messages, picture, detector, small_P_px_34
):
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    counts = []
    for seed in range(3):
        image = messages.image(picture(seed), 10**9 * (10 + seed) + 123)
        answer = active.ask(messages, image)
        assert answer.header == image.header
        assert all(detection.header == image.header for detection in answer.detections)
        expected = detector(picture(seed), camera, POSE)
        found = detections_from_message(answer, POSE)
        assert found.class_names == expected.class_names
        np.testing.assert_allclose(found.scores_N, expected.scores_N, atol=1e-6)
        np.testing.assert_allclose(
            found.boxes.array_N7[:, :6], expected.boxes.array_N7[:, :6], atol=1e-4
        )
        counts.append(len(expected))
    assert max(counts) > 0


def test_an_image_without_objects_is_answered_too(active, messages, picture):
    (result,) = active.set_parameters(post__score_threshold=1.0)
    assert result.successful
    try:
        assert len(active.ask(messages, messages.image(picture(5), 50 * 10**9)).detections) == 0
    finally:
        active.set_parameters(post__score_threshold=-1.0)


def test_thresholds_are_live_and_go_back_to_the_models_own(active, messages, picture):
    before = active.ask(messages, messages.image(picture(6), 60 * 10**9))
    scores = [d.results[0].hypothesis.score for d in before.detections]
    assert len(scores) > 2
    cut = float(np.median(scores))
    active.set_parameters(post__score_threshold=cut)
    fewer = active.ask(messages, messages.image(picture(6), 61 * 10**9))
    assert [d.results[0].hypothesis.score for d in fewer.detections] == [
        s for s in scores if s > cut
    ]
    active.set_parameters(post__score_threshold=-1.0)
    again = active.ask(messages, messages.image(picture(6), 62 * 10**9))
    assert len(again.detections) == len(scores)


def test_encodings_give_equal_detections(active, messages, picture):
    rgb = picture(8)
    first = active.ask(messages, messages.image(rgb, 400 * 10**9))
    for index, (encoding, pixels) in enumerate(
        {
            'bgr8': rgb[..., ::-1],
            'bgra8': np.dstack([rgb[..., ::-1], rgb[..., :1]]),
            'rgba8': np.dstack([rgb, rgb[..., :1]]),
        }.items()
    ):
        image = messages.image(pixels, (401 + index) * 10**9, encoding, padding=7)
        assert [d.bbox for d in active.ask(messages, image).detections] == [
            d.bbox for d in first.detections
        ]


def test_compressed_images(make_bench, small_model, messages, picture, detector, small_P_px_34):
    import cv2

    bench = make_bench(
        model__path=str(small_model),
        device='cpu',
        pose__source='mount',
        image_transport='compressed',
        qos='sensor_data',
    )
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.peer.destroy_publisher(bench.images)
    bench.images = bench.peer.create_publisher(CompressedImage, 'image/compressed', 10)
    bench.wait(bench.connected)
    data = cv2.imencode('.png', picture(3)[..., ::-1])[1].tobytes()
    image = messages.header(CompressedImage(format='png', data=data), 10**9, 'camera')
    answer = bench.ask(messages, image)
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    assert len(answer.detections) == len(detector(picture(3), camera, POSE))


def test_markers_and_debug_image_only_for_those_who_look(active, messages, picture):
    markers, pictures = [], []
    subscriptions = [
        active.peer.create_subscription(MarkerArray, 'detector/markers', markers.append, 1),
        active.peer.create_subscription(Image, 'detector/debug_image', pictures.append, 1),
    ]
    active.wait(lambda: all(s.get_publisher_count() for s in subscriptions))
    seconds = 500
    while not (markers and pictures):  # the node may match a subscription later than we do
        seconds += 1
        answer = active.ask(messages, messages.image(picture(9), seconds * 10**9))
        assert seconds < 520
        time.sleep(0.05)
    assert len(markers[-1].markers) == len(answer.detections) + 2
    assert (pictures[-1].width, pictures[-1].height) == (320, 96)
    for subscription in subscriptions:
        active.peer.destroy_subscription(subscription)


def test_labels_are_told_to_who_comes_late(active):
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from vision_msgs.msg import LabelInfo

    found = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = active.peer.create_subscription(
        LabelInfo, 'detector/label_info', found.append, latched
    )
    active.wait(lambda: found)
    names = {label.class_id: label.class_name for label in found[0].class_map}
    assert names == {0: 'Car', 1: 'Pedestrian', 2: 'Cyclist'}
    assert found[0].threshold == pytest.approx(0.3)
    active.peer.destroy_subscription(subscription)


def test_the_type_on_the_wire_is_the_official_one(active):
    (info,) = active.peer.get_publishers_info_by_topic('detections')
    assert info.topic_type == 'vision_msgs/msg/Detection3DArray'


def test_times_are_published_as_autoware_names_them(active, messages, picture):
    found = {'debug/processing_time_ms': [], 'debug/pipeline_latency_ms': []}
    subscriptions = [
        active.peer.create_subscription(Float64, topic, values.append, 1)
        for topic, values in found.items()
    ]
    active.wait(lambda: all(s.get_publisher_count() for s in subscriptions))
    while not all(found.values()):  # the node may match a subscription later than we do
        active.ask(messages, messages.image(picture(2), time.time_ns()))
        time.sleep(0.05)
    processing, latency = (values[-1].data for values in found.values())
    assert 0.0 < processing < 5000.0
    assert processing <= latency + 0.1
    for subscription in subscriptions:
        active.peer.destroy_subscription(subscription)
