"""Random rubbish from a broken driver: the node lives, counts it, and goes on detecting.

A short form, with a real network, of `python -m cmkd_ros.ros.benchmark faults`.
"""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from cmkd_ros.ros.benchmark.faults import measure_faults
from cmkd_ros.ros.benchmark.rubbish import Rubbish

MESSAGES = 500


def test_rubbish_is_counted_and_survived(small_model):
    """It raises unless a sound image after all that is answered by finite numbers."""
    found = measure_faults(MESSAGES, small_model)
    assert MESSAGES < found['images_received'] <= MESSAGES + 1 + found['images_sent_again']
    assert found['images_sent_again'] <= 2
    assert found['images_bad'] > MESSAGES / 10
    assert found['images_processed'] > MESSAGES / 20
    assert found['images_failed'] == 0
    assert found['activations'] == 1
    assert min(found['parameters_taken_refused']) > 0
    memory_mb = found['memory_mb']
    assert len(memory_mb['by_tenths']) == 9
    assert memory_mb['by_tenths'][-1] == memory_mb['after'] > 0


def test_the_rubbish_is_of_every_kind_and_the_same_every_time():
    one, other = Rubbish(3), Rubbish(3)
    images, infos = [], []
    for _ in range(200):
        stamp = one.stamp_ns()
        assert stamp == other.stamp_ns()
        images.append(one.image(stamp))
        infos.append(one.info(stamp))
        assert images[-1] == other.image(stamp)
        other.info(stamp)
    assert {image.header.frame_id for image in images} == {'camera', 'left', ''}
    assert len({image.encoding for image in images}) > 15
    assert any(len(image.data) != image.height * image.step for image in images)
    assert any(image.height > 2**30 for image in images)
    numbers = np.concatenate([np.array([*info.k, *info.p]) for info in infos])
    assert np.isnan(numbers).any()
    assert np.isinf(numbers).any()
    assert len({info.header.stamp.sec for info in infos}) > 190
