"""Memory for images that is kept instead of being given back after every one.

By default glibc maps each block of the size of an image anew and returns it to the system when it
is freed, so that the system has to zero and hand out its pages, a fault each, several times for
every image.
"""

from __future__ import annotations

import ctypes

# mallopt's numbers, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
LARGEST_BLOCK_BYTES = 32 << 20  # glibc's upper limit; a picture of 3840x2160 in three bytes is 25
KEPT_BYTES = 64 << 20  # unused at the end of the heap before any is given back


def keep_large_blocks() -> bool:
    """Let malloc serve blocks up to LARGEST_BLOCK_BYTES from memory that the process keeps.

    For processes that receive images; up to KEPT_BYTES more stay with the process.

    Returns:
        Whether it could be set: not on systems without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    blocks = mallopt(_MMAP_THRESHOLD, LARGEST_BLOCK_BYTES)
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES) and blocks)
