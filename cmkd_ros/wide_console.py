"""Where tables are printed that must not be cut."""

from __future__ import annotations

from rich.console import Console


def wide_console(console: Console | None, width: int) -> Console:
    """The console, by default stdout; stdout of `width` columns where that is narrower.

    A file counts as 80 columns wide, too few for most tables.
    """
    console = console or Console()
    return console if console.width >= width else Console(width=width)
