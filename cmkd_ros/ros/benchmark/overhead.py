"""Time inside the node outside the network, from taking an image to having published its boxes."""

from __future__ import annotations

import time
from typing import Any

from cmkd_ros.ros.benchmark.camera import SIZES, noise_image, plain_info, time_of, usual_fx_px
from cmkd_ros.ros.benchmark.detector import fixed_loader
from cmkd_ros.ros.benchmark.rig import Rig

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
    for width, height in SIZES:
        image = noise_image(width, height)
        info = plain_info(width, height, usual_fx_px(width, height))
        with Rig(parameters, load=fixed_loader()) as rig:
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
