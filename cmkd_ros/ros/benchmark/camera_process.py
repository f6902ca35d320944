"""A camera as a process of its own, as a driver is, with the shipped shared-memory profile."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import numpy as np
import rclpy
from sensor_msgs.msg import CameraInfo, Image

from cmkd_ros.ros.benchmark.camera import noise_image, plain_info, time_of, usual_fx_px
from cmkd_ros.ros.exchange import START_TIMEOUT_S

_PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'


@contextlib.contextmanager
def shared_memory_profile() -> Iterator[None]:
    """Give the profile to the processes that start while the context is open."""
    # Imported here: the camera's process, which imports this module too, needs no torch.
    from cmkd_ros.model.spec import config_folder

    before = os.environ.get(_PROFILE)
    os.environ[_PROFILE] = str(config_folder() / 'fastdds_shm.xml')
    try:
        yield
    finally:
        del os.environ[_PROFILE]
        if before is not None:
            os.environ[_PROFILE] = before


def run_camera(
    namespace: str, seconds: float, rate_hz: float, size: tuple[int, int], link: Connection
) -> None:
    """Publish images with their camera_info; the process's main function.

    The stamp is the time just before publishing. Sends the list of stamps, ns, at the end.

    Args:
        namespace: of the topics `image` and `camera_info`.
        seconds: how long, once both are subscribed.
        rate_hz: images a second.
        size: width and height, pixels.
        link: pipe to whoever measures.

    Raises:
        TimeoutError: nobody subscribed.
    """
    rclpy.init()
    node = rclpy.create_node('camera', namespace=namespace)
    images = node.create_publisher(Image, 'image', 1)
    infos = node.create_publisher(CameraInfo, 'camera_info', 10)
    image, info = noise_image(*size), plain_info(*size, usual_fx_px(*size))
    rows = np.frombuffer(image.data, np.uint8)[: 16 * image.step]  # a view, to write to
    give_up = time.monotonic() + START_TIMEOUT_S
    while not (images.get_subscription_count() and infos.get_subscription_count()):
        if time.monotonic() > give_up:
            raise TimeoutError(f'nobody subscribed to {images.topic_name}')
        time.sleep(0.01)
    stamps_ns: list[int] = []
    started = time.monotonic()
    slot = 0
    while slot < seconds * rate_hz:
        time.sleep(max(0.0, started + slot / rate_hz - time.monotonic()))
        rows[:] = slot % 251  # no picture is like the last
        stamps_ns.append(time.time_ns())
        image.header.stamp = info.header.stamp = time_of(stamps_ns[-1])
        infos.publish(info)
        images.publish(image)
        # What was missed is not made up for: a camera does not send bursts.
        slot = max(slot + 1, int((time.monotonic() - started) * rate_hz))
    link.send(stamps_ns)
    node.destroy_node()
    rclpy.try_shutdown()
