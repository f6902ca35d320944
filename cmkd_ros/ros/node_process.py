"""The node as a process of its own, started and ended as a launch file would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_COMPLAINT = re.compile(r'^\[(?:ERROR|FATAL)\] \[[^]]*\] \[[^]]*\]: (?P<text>.*)$', re.MULTILINE)


def ros_environment() -> dict[str, str]:
    """The environment for a ROS process: ours, completed where ROS comes from pip wheels.

    Discovery stays on this machine, so that a replay neither hears nor disturbs a robot.
    """
    environment = dict(os.environ)
    if (
        not environment.get('AMENT_PREFIX_PATH')
        and (Path(sys.prefix) / 'share/ament_index').is_dir()
    ):
        environment['AMENT_PREFIX_PATH'] = sys.prefix
    environment['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    return environment


def write_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Write a ROS parameter file for any node from values by dotted name."""
    tree: dict[str, Any] = {}
    for name, value in parameters.items():
        branch = tree
        *groups, leaf = name.split('.')
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[leaf] = list(value) if isinstance(value, tuple) else value
    path.write_text(yaml.safe_dump({'/**': {'ros__parameters': tree}}))


class NodeProcess:
    """A running node; `log` holds what it wrote to the terminal."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start `command`, with its output in the file `log`."""
        self.log = log
        with log.open('wb') as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=ros_environment(),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return code, None while it runs."""
        return self._process.poll()

    def complaint(self) -> str:
        """The last error in the log, or its last line."""
        text = self.log.read_text(errors='replace').strip()
        complaints = _COMPLAINT.findall(text)
        return complaints[-1] if complaints else (text.splitlines() or ['no output'])[-1]

    def send(self, what: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(what)

    def stop(self, with_signal: signal.Signals = signal.SIGINT, timeout_s: float = 30.0) -> int:
        """End it, by force after `timeout_s`; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


@contextlib.contextmanager
def detector_process(
    parameters: Mapping[str, Any],
    remappings: Mapping[str, str],
    namespace: str = '/',
    command: Sequence[str] = (sys.executable, '-m', 'cmkd_ros.ros.node'),
) -> Iterator[NodeProcess]:
    """Run the detector node while the context is open.

    Args:
        parameters: values by dotted name.
        remappings: from a topic of the node to another.
        namespace: of the node.
        command: what starts it; ROS arguments are appended, in the form that launch gives them.
    """
    with tempfile.TemporaryDirectory(prefix='cmkd_node_') as folder:
        file = Path(folder) / 'parameters.yaml'
        write_parameters(file, parameters)
        arguments = ['--ros-args', '-r', '__node:=detector', '-r', f'__ns:={namespace}']
        arguments += ['--params-file', str(file)]
        for source, target in remappings.items():
            arguments += ['-r', f'{source}:={target}']
        process = NodeProcess([*command, *arguments], Path(folder) / 'log.txt')
        try:
            yield process
        finally:
            process.stop()
