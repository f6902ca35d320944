"""The error of what works on the user's behalf, and what errors say where memory is short."""

import re


class FailedError(RuntimeError):
    """A process or an engine that the work needs ended, refused, or did something else.

    Its message is one sentence for people. Input that is wrong is a ValueError or an OSError.
    """


# Of torch on CPUs and GPUs, of CUDA and its libraries, of OpenCV, C++ and the system.
_SHORTAGE = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|CUDA out of memory"
    r'|CUDA error: out of memory|CU\w+_STATUS_ALLOC_FAILED|Insufficient memory|bad_alloc'
    r'|Cannot allocate memory'
)
_ON_GPU = re.compile(r'CUDA out of|CUDA error|CU\w+_STATUS')
_SIZE = re.compile(r'\ballocate (\d+(?:\.\d+)?) ?(bytes|[KMGTPE]iB)')
_POWERS = {'bytes': 0, 'KiB': 1, 'MiB': 2, 'GiB': 3, 'TiB': 4, 'PiB': 5, 'EiB': 6}


def memory_shortage(error: BaseException) -> str | None:
    """What an error says where memory was short, and how much was asked for.

    Python, numpy, torch, CUDA and OpenCV have an error each; the text of some fills pages.

    Returns:
        Part of a sentence, as 'out of memory on the GPU, which had no 2.1 GB more'; None for any
        other error.
    """
    text = str(error)
    if not (isinstance(error, MemoryError) or _SHORTAGE.search(text)):
        return None
    told = f'out of memory on {"the GPU" if _ON_GPU.search(text) else "this machine"}'
    if found := _SIZE.search(text):
        gigabytes = float(found[1]) * 1024 ** _POWERS[found[2]] / 1e9
        told += f', which had no {gigabytes:{".1f" if gigabytes >= 1 else ".2g"}} GB more'
    return told


def last_line(error: BaseException) -> str:
    """What an error of an engine says in the end: lines before name places in its source."""
    lines = str(error).strip().splitlines()
    return memory_shortage(error) or (lines[-1].strip() if lines else type(error).__name__)
