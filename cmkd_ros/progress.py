"""How far a command is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG = logging.getLogger('cmkd')
Step = Callable[[int, int], None]


@contextmanager
def show_progress(what: str, total: int | None = None, seconds: float = 20.0) -> Iterator[Step]:
    """Show progress with the remaining time on stderr while the block runs.

    Args:
        what: a word or two, such as 'checking frames'.
        total: how many there are, where it is known before.
        seconds: between two lines where stderr is no terminal.

    Yields:
        A function to call with (done, of how many).
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, seconds)
        return
    columns = ('{task.description}', BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _lines(what: str, seconds: float) -> Step:
    begin = said = time.monotonic()
    first: int | None = None

    def step(done: int, of: int) -> None:
        nonlocal begin, said, first
        now = time.monotonic()
        if first is None:  # neither an earlier run nor preparations tell the speed of this one
            first, begin = done, now
        if now - said < seconds or done <= first:
            return
        said = now
        left = round((of - done) * (now - begin) / (done - first))
        LOG.info('%s: %d of %d, %d:%02d min left', what, done, of, left // 60, left % 60)

    return step
