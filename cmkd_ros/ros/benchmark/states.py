"""Memory of the process in each state of the lifecycle, and after going round it many times."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from cmkd_ros.ros.benchmark.rig import Rig, resident_mb


def measure_states(model: Path, activations: int = 100, configurations: int = 20) -> dict[str, Any]:
    """Walk through the states.

    Args:
        model: bundle.
        activations: times to deactivate and activate.
        configurations: times to clean up and configure.

    Returns:
        Memory in MB.

    Raises:
        RuntimeError: a transition failed.
    """
    parameters = {'pose.source': 'mount', 'device': 'cpu', 'model.path': str(model)}
    memory_mb: dict[str, float] = {}

    def note(name: str) -> None:
        gc.collect()
        memory_mb[name] = round(resident_mb(), 1)

    with Rig(parameters) as rig:

        def go(*transitions: str) -> None:
            for transition in transitions:
                if not rig.change_state(transition):
                    raise RuntimeError(f'the transition {transition} failed')

        go('deactivate', 'cleanup')
        note('unconfigured')
        go('configure')
        note('inactive')
        go('activate')
        note('active')
        for _ in range(activations):
            go('deactivate', 'activate')
        note(f'active_after_{activations}_activations')
        go('deactivate')
        for _ in range(configurations):
            go('cleanup', 'configure')
        note(f'inactive_after_{configurations}_configurations')
        go('cleanup')
        note('unconfigured_again')
    return {'memory_mb': memory_mb}
