"""The parity tables as a Markdown document."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from cmkd_ros.training.parity.records import Row

_HEAD = """# Parity with the official code

Written by `{command}`; not edited by hand.

Official: what the official CMKD code gave for weights that a rule makes from the parameters'
names, on KITTI object frames 000000 to 000002. Ours: the same weights, read through the rename
tables of `cmkd import-official`, on the same frames. A deviation is the relative root mean square
of a map (4096 recorded elements and the mean magnitude of all), the largest of metres and radians
of a box, the relative one of a number, or the count of elements that should be equal and are not.
A first step of AdamW (`delta`) is compared where the official gradient is above 1e-7: it is the
gradient's sign, except where that comes near AdamW's epsilon and is itself a rounding error.

{versions}

{summary}
"""


@dataclass
class Section:
    """Rows of one recorded run, or why there are none."""

    title: str
    rows: Sequence[Row] = field(default_factory=list)
    absent: str = ''


def write_report(sections: Sequence[Section], command: str) -> str:
    """The whole document.

    Args:
        sections: in order.
        command: the command line that made them.
    """
    lines = [_HEAD.format(command=command, versions=_versions(), summary=_summary(sections))]
    for section in sections:
        lines += [f'## {section.title}', '']
        if section.absent:
            lines += [f'Not compared: {section.absent}', '']
            continue
        lines += ['| value | official | ours | deviation | limit | |', '|---|---|---|---|---|---|']
        lines += [_line(row) for row in section.rows]
        lines.append('')
    return '\n'.join(lines)


def all_passed(sections: Sequence[Section]) -> bool:
    """Whether every comparison that was made is within its limit."""
    return all(row.passed for section in sections for row in section.rows)


def _line(row: Row) -> str:
    mark = 'ok' if row.passed else '**off**'
    return (
        f'| {row.name} | {row.golden} | {row.ours} | {_short(row.deviation)} | '
        f'{_short(row.limit)} | {mark} |'
    )


def _short(value: float) -> str:
    return '0' if value == 0 else f'{value:.1e}'


def _summary(sections: Sequence[Section]) -> str:
    rows = [row for section in sections for row in section.rows]
    off = [row for row in rows if not row.passed]
    text = f'**{len(rows) - len(off)} of {len(rows)} comparisons are within their limit.**'
    absent = [section.title for section in sections if section.absent]
    return text + (f' Not compared: {"; ".join(absent)}.' if absent else '')


def _versions() -> str:
    return (
        f'torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}, '
        f'{platform.machine()} CPU, {torch.get_num_threads()} threads.'
    )
