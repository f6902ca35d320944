"""A bundle for others: half the size, with its evaluations inside, without local paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from cmkd_ros.checkpoint import load_bundle, save_bundle


def pack_bundle(model: Path, out: Path, evaluations: Mapping[str, Path]) -> Path:
    """Write a smaller copy of a bundle: weights as float16, read back as float32.

    Absolute paths in its recipes, its teacher's among them, are cut to their last part.

    Args:
        model: bundle.
        out: new file, ends in .cmkd.
        evaluations: reports of `cmkd evaluate --json` by a name for each; their AP (3D, R40) and
            counts of frames and labels become `provenance.evaluation`.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError, ValueError: a model or report that is missing or wrong.
    """
    if out.exists():
        raise FileExistsError(f'{out}: exists; choose another --out')
    bundle = load_bundle(model)
    provenance = _with_clean_recipes(bundle.provenance)
    if evaluations:
        provenance['evaluation'] = {name: _summary(path) for name, path in evaluations.items()}
    return save_bundle(out, replace(bundle, provenance=provenance), storage='fp16')


def _with_clean_recipes(provenance: Mapping[str, Any]) -> dict[str, Any]:
    # Recipes only: elsewhere a text that begins with a slash may be a hash in base 64.
    cleaned: dict[str, Any] = {}
    for key, value in provenance.items():
        if key == 'recipe':
            cleaned[key] = _without_folders(value)
        else:
            cleaned[key] = _with_clean_recipes(value) if isinstance(value, dict) else value
    return cleaned


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return PurePath(value).name if isinstance(value, str) and value.startswith('/') else value


def _summary(report: Path) -> dict[str, Any]:
    """The few numbers of a report that a user of the model asks for."""
    try:
        document = json.loads(report.read_text(encoding='utf-8'))
        return {
            'frames': document['frames'],
            'n_gt': document['n_gt'],
            'ap_3d_r40': {
                level: {name: metrics['3d']['R40'] for name, metrics in classes.items()}
                for level, classes in document['ap'].items()
            },
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{report}: expected a report of `cmkd evaluate --json`: {error!r}'
        ) from error
