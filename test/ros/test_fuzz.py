"""Random rubbish from a broken driver: the node lives, counts it, and goes on detecting."""

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('vision_msgs.msg', reason='needs vision_msgs (env/ builds it)')

from cmkd_ros.ros.conversions import ENCODINGS

MESSAGES = 400
ODD = [0.0, -1.0, 1e-300, 1e-3, 1.0, 1e300, float('nan'), float('inf'), float('-inf'), 1e9]


def rubbish_image(rng, messages, pixels, stamp):
    encoding = str(rng.choice([*ENCODINGS, '32FC1', 'jpeg', '', 'bayer_rggb16']))
    frame = str(rng.choice(['camera', 'left', '']))
    message = messages.image(pixels, stamp, encoding, frame, padding=int(rng.integers(0, 9)))
    match rng.integers(0, 6):
        case 0:
            message.data = bytes(rng.integers(0, len(message.data) + 100))
        case 1:
            message.step = int(rng.integers(0, 2**32))
        case 2:
            message.width = int(rng.integers(0, 2**32))
        case 3:
            message.height = int(rng.choice([0, 1, 2, 2**31, 2**32 - 1]))
        case 4:
            message.is_bigendian = int(rng.integers(0, 256))
    return message


def rubbish_info(rng, messages, stamp):
    message = messages.info(stamp, str(rng.choice(['camera', 'left', ''])))
    for name in ('k', 'p', 'r', 'd'):
        values = np.array(getattr(message, name))
        if rng.random() < 0.3:
            values[rng.integers(0, len(values))] = rng.choice(ODD)
        elif rng.random() < 0.1:
            values[:] = 0.0
        setattr(message, name, values.tolist())
    if rng.random() < 0.2:
        message.d = rng.choice(ODD, rng.integers(0, 20)).tolist()
        message.distortion_model = str(rng.choice(['', 'plumb_bob', 'equidistant', 'magic']))
    if rng.random() < 0.2:
        message.width, message.height = (int(v) for v in rng.choice([0, 1, 320, 2**32 - 1], 2))
    if rng.random() < 0.1:
        message.binning_x, message.binning_y = (int(v) for v in rng.choice([0, 2, 2**32 - 1], 2))
    if rng.random() < 0.1:
        message.roi.x_offset, message.roi.width = (int(v) for v in rng.integers(0, 2**32, 2))
    return message


def test_rubbish_is_counted_and_survived(make_bench, small_model, messages, picture):
    rng = np.random.default_rng(0)
    bench = make_bench(model__path=str(small_model), device='cpu', pose__source='mount')
    assert bench.change_state('configure')
    assert bench.change_state('activate')
    bench.subscribe()
    bench.wait(bench.connected)
    pixels = picture(0)
    for index in range(MESSAGES):
        stamp = int(rng.integers(0, 2**31)) * 10**9  # stamps go back and forth
        bench.infos.publish(rubbish_info(rng, messages, stamp))
        bench.images.publish(rubbish_image(rng, messages, pixels, stamp))
        bench.wait(lambda index=index: bench.node.counts['received'] == index + 1)

    def settled():
        counts = bench.node.counts
        ends = ('dropped', 'waiting', 'bad', 'failed', 'processed')
        return sum(counts[name] for name in ends) == counts['received'] == MESSAGES

    bench.wait(settled)
    assert bench.node.counts['bad'] > MESSAGES / 10
    assert bench.node.counts['failed'] == 0
    for array in bench.arrays:
        for detection in array.detections:
            center, size = detection.bbox.center, detection.bbox.size
            numbers = [center.position.x, center.position.y, center.position.z]
            numbers += [center.orientation.w, size.x, size.y, size.z]
            assert np.isfinite(numbers).all()

    processed = bench.node.counts['processed']
    bench.infos.publish(messages.info(7 * 10**9 + 7, frame='whole'))
    bench.images.publish(messages.image(pixels, 7 * 10**9 + 7, frame='whole'))
    bench.wait(lambda: bench.node.counts['processed'] == processed + 1)
