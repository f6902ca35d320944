"""The executable `cmkd_detector`: a first step that is quick, so that signals find it ready."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType


def main(args: Sequence[str] | None = None) -> int:
    """Run the detector node until SIGINT or SIGTERM; see `detector_node.run`."""
    ros_is_up = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        # The imports take seconds and leave nothing to clean up: end without a traceback. Later
        # rclpy's own handlers end the node, and what still arrives here must not kill its clean-up.
        if not ros_is_up.is_set():
            os._exit(0)

    interrupt = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    from cmkd_ros.ros.detector_node import run

    try:
        signal.signal(signal.SIGINT, interrupt)
        return run(args, ros_is_up)
    except KeyboardInterrupt:
        return 0


if __name__ == '__main__':
    sys.exit(main())
