"""What the node says about itself, and what it says when something is wrong."""

import resource
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmkd_ros.ros.picture_check import FROZEN_AFTER

FX = 190.0  # of the model's training camera

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
    status = active.status_with(lambda status: status.level == DiagnosticStatus.ERROR)
    assert 'K and P are both zero' in status.message

    assert active.ask(messages, messages.image(picture(0), 201 * 10**9)) is not None
    active.recovers(messages, picture(8))


@pytest.mark.parametrize(
    ('place', 'value', 'words'),
    [
        (0, 1e-3, 'would resize the image'),
        (5, 1e6, 'focal lengths 190 and 1e+06 px, far apart'),
        (2, 1e300, 'the number 1e+300, which no camera has'),
    ],
)
def test_finite_numbers_that_no_camera_has_are_refused(
    place, value, words, active, messages, picture
):
    second = 210 + place
    info = messages.info(second * 10**9)
    info.p[place] = value
    bad = active.node.counts['bad']
    active.infos.publish(info)
    active.images.publish(messages.image(picture(0), second * 10**9))
    active.wait(lambda: active.node.counts['bad'] == bad + 1)
    assert words in active.status_with(lambda s: s.level == DiagnosticStatus.ERROR).message
    active.ask(messages, messages.image(picture(0), (second + 10) * 10**9))


def test_an_image_of_an_uncalibrated_frame_waits_and_says_for_what(active, messages, picture):
    waiting = active.node.counts['waiting']
    active.images.publish(messages.image(picture(0), 300 * 10**9, frame='nose'))
    active.wait(lambda: active.node.counts['waiting'] == waiting + 1)
    status = active.status_with(lambda status: 'nose' in status.message)
    assert "frame 'nose' yet, only of 'camera'" in status.message
    image = messages.image(picture(0), 301 * 10**9, frame='nose')
    answer = active.ask(messages, image, frame='nose')
    assert answer.header.frame_id == 'nose'


def test_diagnostics_tell_model_decisions_counts_and_times(active, messages, picture):
    active.ask(messages, messages.image(picture(1), 600 * 10**9))
    processed = active.node.counts['processed']
    values = {pair.key: pair.value for pair in active.status_with(lambda _: True).values}
    assert values['state'] == 'active'
    assert values['model'].endswith('tiny.cmkd')
    assert values['device'] == 'cpu'
    assert values['camera pose'].startswith('parameters pose.camera_*: 1.65 m')
    assert '320x96, fx 190.0 px, used as it is' in values['calibration']
    assert float(values['processing_ms_p50']) > 0
    assert int(values['images_received']) >= processed


