"""Which images are worked on: the newest, while somebody listens, and none too old."""

import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from rclpy.qos import ReliabilityPolicy


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
    bench.ask(messages, messages.image(picture(0), time.time_ns()))


def test_a_bag_that_starts_over_is_followed(active, messages, picture):
    """Stamps go back, and the answers with them."""
    stamps = [800, 801, 802, 790, 791]
    for second in stamps:
        active.ask(messages, messages.image(picture(second % 5), second * 10**9))
    assert [array.header.stamp.sec for array in active.arrays[-5:]] == stamps


def test_simulated_time_is_the_measure_of_age_and_may_jump_back(make_active, messages, picture):
    from rosgraph_msgs.msg import Clock

    bench = make_active(use_sim_time=True, max_age_s=2.0)
    status = bench.status_with(lambda status: '/clock' in status.message)
    assert status.message == 'use_sim_time is true, but no time has come on /clock yet'
    clock = bench.peer.create_publisher(Clock, '/clock', 10)

    def tell(second):
        message = Clock()
        message.clock.sec = second

        def told():
            clock.publish(message)
            return bench.node.get_clock().now().nanoseconds == second * 10**9

        bench.wait(told)

    tell(100)
    bench.ask(messages, messages.image(picture(0), 99 * 10**9))
    bench.images.publish(messages.image(picture(0), 90 * 10**9))
    bench.wait(lambda: bench.node.counts['stale'] == 1)
    tell(50)
    bench.ask(messages, messages.image(picture(1), 49 * 10**9))
    bench.status_with(lambda status: 'images/s' in status.message)


def test_quality_of_service_may_be_overridden_in_the_ros_way(make_active):
    """By the parameters that any ROS tool knows, here of the image alone."""
    name = 'qos_overrides./overridden/image.subscription.reliability'
    bench = make_active(namespace='/overridden', **{name: 'best_effort'})

    def reliability(topic):
        (info,) = bench.peer.get_subscriptions_info_by_topic(f'/overridden/{topic}')
        return info.qos_profile.reliability

    assert reliability('image') == ReliabilityPolicy.BEST_EFFORT
    assert reliability('camera_info') == ReliabilityPolicy.RELIABLE
