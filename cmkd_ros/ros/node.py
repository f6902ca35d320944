"""The executable `cmkd_detector`: a first step that is quick, so that signals find it ready."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType


def main(args: Sequence[str] | None = None) -> int:
    """Run the detector node until SIGINT or SIGTERM; see `run_node.run`."""
    ros_is_up = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        # The imports take seconds and leave nothing to clean up: end without a traceback. Later
        # rclpy's own handlers end the node. An exception here instead (Python's own handler of
        # SIGINT) could come inside any callback of the interpreter, and be lost there.
        if not ros_is_up.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    from cmkd_ros.ros.run_node import run

    return run(args, ros_is_up)


if __name__ == '__main__':
    sys.exit(main())
