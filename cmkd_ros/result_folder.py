"""Where an evaluation writes: a new folder that the user named, or a temporary one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def result_folder(out: Path | None) -> Iterator[Path]:
    """Yield the folder `out`, made if need be, or without `out` one that is removed afterwards.

    Raises:
        FileExistsError: `out` exists and is not empty.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix='cmkd_') as place:
            yield Path(place)
        return
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f'{out}: the folder exists and is not empty; choose another --out')
    out.mkdir(parents=True, exist_ok=True)
    yield out
