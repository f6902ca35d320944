"""What `cmkd info` says about a checkpoint of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmkd_ros.checkpoint import parameter_count
from cmkd_ros.official_file import OfficialFile, read_official
from cmkd_ros.official_import import Imported
from cmkd_ros.official_kind import identify

Importer = Callable[[OfficialFile, str], Imported]


def describe_official(path: Path, importer: Importer) -> dict[str, Any]:
    """Describe a `.pth` file as plain JSON data.

    Args:
        path: the file.
        importer: tries the import, which finds whatever is missing or of another shape.

    Raises:
        FileNotFoundError, ValueError: as `read_official`; or nothing that is known.
    """
    file = read_official(path)
    contents = identify(file.shapes)
    if contents is None:
        some = ', '.join(list(file.tensors)[:3])
        raise ValueError(
            f'{path}: {len(file.tensors)} tensors ({some}, ...), but no network of official CMKD, '
            'nor one of torchvision that a student can start from'
        )
    description: dict[str, Any] = {
        'file': str(path),
        'holds': contents.title,
        'kind': f'official {contents.kind}' if contents.configs else 'torchvision image network',
        'configs': list(contents.configs),
        'stage': contents.stage,
        'keys': len(file.tensors),
        'parameters': parameter_count(file.tensors),
        **{key: file.trainer.get(key) for key in ('epoch', 'it', 'version')},
        'sha256': file.sha256,
        'next': contents.hint if not contents.configs else _command(path, contents.configs[0]),
    }
    if contents.configs:
        try:
            importer(file, contents.configs[0])
        except ValueError as error:
            description |= {'complete': False, 'fault': str(error)}
        else:
            description['complete'] = True
    return description


def _command(path: Path, config: str) -> str:
    return f'cmkd import-official {path} --config {config} --out {path.stem}.cmkd'
