"""A rig described by a YAML file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from cmkd_ros.training.data.synthetic.settings import Rig


def load_rig(file: Path) -> Rig:
    """
    Read a rig; what the file does not name stays as KITTI's.

    Args:
        file: YAML with the fields of `Rig`, each a number.

    Returns:
        The rig; ranges are checked by `DriveSettings`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: on text that is no YAML mapping, an unknown field or a value that is no number.
    """
    if not file.is_file():
        raise FileNotFoundError(f'{file}: expected a rig file, found none')
    try:
        content = yaml.safe_load(file.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{file}: expected YAML, found {reason}') from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ValueError(f'{file}: expected fields with numbers, found {content!r}')
    names = [field.name for field in fields(Rig)]
    for name, value in content.items():
        if name not in names:
            raise ValueError(f'{file}: expected one of {", ".join(names)}, found {name!r}')
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f'{file}: {name}: expected a number, found {value!r}')
    return Rig(**{name: float(value) for name, value in content.items()})
