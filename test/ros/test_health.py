"""Counters, times and what they amount to."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus

from cmkd_ros.ros.health import COUNTERS, Health

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def status(health, state='active', budget_ms=0.0, missing='', facts=None):
    return health.status('/detector', state, budget_ms, missing, facts or {})


def table(message):
    return {pair.key: pair.value for pair in message.values}


def test_percentiles_and_counters_are_those_of_the_results():
    health = Health()
    for value in range(1, 101):
        health.count('received')
        health.finished(processing_ms=value, latency_ms=2 * value)
    values = table(status(health, facts={'device': 'cpu'}))
    assert float(values['processing_ms_p50']) == pytest.approx(50.5)
    assert float(values['latency_ms_p95']) == pytest.approx(2 * 95.05, abs=0.06)
    assert values['images_received'] == values['images_processed'] == '100'
    assert {f'images_{name}' for name in COUNTERS} <= set(values)
    assert status(health, facts={'device': 'cpu'}).hardware_id == 'cpu'


def test_the_level_follows_the_worst_that_is_true_now():
    health = Health()
    assert status(health).level == OK
    assert status(health, state='inactive').level == WARN
    assert status(health, missing='no image yet').message == 'no image yet'
    health.decide('calibration', 'fx 40 px', 'focal length is far off')
    assert status(health).message == 'focal length is far off'
    assert status(health, missing='no image yet').message == 'no image yet; focal length is far off'
    health.trouble('bad', 'image is empty')
    assert (status(health).level, status(health).message) == (ERROR, 'image is empty')
    health.finished(1.0, 1.0)
    assert status(health).level == WARN
    health.decide('calibration', 'fx 700 px', '')
    assert status(health).level == OK
    assert table(status(health))['calibration'] == 'fx 700 px'


def test_a_budget_is_kept_by_the_median():
    health = Health()
    for latency in (10.0, 10.0, 10.0, 500.0):
        health.finished(1.0, latency)
    assert status(health, budget_ms=50.0).level == OK
    for _ in range(5):
        health.finished(1.0, 80.0)
    late = status(health, budget_ms=50.0)
    assert (late.level, late.message) == (WARN, 'latency 80 ms, budget 50 ms')
    assert status(health).level == OK


def test_silence_is_measured_from_the_last_image():
    health = Health()
    assert health.seconds_since_image() is None
    health.count('received')
    assert 0.0 <= health.seconds_since_image() < 1.0
    health.reset()
    assert health.seconds_since_image() is None
    assert set(health.counts.values()) == {0}
