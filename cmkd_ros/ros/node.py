"""The executable `cmkd_detector`: a first step that is quick, so that signals find it ready."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType


def main(args: Sequence[str] | None = None) -> int:
    """Run the detector node until SIGINT or SIGTERM; see `detector_node.run`."""
    default_int, default_term = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    # The imports take seconds and leave nothing to clean up: end at once and without a traceback.
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)
    from cmkd_ros.ros.detector_node import run

    # rclpy puts its own handlers before these.
    signal.signal(signal.SIGTERM, default_term)
    try:
        signal.signal(signal.SIGINT, default_int)
        return run(args)
    except KeyboardInterrupt:
        return 0


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(0)


if __name__ == '__main__':
    sys.exit(main())
