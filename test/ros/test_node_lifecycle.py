"""Lifecycle and parameters of the running node."""

import gc
import resource
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from rcl_interfaces.msg import ParameterType

from cmkd_ros.ros.parameters import class_threshold, declared_parameters


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
        bench.ask(messages, messages.image(picture(0), second * 10**9))
        assert bench.change_state('deactivate')
        bench.images.publish(messages.image(picture(0), second * 10**9 + 1))
        assert bench.change_state('activate')
        bench.wait(bench.connected)
        bench.ask(messages, messages.image(picture(0), second * 10**9 + 2))
        assert bench.change_state('deactivate')
        assert bench.change_state('cleanup')
    assert [a.header.stamp.nanosec for a in bench.arrays] == [0, 2] * 3
    assert bench.change_state('shutdown')


def test_the_garbage_collector_passes_over_an_active_node(make_bench, small_model):
    """However it was activated; what has stopped can be collected."""
    bench = make_bench(model__path=str(small_model), device='cpu', pose__source='mount')
    assert bench.change_state('configure')
    for _ in range(2):
        gc.unfreeze()
        assert bench.change_state('activate')
        assert gc.get_freeze_count() > 10_000
        assert bench.change_state('deactivate')
        assert gc.get_freeze_count() == 0


def test_what_needs_a_new_configuration_is_refused_while_active(active):
    (result,) = active.set_parameters(device='cuda')
    assert not result.successful
    assert "device = 'cuda'" in result.reason
    assert "stays 'cpu'" in result.reason


def resident_mb() -> float:
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize() / 2**20


def test_a_hundred_activations_leave_the_node_as_it_was(make_active, messages, picture):
    bench = make_active()
    bench.ask(messages, messages.image(picture(0), 10**9))  # the warm-up takes the camera's size
    for turn in range(100):
        assert bench.change_state('deactivate')
        assert bench.change_state('activate')
        if turn == 20:
            before_mb = resident_mb()
    assert resident_mb() - before_mb < 20
    bench.wait(bench.connected)
    bench.ask(messages, messages.image(picture(0), 2 * 10**9))
    topic = f'{bench.node.get_namespace()}/image'
    assert len(bench.peer.get_subscriptions_info_by_topic(topic)) == 1


def test_configured_again_and_again_it_gives_the_model_back(make_active):
    bench = make_active()
    assert bench.change_state('deactivate')
    for turn in range(12):
        assert bench.change_state('cleanup')
        assert bench.change_state('configure')
        if turn == 3:
            before_mb = resident_mb()
    assert resident_mb() - before_mb < 20


@pytest.mark.parametrize('size', [(320, 1), (2**32 - 1, 1), (320, 96)])
def test_no_camera_info_keeps_the_node_from_its_start(
    size, make_bench, small_model, messages, picture
):
    """What is known of the camera serves the warm-up, where it is sound."""
    bench = make_bench(model__path=str(small_model), device='cpu', pose__source='mount')
    assert bench.change_state('configure')
    bench.wait(bench.infos.get_subscription_count)
    bench.infos.publish(messages.info(10**9, size=size))
    time.sleep(0.1)
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    bench.ask(messages, messages.image(picture(0), 2 * 10**9))


def random_value(rng, declared):
    """Now and then of another type or out of range."""
    kind = rng.integers(0, 10)
    if kind == 0:
        return rng.choice([True, 7, 'word', float('nan'), 1e12])
    if declared.limits:
        low, high = declared.limits
        return float(rng.uniform(low, high) if kind < 7 else rng.uniform(2 * low - 1, 2 * high))
    if declared.choices:
        return str(rng.choice(declared.choices))
    if isinstance(declared.default, list):
        return [float(v) for v in rng.uniform(-1, 1, 7)]
    return declared.default


def test_parameters_set_at_random_while_it_runs(make_active, messages, picture):
    """Each change is taken or refused with its name; every image is answered, by valid numbers."""
    rng = np.random.default_rng(0)
    bench = make_active(namespace='/shaken')
    declared = [*declared_parameters(), class_threshold('Car'), class_threshold('Cyclist')]
    # Those that would rightly leave images unanswered, or slow.
    frozen = ('assume_encoding', 'max_age_s', 'camera_info_wait_s', 'rectified')
    declared = [d for d in declared if d.name not in frozen]
    taken = refused = 0
    for second in range(1, 121):
        one = declared[rng.integers(0, len(declared))]
        value = random_value(rng, one)
        (result,) = bench.set_parameters(**{one.name: value})
        taken, refused = taken + result.successful, refused + (not result.successful)
        if not result.successful:
            assert one.name in result.reason, (one.name, value, result.reason)
        if second % 3 == 0:
            answer = bench.ask(messages, messages.image(picture(second % 7), second * 10**9))
            for detection in answer.detections:
                assert 0.0 <= detection.results[0].hypothesis.score <= 1.0
    assert taken > 30
    assert refused > 20
    assert bench.node.counts['failed'] == 0


def test_every_parameter_describes_itself(active):
    from rcl_interfaces.srv import DescribeParameters, ListParameters

    names = active.call(ListParameters, 'list_parameters', ListParameters.Request()).result.names
    ours = [d.name for d in declared_parameters()] + ['post.class_thresholds.Car']
    assert set(ours) <= set(names)
    request = DescribeParameters.Request(names=ours)
    for found in active.call(DescribeParameters, 'describe_parameters', request).descriptors:
        assert len(found.description) > 15, found.name
        if found.type == ParameterType.PARAMETER_DOUBLE:
            assert found.floating_point_range, found.name
        assert found.read_only == (found.name == 'autostart')


def test_a_class_that_the_model_does_not_have_is_refused_at_configure(make_bench, small_model):
    bench = make_bench(model__path=str(small_model), device='cpu', post__class_thresholds__Tram=0.5)
    assert not bench.change_state('configure')
    status = bench.status_with(lambda status: 'Tram' in status.message)
    assert 'no such class, only Car, Pedestrian, Cyclist' in status.message


def test_thresholds_of_classes_come_from_files_and_are_live(make_active, messages, picture):
    bench = make_active(post__score_threshold=0.0, post__class_thresholds__Car=1.0)

    def classes(second):
        answer = bench.ask(messages, messages.image(picture(6), second * 10**9))
        return {d.results[0].hypothesis.class_id for d in answer.detections}

    first = classes(1)
    assert first
    assert 'Car' not in first
    (result,) = bench.set_parameters(post__class_thresholds__Car=0.0)
    assert result.successful
    for name in first:
        bench.set_parameters(**{f'post__class_thresholds__{name}': 1.0})
    assert classes(2) == {'Car'}
    (result,) = bench.set_parameters(post__class_thresholds__Car=3.0)
    assert not result.successful
    assert 'post.class_thresholds.Car' in result.reason
