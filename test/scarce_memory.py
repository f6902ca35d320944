"""A process that can have no more memory, and what a command says of it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_most_more(megabytes: int) -> Iterator[None]:
    """This process may have so many more megabytes of address space while the block runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = Path('/proc/self/status').read_text().splitlines()
    now = next(int(line.split()[1]) for line in status if line.startswith('VmSize:'))
    resource.setrlimit(resource.RLIMIT_AS, (now * 1024 + megabytes * 1_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def said(capsys) -> str:
    """The last line on stderr, which is the command's own, after no traceback."""
    lines = capsys.readouterr().err.splitlines()
    assert not any('Traceback' in line for line in lines)
    return lines[-1]
