"""The life of the process around the detector node: start, spin, and an end without a traceback."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import uninstall_signal_handlers

from cmkd_ros.ros.allocator import keep_large_blocks
from cmkd_ros.ros.detector_node import SUCCESS, DetectorNode

# A result is worth more than a callback: let the worker have the interpreter back soon.
SWITCH_INTERVAL_S = 0.0005


def run(args: Sequence[str] | None, ros_is_up: threading.Event) -> int:
    """Run the node until it is told to end.

    Args:
        args: command line without the program's name; None takes the process's own.
        ros_is_up: is set once rclpy handles signals.

    Returns:
        0 after SIGINT, SIGTERM or a shutdown of ROS; 2 when an argument or parameter is wrong.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_large_blocks()
    try:
        rclpy.init(args=args)
        ros_is_up.set()
        node = DetectorNode()
    except (ValueError, RuntimeError, ParameterException) as error:
        if ros_is_up.is_set() and not rclpy.ok():
            return 0  # a signal ended ROS under the node's hands
        rclpy.logging.get_logger('detector').fatal(str(error).splitlines()[0])
        return 2
    try:
        _spin(node)
    except ExternalShutdownException:
        pass
    finally:
        _close(node)
    return 0


def _spin(node: DetectorNode) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.autostart and node.trigger_configure() == SUCCESS:
            node.trigger_activate()
        executor.spin()
    except RuntimeError:
        if rclpy.ok():  # else a signal ended ROS in the middle of a transition
            raise


def _close(node: DetectorNode) -> None:
    uninstall_signal_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    node.close()
    rclpy.try_shutdown()
