"""The small transform reader."""

from types import SimpleNamespace

import numpy as np
import pytest

from cmkd_ros.geometry import make_se3, matrix_to_quaternion, quaternion_to_matrix
from cmkd_ros.transform_buffer import _KEPT, TransformBuffer


def stamped(parent, child, T_parent_child, stamp=0):
    quaternion = matrix_to_quaternion(T_parent_child[:3, :3])
    return SimpleNamespace(
        header=SimpleNamespace(
            frame_id=parent, stamp=SimpleNamespace(sec=stamp // 10**9, nanosec=stamp % 10**9)
        ),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(**dict(zip('xyz', T_parent_child[:3, 3], strict=True))),
            rotation=SimpleNamespace(**dict(zip('xyzw', quaternion, strict=True))),
        ),
    )


def random_pose(rng):
    return make_se3(quaternion_to_matrix(rng.normal(size=4)), rng.normal(size=3))


def test_chains_up_and_down_the_tree():
    rng = np.random.default_rng(0)
    base_head, head_camera, base_lidar = (random_pose(rng) for _ in range(3))
    buffer = TransformBuffer()
    buffer.put(
        [
            stamped('base', 'head', base_head),
            stamped('head', 'camera', head_camera),
            stamped('/base', '/lidar', base_lidar),
        ],
        static=True,
    )
    expected = np.linalg.inv(base_head @ head_camera) @ base_lidar
    np.testing.assert_allclose(buffer.lookup('camera', 'lidar', 5), expected, atol=1e-12)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 5), base_head @ head_camera)
    np.testing.assert_allclose(buffer.lookup('lidar', 'lidar', 5), np.eye(4), atol=1e-15)


def test_of_a_moving_frame_the_transform_nearest_in_time_is_taken():
    rng = np.random.default_rng(1)
    poses = {stamp: random_pose(rng) for stamp in (100, 300, 200)}
    buffer = TransformBuffer()
    for stamp, pose in poses.items():
        buffer.put([stamped('base', 'camera', pose, stamp)], static=False)
    for asked, nearest in ((0, 100), (120, 100), (190, 200), (300, 300), (9999, 300)):
        np.testing.assert_allclose(buffer.lookup('base', 'camera', asked), poses[nearest])


def test_time_may_start_over_when_the_memory_is_full():
    rng = np.random.default_rng(2)
    buffer, old, new = TransformBuffer(), random_pose(rng), random_pose(rng)
    for stamp in range(10_000, 10_000 + _KEPT + 5):
        buffer.put([stamped('base', 'camera', old, stamp)], static=False)
    buffer.put([stamped('base', 'camera', new, 50)], static=False)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 51), new)


def test_of_a_bag_every_transform_is_kept():
    """More images than the live buffer holds: the first one still gets its own pose."""
    rng = np.random.default_rng(6)
    first, later = random_pose(rng), random_pose(rng)
    live, whole = TransformBuffer(), TransformBuffer(keep_all=True)
    for buffer in (live, whole):
        for index in range(_KEPT + 5):
            pose = first if index == 0 else later
            buffer.put([stamped('base', 'camera', pose, index * 10**8)], static=False)
    np.testing.assert_allclose(whole.lookup('base', 'camera', 0), first)
    np.testing.assert_allclose(live.lookup('base', 'camera', 0), later)


def test_time_that_runs_backwards_forgets_the_future_and_late_messages_do_not():
    rng = np.random.default_rng(7)
    buffer, old, late, new = TransformBuffer(), *(random_pose(rng) for _ in range(3))
    buffer.put([stamped('base', 'camera', old, 100 * 10**9)], static=False)
    buffer.put([stamped('base', 'camera', late, 99 * 10**9)], static=False)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 100 * 10**9), old)
    buffer.put([stamped('base', 'camera', new, 10 * 10**9)], static=False)
    np.testing.assert_allclose(buffer.lookup('base', 'camera', 100 * 10**9), new)


def test_a_missing_link_says_what_is_known():
    buffer = TransformBuffer()
    with pytest.raises(LookupError, match='known frames: none'):
        buffer.lookup('camera', 'base', 0)
    buffer.put([stamped('odom', 'base', np.eye(4))], static=True)
    with pytest.raises(LookupError, match="'base' and 'camera'; known frames: base, odom"):
        buffer.lookup('camera', 'base', 0)


def test_a_loop_is_refused_and_not_followed_for_ever():
    buffer = TransformBuffer()
    buffer.put([stamped('a', 'b', np.eye(4)), stamped('b', 'a', np.eye(4))], static=True)
    with pytest.raises(LookupError, match='loop'):
        buffer.lookup('a', 'c', 0)


@pytest.mark.parametrize('fault', ['zero quaternion', 'nan', 'no name', 'own parent'])
def test_impossible_transforms_are_refused(fault):
    message = stamped('base', 'camera', np.eye(4))
    if fault == 'zero quaternion':
        message.transform.rotation.w = 0.0
    elif fault == 'nan':
        message.transform.translation.x = float('nan')
    elif fault == 'no name':
        message.child_frame_id = ''
    else:
        message.child_frame_id = 'base'
    buffer = TransformBuffer()
    with pytest.raises(ValueError, match="from 'base' to"):
        buffer.put([message, stamped('base', 'lidar', np.eye(4))], static=True)
    with pytest.raises(LookupError):
        buffer.lookup('base', 'camera', 0)
    np.testing.assert_array_equal(buffer.lookup('base', 'lidar', 0), np.eye(4))


def test_the_message_on_the_wire_is_the_official_one():
    """The type hash, as rosbags computes it from the definition in its own store."""
    rclpy = pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
    rosbags = pytest.importorskip('rosbags.typesys', reason='needs rosbags')
    from tf2_msgs.msg import TFMessage

    store = rosbags.get_typestore(rosbags.Stores.ROS2_JAZZY)
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        node = rclpy.create_node('tf_probe', context=context)
        node.create_publisher(TFMessage, '/tf_probe', 1)
        (endpoint,) = node.get_publishers_info_by_topic('/tf_probe')
        assert str(endpoint.topic_type_hash) == store.hash_rihs01('tf2_msgs/msg/TFMessage')
        node.destroy_node()
    finally:
        context.try_shutdown()
