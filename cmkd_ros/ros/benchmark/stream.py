"""A camera faster than the network: how old the results are, what is dropped, what memory does.

The camera is a process of its own with the shipped shared-memory profile, as a driver would be; it
measures the age of each result where it arrives.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3DArray

from cmkd_ros.model.spec import config_folder
from cmkd_ros.ros.benchmark.camera import noise_image, plain_info, time_of
from cmkd_ros.ros.benchmark.detector import KITTI_FX_PX, FixedDetector
from cmkd_ros.ros.benchmark.rig import Rig, resident_mb
from cmkd_ros.ros.pairing import stamp_ns

PROFILE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
_WARM_UP_S = 3.0  # results of the first seconds, while the processes find each other, do not count


def measure_stream(
    seconds: float,
    rate_hz: float = 30.0,
    network_s: float = 0.15,
    size: tuple[int, int] = (1242, 375),
) -> dict[str, Any]:
    """Run node and camera for some time.

    Args:
        seconds: how long.
        rate_hz: of the camera.
        network_s: time that the network takes.
        size: width and height of the images, pixels.

    Returns:
        Ages of the results in milliseconds and their bound, counters of the node, memory in MB.
    """
    load = lambda _: (FixedDetector(network_s), 1.73)  # noqa: E731
    with Rig({'pose.source': 'mount'}, load=load) as rig:
        ours, theirs = multiprocessing.get_context('spawn').Pipe()
        arguments = (rig.node.get_namespace(), seconds, rate_hz, size, theirs)
        os.environ[PROFILE] = str(config_folder() / 'fastdds_shm.xml')
        camera = multiprocessing.get_context('spawn').Process(target=_camera, args=arguments)
        camera.start()
        del os.environ[PROFILE]
        memory_mb = []
        while not ours.poll(1.0) and camera.is_alive():
            memory_mb.append(resident_mb())
        if not ours.poll():
            raise RuntimeError(f'the camera process ended with exit code {camera.exitcode}')
        sent, ages_ms = ours.recv()
        camera.join(10.0)
        counts = {name: count for name, count in rig.node.counts.items() if count}
    settled = memory_mb[len(memory_mb) // 5 :] or memory_mb
    bound_ms = 1e3 / rate_hz + 1e3 * network_s
    return {
        'seconds': seconds,
        'images_sent': sent,
        **{f'images_{name}': count for name, count in counts.items()},
        'age_ms': {f'p{q}': round(float(np.percentile(ages_ms, q)), 1) for q in (50, 95, 99, 100)},
        'period_and_network_ms': round(bound_ms, 1),
        'later_by_10_ms': int((np.array(ages_ms) > bound_ms + 10.0).sum()),
        'memory_mb': {'then': round(settled[0], 1), 'at_the_end': round(settled[-1], 1)},
    }


def _camera(
    namespace: str, seconds: float, rate_hz: float, size: tuple[int, int], results: Connection
) -> None:
    """The camera's process."""
    rclpy.init()
    node = rclpy.create_node('camera', namespace=namespace)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    images = node.create_publisher(Image, 'image', 1)
    infos = node.create_publisher(CameraInfo, 'camera_info', 10)
    image, info = noise_image(*size), plain_info(*size, KITTI_FX_PX)
    ages_ms: list[float] = []
    started = time.monotonic()
    pixels = np.frombuffer(image.data, np.uint8)  # a view: the picture changes with each frame
    sent = 0

    def answer(message: Detection3DArray) -> None:
        if time.monotonic() - started > _WARM_UP_S:
            ages_ms.append((time.time_ns() - stamp_ns(message.header.stamp)) / 1e6)

    node.create_subscription(Detection3DArray, 'detections', answer, 10)
    while time.monotonic() < started + seconds:
        due = started + sent / rate_hz
        while (left_s := due - time.monotonic()) > 0:
            executor.spin_once(left_s)
        pixels[:: 16 * 97] = sent % 251
        image.header.stamp = info.header.stamp = time_of(time.time_ns())
        infos.publish(info)
        images.publish(image)
        sent += 1
    results.send((sent, ages_ms))
    node.destroy_node()
    rclpy.try_shutdown()
