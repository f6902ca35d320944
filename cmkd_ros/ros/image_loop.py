"""The worker's loop: take the newest image, detect, publish; one image after another.

Whatever an image brings, the loop goes on: the fault is counted and logged, not more than once
per few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import CompressedImage

from cmkd_ros.ros.health import Health
from cmkd_ros.ros.latest import LatestSlot
from cmkd_ros.ros.outputs import Outputs
from cmkd_ros.ros.pairing import stamp_ns
from cmkd_ros.ros.parameters import Parameters
from cmkd_ros.ros.picture_check import PictureCheck
from cmkd_ros.ros.pipeline import Pipeline, SeenFrame
from cmkd_ros.ros.raw_image import RawImage, read_image

POLL_S = 0.1  # a step that finds no image ends after this, so that the worker can do other work
REPEAT_S = 5.0  # between two equal complaints in the log
TIME_JUMP_NS = 1_000_000_000  # stamps that go back by more come from a bag that starts over


class ImageLoop:
    """The slot with the newest image, and what is done with it."""

    def __init__(
        self,
        pipeline: Pipeline,
        outputs: Outputs,
        health: Health,
        parameters: Callable[[], Parameters],
        now_ns: Callable[[], int],
        is_alive: Callable[[], bool],
        logger: Any,
    ) -> None:
        """Take the parts.

        Args:
            pipeline: detects.
            outputs: publishes.
            health: counts.
            parameters: gives the current set.
            now_ns: gives the node's time, which may be simulated.
            is_alive: whether ROS is still up; when it goes, errors are no news.
            logger: of the node.
        """
        self._pipeline = pipeline
        self._outputs = outputs
        self._health = health
        self._parameters = parameters
        self._now_ns = now_ns
        self._is_alive = is_alive
        self._logger = logger
        self._slot: LatestSlot[bytes | CompressedImage] = LatestSlot()
        self._pictures = PictureCheck()
        self._last_stamp_ns = 0

    def put(self, message: bytes | CompressedImage) -> None:
        """Offer an image, raw ones as they were received; called in the executor's thread, so it
        does next to nothing."""
        self._health.count('received')
        if self._slot.put(message):
            self._health.count('dropped' if self._outputs.is_watched() else 'unwatched')

    def wake(self) -> None:
        """Let a step that waits for an image end at once."""
        self._slot.wake()

    def step(self) -> None:
        """Process one image, or return after a short wait for one; never raises.

        An image waits in its slot while nobody subscribes: who comes late is answered at once.
        """
        try:
            message = self._next()
            if message is not None:
                self._process(message)
        except LookupError as error:
            self._health.trouble('waiting', str(error))
            self._logger.warning(f'image skipped: {error}', throttle_duration_sec=REPEAT_S)
        except (ValueError, OverflowError) as error:
            self._health.trouble('bad', str(error))
            self._logger.error(f'image dropped: {error}', throttle_duration_sec=REPEAT_S)
        except Exception as error:  # noqa: BLE001  torch and OpenCV raise all sorts
            if not self._is_alive():
                time.sleep(POLL_S)
                return
            sentence = f'detection failed: {type(error).__name__}: {error}'
            self._health.trouble('failed', sentence)
            self._pipeline.give_memory_back()
            self._logger.error(sentence, throttle_duration_sec=REPEAT_S)

    def _next(self) -> RawImage | CompressedImage | None:
        if not self._outputs.is_watched():
            time.sleep(POLL_S / 5)
            return None
        message = self._slot.take(POLL_S)
        return read_image(message) if isinstance(message, bytes) else message

    def _process(self, message: RawImage | CompressedImage) -> None:
        started = time.perf_counter()
        self._watch_time(stamp_ns(message.header.stamp))
        parameters = self._parameters()
        if 0 < parameters.max_age_s < self._age_ms(message) / 1e3:
            self._health.count('stale')
            return
        frame = self._pipeline.process(message, parameters)
        self._outputs.publish_detections(frame)
        processing_ms = (time.perf_counter() - started) * 1e3
        latency_ms = self._age_ms(message)
        self._health.finished(processing_ms, latency_ms)
        self._outputs.publish_times(processing_ms, latency_ms)
        self._outputs.publish_pictures(message.header, frame)
        self._check_picture(frame, parameters.health.check_pictures)

    def _check_picture(self, frame: SeenFrame, wanted: bool) -> None:
        """Tell of a picture without content; its answer was published all the same."""
        doubt = self._pictures.doubt(frame.image_HW3) if wanted else ''
        self._health.doubt('picture', doubt)
        if doubt:
            self._logger.warning(doubt, throttle_duration_sec=REPEAT_S)

    def _watch_time(self, now_ns: int) -> None:
        if now_ns < self._last_stamp_ns - TIME_JUMP_NS:
            back_s = (self._last_stamp_ns - now_ns) / 1e9
            self._logger.info(
                f'image stamps went back by {back_s:.1f} s: going on from there',
                throttle_duration_sec=REPEAT_S,
            )
        self._last_stamp_ns = now_ns

    def _age_ms(self, message: RawImage | CompressedImage) -> float:
        return (self._now_ns() - stamp_ns(message.header.stamp)) / 1e6
