"""What this machine can do at best, and what work takes from its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def gemm_ceiling(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Best rate of a square matrix product, 1e9 operations a second."""
    a, b = (torch.rand(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / 1e9 / _best(lambda: torch.mm(a, b), repeats)


def copy_ceiling(megabytes: int = 256, repeats: int = 5) -> float:
    """Best rate of a copy in memory, read and written bytes, GB/s."""
    source = torch.ones(megabytes * 250_000)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / _best(lambda: target.copy_(source), repeats)


def _best(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def peak_growth_mb(work: Callable[[], object]) -> float | None:
    """Megabytes that `work` adds to the resident memory of this process at its peak.

    None where the system does not tell (other than Linux with glibc).
    """
    status = Path('/proc/self/status')
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what earlier work has freed
        Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
        before = _kilobytes(status, 'VmRSS')
        work()
        return (_kilobytes(status, 'VmHWM') - before) * 1024 / 1e6
    except (OSError, ValueError, AttributeError):
        return None


def _kilobytes(status: Path, name: str) -> int:
    for line in status.read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1])
    raise ValueError(f'{status}: no {name}')


def describe_machine() -> dict[str, Any]:
    """What numbers of this process depend on: CPU, threads, load, torch."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                cpu = line.partition(':')[2].strip()
                break
    except OSError:
        pass
    return {
        'cpu': cpu,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load_1_min': os.getloadavg()[0],
        'torch': torch.__version__,
        'capability': torch.backends.cpu.get_cpu_capability(),
    }
