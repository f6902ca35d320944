"""The report that every distillation leaves in its folder when it ends."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from cmkd_ros.training.report.run_report import write_report

LOG = logging.getLogger('cmkd.train')
_FRAMES = 2  # to show; few, as the largest students take seconds a frame on a CPU


def report_after_run(run: Path) -> Path | None:
    """Write `run`/report.html; the first of the processes of a run does it, the others do nothing.

    A report that fails is one sentence in the log: the training is done, and its bundle is good.

    Args:
        run: folder of a `cmkd distill` that has just ended.

    Returns:
        The report; None where there is none.
    """
    if getattr(rank_zero_only, 'rank', 0):  # Lightning knows it, with and without torchrun
        return None
    LOG.info('drawing the report (--no-report leaves it out)')
    try:
        return write_report(run, count=_FRAMES)
    except Exception as error:  # noqa: BLE001  hours of training must not fail by it
        LOG.warning(
            '%s: no report could be drawn: %s: %s; `cmkd report %s` tries again',
            run, type(error).__name__, error, run,
        )  # fmt: skip
        return None
