"""Serialised images are read as rclpy reads them, and damage is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from cmkd_ros.ros.raw_image import read_image


def image(frame='camera', encoding='rgb8', data=bytes(range(24)), **fields) -> Image:
    message = Image(height=2, width=4, step=12, encoding=encoding, data=data)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = 123, 456
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@settings(max_examples=200, deadline=None)
@given(
    frame=st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=9),
    encoding=st.sampled_from(['', 'a', 'rgb8', 'bgr8', 'bayer_rggb8', 'yuv422_yuy2']),
    data=st.binary(max_size=50),
    height=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    order=st.integers(0, 255),
    second=st.integers(-(2**31), 2**31 - 1),
)
def test_every_field_is_read_as_rclpy_reads_it(frame, encoding, data, height, step, order, second):
    message = image(frame, encoding, data, height=height, step=step, is_bigendian=order)
    message.header.stamp.sec = second
    serialized = serialize_message(message)
    assert read_image(serialized).message() == deserialize_message(serialized, Image) == message


def test_the_pixels_are_not_copied():
    serialized = serialize_message(image())
    data = read_image(serialized).data
    assert np.shares_memory(np.frombuffer(data, np.uint8), np.frombuffer(serialized, np.uint8))
    assert bytes(data) == bytes(range(24))


def test_the_other_byte_order():
    typesys = pytest.importorskip('rosbags.typesys', reason='needs rosbags')
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    native = store.deserialize_cdr(serialize_message(image('left')), 'sensor_msgs/msg/Image')
    swapped = store.serialize_cdr(native, 'sensor_msgs/msg/Image', little_endian=False)
    assert read_image(bytes(swapped)).message() == image('left')


def test_damage_is_refused_wherever_it_is():
    whole = bytes(serialize_message(image()))
    for length in range(len(whole) - 3):  # it is padded to a multiple of four
        with pytest.raises(ValueError, match='image message'):
            read_image(whole[:length])
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(whole)
        damaged[rng.integers(0, len(whole))] = rng.integers(0, 256)
        try:
            read_image(bytes(damaged))
        except ValueError as error:
            assert 'image message' in str(error)
