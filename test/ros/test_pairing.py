"""camera_info and image find each other without being stamped alike."""

import threading
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cmkd_ros.ros.pairing import EXACT_WAIT_S, CameraInfos, stamp_ns


def find(infos, messages, stamp, frame='camera'):
    header = messages.info(stamp, frame).header
    found = infos.find(frame, header.stamp)
    return None if found is None else stamp_ns(found.header.stamp)


def test_equal_stamps_win_over_the_latest(messages):
    infos = CameraInfos()
    for stamp in (100, 200, 300):
        infos.put(messages.info(stamp))
    assert find(infos, messages, 200) == 200


def test_without_an_equal_stamp_the_latest_of_the_same_frame_is_taken(messages):
    infos = CameraInfos()
    infos.put(messages.info(100))
    infos.put(messages.info(300))
    infos.put(messages.info(400, frame='other'))
    assert find(infos, messages, 250) == 300
    assert find(infos, messages, 250, 'other') == 400


def test_a_frame_without_camera_info_gets_none_and_the_others_are_named(messages):
    infos = CameraInfos()
    infos.put(messages.info(100, frame='left'))
    assert find(infos, messages, 100, 'right') is None
    assert infos.frames() == ('left',)
    infos.clear()
    assert infos.frames() == ()
    assert infos.latest() is None


def test_an_exact_partner_on_its_way_is_waited_for(messages):
    """Of a pair the image may arrive first; the old calibration would be wrong for it."""
    infos = CameraInfos()
    infos.put(messages.info(100))
    threading.Timer(EXACT_WAIT_S / 4, infos.put, [messages.info(200)]).start()
    assert find(infos, messages, 200) == 200


def test_the_wait_ceases_for_publishers_that_never_stamp_alike(messages):
    infos = CameraInfos()
    infos.put(messages.info(100))
    for stamp in (201, 202, 203):
        assert find(infos, messages, stamp) == 100
    started = time.monotonic()
    assert find(infos, messages, 204) == 100
    assert time.monotonic() - started < EXACT_WAIT_S / 2
    infos.put(messages.info(300))
    assert find(infos, messages, 300) == 300
