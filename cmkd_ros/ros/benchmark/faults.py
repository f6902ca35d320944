"""Thousands of broken messages, with parameters set and states changed between them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from cmkd_ros.ros.benchmark.camera import noise_image, plain_info, time_of
from cmkd_ros.ros.benchmark.detector import fixed_loader
from cmkd_ros.ros.benchmark.rig import Rig, resident_mb
from cmkd_ros.ros.benchmark.rubbish import Rubbish

_ENDS = ('dropped', 'unwatched', 'stale', 'waiting', 'bad', 'failed', 'processed')
_PARAMETERS_EVERY, _STATES_EVERY = 50, 500
_REPEATS, _PATIENCE_S = 6, 10.0
_LIVE = ('post.score_threshold', 'post.nms_iou', 'pose.camera_height', 'pose.camera_pitch_rad')


def measure_faults(messages: int, model: Path | None = None, seed: int = 0) -> dict[str, Any]:
    """Send random pairs of image and camera_info, then see whether the node still detects.

    Args:
        messages: number of pairs.
        model: bundle; None for a network that always answers.
        seed: of the messages.

    Returns:
        Counters of the node, changes of parameters and states, memory in MB.

    Raises:
        RuntimeError: an image came to no end in the node, or the sound one afterwards was not
            answered, or not by finite numbers.
    """
    rubbish, rng = Rubbish(seed), np.random.default_rng(seed + 1)
    load = None if model else fixed_loader()
    parameters = {'pose.source': 'mount', 'device': 'cpu', 'model.path': str(model or '')}
    started, taken, refused, cycles, again = time.monotonic(), 0, 0, 0, 0
    with Rig(parameters, load=load) as rig:
        memory_mb = [resident_mb()]
        for index in range(1, messages + 1):
            stamp = rubbish.stamp_ns()
            info, image, done = rubbish.info(stamp), rubbish.image(stamp), _done(rig)
            again += _send(rig, info, image, lambda done=done: _done(rig) > done)  # type: ignore[misc]
            if index % _PARAMETERS_EVERY == 0:
                successful = _set_one(rig, str(rng.choice(_LIVE)), float(rng.normal(0, 2)))
                taken, refused = taken + successful, refused + (not successful)
            if index % _STATES_EVERY == 0:
                cycles += rig.change_state('deactivate')
                # Else the old subscription may be taken for the new one, and an image be lost.
                rig.wait(lambda: not rig.images.get_subscription_count())
                rig.change_state('activate')
                rig.wait(rig.images.get_subscription_count)
                memory_mb.append(resident_mb())
        for name in _LIVE:
            _set_one(rig, name, 1.65 if name == 'pose.camera_height' else 0.0)
        again += _expect_answer(rig)
        counts = rig.node.counts
    return {
        'seconds': round(time.monotonic() - started, 1),
        **{f'images_{name}': counts[name] for name in ('received', *_ENDS)},
        'images_sent_again': again,
        'parameters_taken_refused': [taken, refused],
        'activations': cycles,
        'memory_mb': {
            'before': round(memory_mb[0], 1),
            'by_tenths': [round(memory_mb[len(memory_mb) * n // 10], 1) for n in range(1, 10)],
            'after': round(memory_mb[-1], 1),
        },
    }


def _done(rig: Rig) -> int:
    counts = rig.node.counts
    return sum(counts[name] for name in _ENDS)


def _set_one(rig: Rig, name: str, value: float) -> bool:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    return rig.call(SetParameters, 'set_parameters', request).results[0].successful


def _send(rig: Rig, info: CameraInfo, image: Image, is_over: Callable[[], Any]) -> int:
    """Publish a pair, again and again as a camera does, until a condition is true.

    The middleware may lose the first image behind a new subscription, although both sides are
    reliable and the publisher counts the subscription.

    Returns:
        How often it had to be sent again.

    Raises:
        RuntimeError: the condition did not come true.
    """
    before = rig.node.counts
    for repeats in range(_REPEATS):
        rig.infos.publish(info)
        rig.images.publish(image)
        with contextlib.suppress(TimeoutError):
            rig.wait(is_over, _PATIENCE_S)
            return repeats
    ends = {name: count - before[name] for name, count in rig.node.counts.items()}
    raise RuntimeError(f'an image was sent {_REPEATS} times and not answered; counted: {ends}')


def _expect_answer(rig: Rig) -> int:
    """Send a sound image and look at its boxes; how often it had to be sent again."""
    info, image = plain_info(320, 96, 190.0), noise_image(320, 96, 'rgb8')
    info.header.frame_id = image.header.frame_id = 'sound'
    info.header.stamp = image.header.stamp = time_of(10**9)
    repeats = _send(rig, info, image, lambda: rig.last and rig.last.header.frame_id == 'sound')
    for detection in rig.last.detections if rig.last else ():
        center, size = detection.bbox.center.position, detection.bbox.size
        if not np.isfinite([center.x, center.y, center.z, size.x, size.y, size.z]).all():
            raise RuntimeError('a detection after all the broken messages is not finite')
    return repeats
