"""The node, spun for real, spoken to over DDS only."""

import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from cmkd_ros import CameraModel, Detector
from cmkd_ros.geometry import camera_mount_pose
from cmkd_ros.ros.detection_messages import detections_from_message

POSE = camera_mount_pose(1.65)


@pytest.fixture(scope='module')
def detector(small_model):
    return Detector.from_file(small_model)


@pytest.fixture(scope='module')
def active(make_bench, small_model):
    """An active node that somebody listens to."""
    bench = make_bench(model__path=str(small_model), device='cpu', pose__source='mount')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    return bench


def ask(bench, messages, image, **info):
    """Send one image with its camera_info and return the one answer."""
    stamp = image.header.stamp
    bench.infos.publish(messages.info(stamp.sec * 10**9 + stamp.nanosec, **info))
    bench.images.publish(image)
    bench.wait(lambda: bench.answers(stamp))
    (answer,) = bench.answers(stamp)
    return answer


def status_with(bench, condition):
    """The first diagnostic status of the bench's node from now on that meets a condition."""
    name = f'{bench.node.get_fully_qualified_name()}: detections'
    start = len(bench.diagnostics)

    def found():
        statuses = [message.status[0] for message in bench.diagnostics[start:]]
        return next((s for s in statuses if s.name == name and condition(s)), None)

    bench.wait(found)
    return found()


def values_of(status):
    return {pair.key: pair.value for pair in status.values}


def test_detections_equal_the_detector_and_carry_the_images_header(
    active, messages, picture, detector, small_P_px_34
):
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    counts = []
    for seed in range(3):
        image = messages.image(picture(seed), 10**9 * (10 + seed) + 123)
        answer = ask(active, messages, image)
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
        assert len(ask(active, messages, messages.image(picture(5), 50 * 10**9)).detections) == 0
    finally:
        active.set_parameters(post__score_threshold=-1.0)


def test_thresholds_are_live_and_go_back_to_the_models_own(active, messages, picture):
    before = ask(active, messages, messages.image(picture(6), 60 * 10**9))
    scores = [d.results[0].hypothesis.score for d in before.detections]
    assert len(scores) > 2
    cut = float(np.median(scores))
    active.set_parameters(post__score_threshold=cut)
    fewer = ask(active, messages, messages.image(picture(6), 61 * 10**9))
    assert [d.results[0].hypothesis.score for d in fewer.detections] == [
        s for s in scores if s > cut
    ]
    active.set_parameters(post__score_threshold=-1.0)
    again = ask(active, messages, messages.image(picture(6), 62 * 10**9))
    assert len(again.detections) == len(scores)


def test_what_needs_a_new_configuration_is_refused_while_active(active):
    (result,) = active.set_parameters(device='cuda')
    assert not result.successful
    assert "device = 'cuda'" in result.reason
    assert "stays 'cpu'" in result.reason


def test_the_pose_may_be_changed_between_two_images(active, messages, picture):
    """The boxes hang on the reference frame: a camera mounted lower sees them higher up."""
    high = ask(active, messages, messages.image(picture(7), 70 * 10**9))
    active.set_parameters(pose__camera_height=1.0)
    low = ask(active, messages, messages.image(picture(7), 71 * 10**9))
    active.set_parameters(pose__camera_height=1.65)
    assert high.detections
    assert low.detections
    assert high.detections[0].bbox != low.detections[0].bbox


FAULTS = {
    'unsupported encoding': {'encoding': '32FC1'},
    'truncated': {'data': bytes(100)},
    'empty': {'width': 0, 'height': 0, 'step': 0, 'data': b''},
    'huge': {'width': 2**31, 'height': 2**31},
    'other size than camera_info': {'width': 160, 'step': 480, 'data': bytes(480 * 96)},
}


def test_wrong_input_is_counted_and_the_next_image_is_answered(active, messages, picture):
    seconds = 100
    for fault in FAULTS.values():
        seconds += 1
        bad = active.node.counts['bad']
        image = messages.image(picture(0), seconds * 10**9)
        for name, value in fault.items():
            setattr(image, name, value)
        active.infos.publish(messages.info(seconds * 10**9))
        active.images.publish(image)
        active.wait(lambda bad=bad: active.node.counts['bad'] == bad + 1)
    zero = messages.info(200 * 10**9)
    zero.k, zero.p = [0.0] * 9, [0.0] * 12
    bad = active.node.counts['bad']
    active.infos.publish(zero)
    active.images.publish(messages.image(picture(0), 200 * 10**9))
    active.wait(lambda: active.node.counts['bad'] == bad + 1)
    status = status_with(active, lambda status: status.level == DiagnosticStatus.ERROR)
    assert 'K and P are both zero' in status.message

    assert ask(active, messages, messages.image(picture(0), 201 * 10**9)) is not None
    status_with(active, lambda status: status.level == DiagnosticStatus.OK)