def test_a_focal_length_out_of_range_is_warned_of(active, messages, picture):
    P_px_34 = np.array([[40.0, 0, 158, 0], [0, 40, 44, 0], [0, 0, 1, 0]])
    active.ask(messages, messages.image(picture(1), 610 * 10**9), P=P_px_34)
    status = active.status_with(lambda status: 'focal length' in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert "40 px is far from the training camera's 190 px" in status.message
    active.ask(messages, messages.image(picture(1), 611 * 10**9))
    active.recovers(messages, picture(8))


def test_a_publisher_of_another_reliability_is_told_of(make_bench, small_model):
    from rclpy.qos import qos_profile_sensor_data

    bench = make_bench(model__path=str(small_model), device='cpu')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.peer.create_publisher(Image, 'image', qos_profile_sensor_data)
    status = bench.status_with(lambda status: 'RELIABILITY' in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert "/image offers another RELIABILITY than parameter qos = 'reliable'" in status.message


def test_an_active_node_without_images_says_what_is_missing(make_bench, small_model):
    bench = make_bench(model__path=str(small_model), device='cpu')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.wait(bench.connected)
    space = bench.node.get_namespace()
    status = bench.status_with(lambda status: 'no image' in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert f'no image on {space}/image yet: published by {space}/peer (reliable, volatile), but '\
        'nothing arrives' in status.message  # fmt: skip
    assert f'no camera_info on {space}/camera_info either: published by' in status.message
    bench.peer.destroy_publisher(bench.images)
    elsewhere = bench.peer.create_publisher(Image, 'front/image_raw', 1)
    status = bench.status_with(lambda status: 'there are' in status.message)
    assert f'image yet: nobody publishes it; there are {space}/front/image_raw' in status.message
    bench.peer.destroy_publisher(elsewhere)
    # One participant cannot have a topic with two types: it takes a node elsewhere to be wrong.
    context = rclpy.Context()
    rclpy.init(context=context)
    stranger = rclpy.create_node('stranger', namespace=space, context=context)
    stranger.create_publisher(CompressedImage, 'image', 1)
    status = bench.status_with(lambda status: 'instead of' in status.message)
    assert f'{space}/stranger as sensor_msgs/msg/CompressedImage' in status.message
    stranger.destroy_node()
    context.try_shutdown()


def test_pictures_without_content_are_told_of_and_answered(active, messages, picture):
    second = 620
    for pixels, word in (
        (np.zeros((96, 320, 3), np.uint8), 'black'),
        (np.full((96, 320, 3), 255, np.uint8), 'over-exposed'),
        (picture(4), 'frozen'),
    ):
        for _ in range(FROZEN_AFTER + 1 if word == 'frozen' else 1):
            second += 1
            active.ask(messages, messages.image(pixels, second * 10**9))
        status = active.status_with(lambda status, word=word: word in status.message)
        assert status.level == DiagnosticStatus.WARN
    active.ask(messages, messages.image(picture(5), 700 * 10**9))
    active.recovers(messages, picture(8))


def test_a_camera_that_is_unplugged_and_comes_back(make_active, messages, picture):
    bench = make_active()
    bench.ask(messages, messages.image(picture(0), 10**9))
    bench.peer.destroy_publisher(bench.images)
    bench.peer.destroy_publisher(bench.infos)
    status = bench.status_with(lambda status: 'no image' in status.message)
    assert 'nobody publishes it' in status.message
    bench.images = bench.peer.create_publisher(Image, 'image', 10)
    bench.wait(bench.images.get_subscription_count)
    # Its camera_info is still missing: the one from before is of the same frame.
    image = messages.image(picture(1), 2 * 10**9)
    bench.images.publish(image)
    bench.wait(lambda: bench.answers(image.header.stamp))
    bench.infos = bench.peer.create_publisher(CameraInfo, 'camera_info', 10)
    bench.wait(bench.infos.get_subscription_count)
    bench.recovers(messages, picture(8))


@pytest.mark.parametrize('damage', ['missing', 'truncated', 'no bundle', 'folder'])
def test_a_model_that_cannot_be_used_is_an_error_in_diagnostics_and_another_one_cures_it(
    damage, make_bench, small_model, tmp_path
):
    path = tmp_path / 'model.cmkd'
    if damage == 'truncated':
        path.write_bytes(small_model.read_bytes()[: small_model.stat().st_size // 2])
    elif damage == 'no bundle':
        path.write_bytes(b'\x80\x04pickle')
    elif damage == 'folder':
        path.mkdir()
    bench = make_bench(model__path=str(path), device='cpu')
    assert not bench.change_state('configure')
    status = bench.status_with(lambda status: status.level == DiagnosticStatus.ERROR)
    assert status.message.startswith(f'unconfigured: cannot be configured: {path}')
    assert bench.set_parameters(model__path=str(small_model))[0].successful
    assert bench.change_state('configure')
    status = bench.status_with(lambda status: status.message == 'inactive')
    assert status.level == DiagnosticStatus.WARN


def test_memory_that_runs_out_costs_one_image(make_active, messages, picture):
    """The real thing: the process may take no more than it has, and the image needs more."""
    bench = make_active()
    bench.ask(messages, messages.image(picture(0), 10**9))
    large = np.tile(picture(1), (8, 8, 1))
    P_px_34 = np.array([[FX / 4, 0, 4, 0], [0, FX / 4, 4, 0], [0, 0, 1, 0]])
    image = messages.image(large, 2 * 10**9)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    bench.infos.publish(messages.info(2 * 10**9, size=(2560, 768), P=P_px_34))
    time.sleep(0.05)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**27, hard))
        bench.images.publish(image)
        bench.wait(lambda: bench.node.counts['failed'] == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    status = bench.status_with(lambda status: status.level == DiagnosticStatus.ERROR)
    assert 'memory' in status.message.lower()
    bench.ask(messages, messages.image(picture(0), 3 * 10**9))
    bench.recovers(messages, picture(8))
