"""Work that several processes share: each piece is done by one of them.

The claim is a lock of the operating system, so that a process that dies gives it back.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path` while the block runs.

    Args:
        path: made if need be, and left behind.
        wait: for another process to finish; False returns at once.

    Yields:
        Whether this process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True  # closing the file gives it back
