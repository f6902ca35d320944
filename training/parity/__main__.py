"""Compares everything that was recorded from the official code with ours, and writes the tables.

python -m cmkd_ros.training.parity [--goldens DIR] [--out FILE] [--losses] [--gradients]
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cmkd_ros.training.parity.losses import LOSS_GOLDENS, loss_rows, schedule_rows
from cmkd_ros.training.parity.records import Row
from cmkd_ros.training.parity.report import Section, all_passed, write_report
from cmkd_ros.training.parity.student import student_rows
from cmkd_ros.training.parity.teachers import TEACHER_GOLDENS, teacher_rows

LOG = logging.getLogger('cmkd.parity')


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons; 0 when all are within their limits, 1 otherwise, 2 for bad input."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stderr)
    if not (options.goldens / 'losses.json').is_file():
        LOG.error('%s: no recorded values there (losses.json, *.npz)', options.goldens)
        return 2
    sections = run_comparisons(options.goldens, options.losses, options.gradients)
    flags = [f' --{name}' for name in ('losses', 'gradients') if getattr(options, name)]
    command = f'python -m cmkd_ros.training.parity{"".join(flags)}'
    options.out.write_text(write_report(sections, command))
    LOG.info('%s', options.out)
    return 0 if all_passed(sections) else 1


def run_comparisons(goldens: Path, losses: bool, gradients: bool) -> list[Section]:
    """Every comparison that is wanted and possible here.

    Args:
        goldens: folder of recorded values.
        losses: also the losses of whole batches (minutes).
        gradients: and their gradients (5 GB of memory, ten minutes on two cores).
    """
    sections = [_section('Student scd_r50 (and pp_r50, the same network)', student_rows, goldens)]
    for teacher in TEACHER_GOLDENS:
        rows = partial(teacher_rows, golden=teacher)
        sections.append(_section(f'Teacher {teacher.title}', rows, goldens))
    sections.append(_section('Learning rate and momentum, 1000 steps', schedule_rows, goldens))
    for loss in LOSS_GOLDENS:
        title = f'Losses of {loss.title}'
        if losses or gradients:
            rows = partial(loss_rows, golden=loss, gradients=gradients)
            sections.append(_section(title, rows, goldens))
        else:
            sections.append(Section(title, absent='run with --losses or --gradients.'))
    return sections


def _section(title: str, rows: Callable[[Path], list[Row]], goldens: Path) -> Section:
    LOG.info('%s', title)
    try:
        return Section(title, rows(goldens))
    except ImportError as error:
        return Section(title, absent=f'{error}.')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m cmkd_ros.training.parity',
        description='Tables of our values against those recorded from the official code.',
    )
    parser.add_argument(
        '--goldens', type=Path, default=Path('../shared/goldens'), help='default: %(default)s'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('docs/parity.md'), help='default: %(default)s'
    )
    parser.add_argument('--losses', action='store_true', help='whole batches too: minutes')
    parser.add_argument(
        '--gradients', action='store_true', help='losses and gradients: 5 GB, ten minutes'
    )
    return parser


if __name__ == '__main__':
    sys.exit(main())
