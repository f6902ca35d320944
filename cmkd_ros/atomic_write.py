"""Files that are either complete or absent."""

import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file as `write_bytes_atomically` does; line ends as given."""
    write_bytes_atomically(path, text.encode('utf-8'))


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that no reader, and no crash or power cut, ever leaves half of it.

    Args:
        path: the file; its folder must exist.
        content: the whole content.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f'{path}: the folder {path.parent} does not exist')
    # In the same folder, because os.replace is atomic only within one file system.
    handle, temporary = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_figure_atomically(path: str | os.PathLike[str], figure: Any) -> None:
    """Write a matplotlib `Figure` as PNG as `write_bytes_atomically` does; the margin is cut."""
    content = BytesIO()
    figure.savefig(content, format='png', dpi=100, bbox_inches='tight')
    write_bytes_atomically(path, content.getvalue())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
