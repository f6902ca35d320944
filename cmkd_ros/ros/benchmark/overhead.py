"""Time inside the node outside the network, from taking an image to having published its boxes."""

from __future__ import annotations

import time
from typing import Any

from cmkd_ros.ros.benchmark.camera import noise_image, plain_info, time_of
from cmkd_ros.ros.benchmark.detector import KITTI_FX_PX, FixedDetector
from cmkd_ros.ros.benchmark.rig import Rig

# Width, height, focal length in pixels: KITTI's camera, and a common one of 70 degrees.
CAMERAS = ((1242, 375, KITTI_FX_PX), (1920, 1080, 1371.0))
PERIOD_S = 0.02


def measure_overhead(images: int = 200) -> list[dict[str, Any]]:
    """Send images of each size, one after the other, to a node whose network takes no time.

    Args:
        images: of each size.

    Returns:
        A row for each camera: size, encoding, percentiles of the time in milliseconds.
    """
    rows = []
    parameters = {'pose.source': 'mount', 'health.check_pictures': True}
    for width, height, fx_px in CAMERAS:
        image, info = noise_image(width, height), plain_info(width, height, fx_px)
        with Rig(parameters, load=lambda _: (FixedDetector(), 1.73)) as rig:
            for _ in range(images):
                image.header.stamp = info.header.stamp = time_of(time.time_ns())
                before = rig.answers
                rig.infos.publish(info)
                rig.images.publish(image)
                rig.wait(lambda before=before: rig.answers > before)  # type: ignore[misc]
                time.sleep(PERIOD_S)
            times = {name: round(value, 2) for name, value in rig.node.times.items()}
        rows.append({'size': f'{width}x{height}', 'encoding': image.encoding, **times})
    return rows