def test_an_image_of_an_uncalibrated_frame_waits_and_says_for_what(active, messages, picture):
    waiting = active.node.counts['waiting']
    active.images.publish(messages.image(picture(0), 300 * 10**9, frame='nose'))
    active.wait(lambda: active.node.counts['waiting'] == waiting + 1)
    status = status_with(active, lambda status: 'nose' in status.message)
    assert "frame 'nose' yet, only of 'camera'" in status.message
    answer = ask(
        active, messages, messages.image(picture(0), 301 * 10**9, frame='nose'), frame='nose'
    )
    assert answer.header.frame_id == 'nose'


def test_encodings_give_equal_detections(active, messages, picture):
    rgb = picture(8)
    first = ask(active, messages, messages.image(rgb, 400 * 10**9))
    for index, (encoding, pixels) in enumerate(
        {
            'bgr8': rgb[..., ::-1],
            'bgra8': np.dstack([rgb[..., ::-1], rgb[..., :1]]),
            'rgba8': np.dstack([rgb, rgb[..., :1]]),
        }.items()
    ):
        image = messages.image(pixels, (401 + index) * 10**9, encoding, padding=7)
        assert [d.bbox for d in ask(active, messages, image).detections] == [
            d.bbox for d in first.detections
        ]


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
        answer = ask(active, messages, messages.image(picture(9), seconds * 10**9))
        assert seconds < 520
        time.sleep(0.05)
    assert len(markers[-1].markers) == len(answer.detections) + 2
    assert (pictures[-1].width, pictures[-1].height) == (320, 96)
    for subscription in subscriptions:
        active.peer.destroy_subscription(subscription)


def test_diagnostics_tell_model_decisions_counts_and_times(active, messages, picture):
    ask(active, messages, messages.image(picture(1), 600 * 10**9))
    processed = active.node.counts['processed']
    values = values_of(status_with(active, lambda _: True))
    assert values['state'] == 'active'
    assert values['model'].endswith('tiny.cmkd')
    assert values['device'] == 'cpu'
    assert values['camera pose'].startswith('parameters pose.camera_*: 1.65 m')
    assert '320x96, fx 190.0 px, used as it is' in values['calibration']
    assert float(values['processing_ms_p50']) > 0
    assert int(values['images_received']) >= processed


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


