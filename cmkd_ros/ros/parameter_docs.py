"""config/detect.yaml and docs/parameters.md, written from the parameters themselves.

`python -m cmkd_ros.ros.parameter_docs` writes both into the current folder's `config` and `docs`;
a test fails when they are out of date.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmkd_ros.ros.parameters import Declared, class_threshold, declared_parameters

YAML_HEAD = """\
# Parameters of the detector node with their defaults. `ros2 param describe /detector NAME` tells
# the same; those marked (live) may be changed while it runs.
/**:
  ros__parameters:
"""
MARKDOWN_HEAD = """\
# Parameters of the node `detector`

*Live* ones take effect from the next image on; the others when the node is configured, and while
it is inactive or active a change of them is refused. A refused change says parameter, value and
rule, and changes nothing. `config/detect.yaml` holds them all with their defaults.

| parameter | type | default | rule | live | meaning |
|---|---|---|---|---|---|
"""
_LAST_OF_POST = 'post.nms_iou'
_TYPES = {bool: 'bool', str: 'string', float: 'double', list: 'double array'}


def yaml_text() -> str:
    """The parameter file with every default."""
    lines: list[str] = []
    group = ''
    for declared in declared_parameters():
        *groups, leaf = declared.name.split('.')
        indent = ' ' * (6 if groups else 4)
        if groups and groups[0] != group:
            group = groups[0]
            lines.append(f'    {group}:')
        text = f'{declared.info.description}{" (live)" if declared.live else ""}'
        lines += textwrap.wrap(
            text, 98, initial_indent=f'{indent}# ', subsequent_indent=f'{indent}# '
        )
        lines.append(f'{indent}{leaf}: {_yaml(declared.default)}')
        if declared.name == _LAST_OF_POST:
            description = class_threshold('CLASS').info.description
            for line in textwrap.wrap(f'class_thresholds.CLASS: {description} (live)', 92):
                lines.append(f'{indent}# {line}')
    return YAML_HEAD + '\n'.join(lines) + '\n'


def markdown_text() -> str:
    """The table of docs/parameters.md."""
    rows = [
        f'| `{d.name}` | {_TYPES[type(d.default)]} | `{_yaml(d.default)}` | {_rule(d)} | '
        f'{"yes" if d.live else "no"} | {d.info.description} |'
        for d in _with_classes()
    ]
    return MARKDOWN_HEAD + '\n'.join(rows) + '\n'


def _with_classes() -> Iterator[Declared]:
    for declared in declared_parameters():
        yield declared
        if declared.name == _LAST_OF_POST:
            yield class_threshold('CLASS')


def _rule(declared: Declared) -> str:
    if declared.choices:
        return ', '.join(f'`{choice}`' for choice in declared.choices)
    if declared.limits:
        low, high = declared.limits
        return f'{low:g} to {high:g}'
    return ''


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    # Always quoted: `auto` needs it not, but `true` and '' do.
    return f"'{value}'" if isinstance(value, str) else repr(value)


if __name__ == '__main__':
    Path('config/detect.yaml').write_text(yaml_text())
    Path('docs/parameters.md').write_text(markdown_text())
