"""What a trained model remembers of how it came to be."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy
import torch

import cmkd_ros
from cmkd_ros.training.data.used_data import hash_names
from cmkd_ros.training.engine.recipe import RunRecipe


def describe_run(recipe: RunRecipe, frame_ids: Sequence[str]) -> dict[str, Any]:
    """Provenance of a run as plain JSON data.

    Args:
        recipe: the recipe with its base and overrides resolved.
        frame_ids: every frame the run learned from.
    """
    return {
        'recipe': recipe.model_dump(mode='json'),
        'frames': {'count': len(frame_ids), 'sha256': hash_names(frame_ids)},
        'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'revision': _git_revision(),
        'versions': {
            'cmkd_ros': cmkd_ros.__version__,
            'torch': torch.__version__,
            'numpy': numpy.__version__,
            'python': platform.python_version(),
        },
    }


def _git_revision() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ['git', '-C', str(folder), 'describe', '--always', '--dirty', '--abbrev=12'],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
