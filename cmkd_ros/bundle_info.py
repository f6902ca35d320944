"""What a bundle is, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmkd_ros.checkpoint import load_bundle, parameter_count

_LONGEST_TEXT = 300


def describe_bundle(path: Path) -> dict[str, Any]:
    """What `cmkd info` prints of a bundle, as plain JSON data.

    Raises:
        FileNotFoundError, ValueError: as `load_bundle`.
    """
    bundle = load_bundle(path)
    return {
        'file': str(path),
        'kind': bundle.kind,
        'stage': None if bundle.kind == 'teacher' else 2 if bundle.with_head else 1,
        'parameters': parameter_count(bundle.tensors),
        'train_fx_px': bundle.train_fx_px,
        'reference_height_m': bundle.reference_height_m,
        'spec': bundle.spec,
        'provenance': _shortened(bundle.provenance),
    }


def _shortened(value: Any) -> Any:
    """The same data; long texts, as the hashes of thousands of frames, by their length."""
    if isinstance(value, dict):
        return {key: _shortened(entry) for key, entry in value.items()}
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f'{value[:24]}... ({len(value)} characters)'
    return value
