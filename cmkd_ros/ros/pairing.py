"""Which camera_info belongs to an image: the one of the same frame and stamp, else the latest."""

from __future__ import annotations

import threading
from collections import deque

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

# Images and camera_infos come over different connections; of a pair either may arrive first.
EXACT_WAIT_S = 0.1
MISSES_UNTIL_INEXACT = 3
_KEPT_PER_FRAME = 16


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds since the epoch of a message's stamp."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


class CameraInfos:
    """Keeps the newest camera_infos of every frame; filled by one thread, asked by another.

    Equal stamps are preferred and never required: while images of a frame find their exact
    camera_info (or nothing is known yet), one that is still on its way is waited for briefly;
    after a few misses in a row the latest is taken at once.
    """

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._by_frame: dict[str, deque[CameraInfo]] = {}
        self._misses: dict[str, int] = {}

    def put(self, message: CameraInfo) -> None:
        """Store a message."""
        with self._arrived:
            kept = self._by_frame.setdefault(message.header.frame_id, deque(maxlen=_KEPT_PER_FRAME))
            kept.append(message)
            self._arrived.notify_all()

    def find(self, frame_id: str, stamp: Time, wait_s: float = EXACT_WAIT_S) -> CameraInfo | None:
        """Return the camera_info for an image, None when the frame has none yet."""
        with self._arrived:
            if self._misses.get(frame_id, 0) < MISSES_UNTIL_INEXACT:
                self._arrived.wait_for(lambda: self._exact(frame_id, stamp), wait_s)
            exact = self._exact(frame_id, stamp)
            kept = self._by_frame.get(frame_id)
            if kept:
                self._misses[frame_id] = 0 if exact else self._misses.get(frame_id, 0) + 1
            return exact or (kept[-1] if kept else None)

    def latest(self) -> CameraInfo | None:
        """Return the last message of any frame."""
        with self._arrived:
            newest = [kept[-1] for kept in self._by_frame.values()]
            return max(newest, key=lambda m: stamp_ns(m.header.stamp), default=None)

    def frames(self) -> tuple[str, ...]:
        """Return the frames that have a camera_info."""
        with self._arrived:
            return tuple(self._by_frame)

    def clear(self) -> None:
        """Forget everything."""
        with self._arrived:
            self._by_frame.clear()
            self._misses.clear()

    def _exact(self, frame_id: str, stamp: Time) -> CameraInfo | None:
        kept = self._by_frame.get(frame_id, ())
        return next((m for m in reversed(kept) if m.header.stamp == stamp), None)