def test_a_focal_length_out_of_range_is_warned_of(active, messages, picture):
    P_px_34 = np.array([[40.0, 0, 158, 0], [0, 40, 44, 0], [0, 0, 1, 0]])
    ask(active, messages, messages.image(picture(1), 610 * 10**9), P=P_px_34)
    status = status_with(active, lambda status: 'focal length' in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert "40 px is far from the training camera's 190 px" in status.message
    ask(active, messages, messages.image(picture(1), 611 * 10**9))
    status_with(active, lambda status: status.level == DiagnosticStatus.OK)


def test_the_type_on_the_wire_is_the_official_one(active):
    (info,) = active.peer.get_publishers_info_by_topic('detections')
    assert info.topic_type == 'vision_msgs/msg/Detection3DArray'


def test_no_work_without_subscribers_and_who_comes_late_is_answered(
    make_bench, small_model, messages, picture
):
    bench = make_bench(model__path=str(small_model), device='cpu', pose__source='mount')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.wait(bench.connected)
    for second in (1, 2, 3):
        bench.infos.publish(messages.info(second * 10**9))
        bench.images.publish(messages.image(picture(second), second * 10**9))
        bench.wait(lambda second=second: bench.node.counts['received'] == second)
    time.sleep(0.2)
    assert bench.node.counts['processed'] == 0
    assert bench.node.counts['unwatched'] == 2
    bench.subscribe()
    bench.wait(lambda: bench.arrays)
    assert bench.arrays[0].header.stamp.sec == 3
    time.sleep(0.1)
    assert len(bench.arrays) == 1


def test_a_flood_of_images_is_thinned_to_the_newest(active, messages, picture):
    """Every image is either answered or counted as dropped, and answers never go back in time."""
    before, arrays = active.node.counts, len(active.arrays)
    active.infos.publish(messages.info(700 * 10**9))
    for index in range(60):
        active.images.publish(messages.image(picture(index % 5), 700 * 10**9 + index))
        time.sleep(0.002)

    def settled():
        now = active.node.counts
        done = sum(now[name] - before[name] for name in ('processed', 'dropped'))
        return done == now['received'] - before['received'] > 0

    active.wait(settled)
    time.sleep(0.2)
    assert settled()
    stamps = [array.header.stamp.nanosec for array in active.arrays[arrays:]]
    assert stamps == sorted(set(stamps))
    assert len(stamps) == active.node.counts['processed'] - before['processed']


def test_lifecycle_round_trips(make_bench, small_model, messages, picture):
    bench = make_bench(model__path='/nowhere/no.cmkd', device='cpu', pose__source='mount')
    bench.subscribe()
    assert not bench.change_state('configure')  # no such model: unconfigured it stays
    (result,) = bench.set_parameters(model__path=str(small_model))
    assert result.successful
    for second in range(1, 4):
        assert bench.change_state('configure')
        assert bench.change_state('activate')
        bench.wait(bench.connected)
        ask(bench, messages, messages.image(picture(0), second * 10**9))
        assert bench.change_state('deactivate')
        bench.images.publish(messages.image(picture(0), second * 10**9 + 1))
        assert bench.change_state('activate')
        bench.wait(bench.connected)
        ask(bench, messages, messages.image(picture(0), second * 10**9 + 2))
        assert bench.change_state('deactivate')
        assert bench.change_state('cleanup')
    assert [a.header.stamp.nanosec for a in bench.arrays] == [0, 2] * 3
    assert bench.change_state('shutdown')


def test_images_too_old_are_dropped_by_max_age(make_bench, small_model, messages, picture):
    bench = make_bench(
        model__path=str(small_model), device='cpu', pose__source='mount', max_age_s=3.0
    )
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    bench.infos.publish(messages.info())
    bench.images.publish(messages.image(picture(0), time.time_ns() - 10 * 10**9))
    bench.wait(lambda: bench.node.counts['stale'] == 1)
    ask(bench, messages, messages.image(picture(0), time.time_ns()))


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
    answer = ask(bench, messages, image)
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    assert len(answer.detections) == len(detector(picture(3), camera, POSE))


def test_a_publisher_of_another_reliability_is_told_of(make_bench, small_model):
    from rclpy.qos import qos_profile_sensor_data

    bench = make_bench(model__path=str(small_model), device='cpu')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.peer.create_publisher(Image, 'image', qos_profile_sensor_data)
    status = status_with(bench, lambda status: 'RELIABILITY' in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert "/image offers another RELIABILITY than parameter qos = 'reliable'" in status.message


def test_an_active_node_without_images_says_what_is_missing(make_bench, small_model):
    bench = make_bench(model__path=str(small_model), device='cpu')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    status = status_with(bench, lambda status: 'no image' in status.message)
    assert status.level == DiagnosticStatus.WARN
    topic = f'{bench.node.get_namespace()}/image'
    assert f'no image on {topic} yet (' in status.message
    assert status.message.endswith('no camera_info either')


def test_the_pose_comes_from_tf_where_there_is_one(
    make_bench, small_model, messages, picture, detector, small_P_px_34
):
    """A camera 1.2 m up and tilted on a robot whose base_link lies 0.1 m above the ground."""
    from geometry_msgs.msg import TransformStamped
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from tf2_msgs.msg import TFMessage

    from cmkd_ros.geometry import invert_se3, matrix_to_quaternion

    bench = make_bench(
        model__path=str(small_model), device='cpu', pose__source='auto', pose__base_height=0.1
    )
    T_base_cam = invert_se3(camera_mount_pose(1.2, 0.1, 0.0, 1.5, reference_height_m=0.1))
    transform = TransformStamped(child_frame_id='head_camera')
    transform.header.frame_id = 'base_link'
    for axis, value in zip('xyz', T_base_cam[:3, 3], strict=True):
        setattr(transform.transform.translation, axis, float(value))
    for axis, value in zip('xyzw', matrix_to_quaternion(T_base_cam[:3, :3]), strict=True):
        setattr(transform.transform.rotation, axis, float(value))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = bench.peer.create_publisher(TFMessage, '/tf_static', latched)
    publisher.publish(TFMessage(transforms=[transform]))
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    # The transform may still be on its way: until it is here, images wait and are told so.
    for second in range(1, 40):
        image = messages.image(picture(2), second * 10**9, frame='head_camera')
        bench.infos.publish(messages.info(second * 10**9, frame='head_camera'))
        bench.images.publish(image)
        bench.wait(lambda second=second: bench.node.counts['received'] == second)
        time.sleep(0.1)
        if bench.arrays:
            break
    pose = camera_mount_pose(1.2, 0.1)
    found = detections_from_message(bench.arrays[-1], pose)
    camera = CameraModel.from_projection(small_P_px_34, 320, 96)
    expected = detector(picture(2), camera, pose)
    assert found.class_names == expected.class_names
    np.testing.assert_allclose(
        found.boxes.array_N7[:, :6], expected.boxes.array_N7[:, :6], atol=1e-3
    )
    values = values_of(status_with(bench, lambda _: True))
    assert values['camera pose'] == "TF between 'base_link' and 'head_camera'"
