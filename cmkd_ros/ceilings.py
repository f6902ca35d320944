"""What this machine can do at best, and what work takes from its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

CPU = torch.device('cpu')


@dataclass(frozen=True)
class Rates:
    """What a device reaches at best in one type of number.

    Attributes:
        gemm_gflops: of a large matrix product, 1e9 operations a second.
        copy_gb_s: of a copy in its memory, read and written bytes, GB/s.
        bytes_each: of a number.
    """

    gemm_gflops: float
    copy_gb_s: float
    bytes_each: int

    def floor_ms(self, gflop: float, numbers: int) -> float:
        """Milliseconds that so many operations need, or so many numbers, whichever is longer."""
        seconds = gflop / self.gemm_gflops, numbers * self.bytes_each / 1e9 / self.copy_gb_s
        return 1e3 * max(seconds)


def gemm_ceiling(dtype: torch.dtype, device: torch.device = CPU, repeats: int = 5) -> float:
    """Best rate of a square matrix product, 1e9 operations a second."""
    size = 2048 if device.type == 'cpu' else 8192
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    with _products_as_convolutions():
        return 2 * size**3 / 1e9 / _best(lambda: torch.mm(a, b), repeats, device)


def copy_ceiling(device: torch.device = CPU, repeats: int = 5) -> float:
    """Best rate of a copy in the device's memory, read and written bytes, GB/s."""
    megabytes = 256 if device.type == 'cpu' else 2048  # many times what caches hold
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / _best(lambda: target.copy_(source), repeats, device)


@contextmanager
def _products_as_convolutions() -> Iterator[None]:
    """Matrix products of float32 round on a GPU as convolutions do there: to TF32 by default."""
    products = torch.backends.cuda.matmul
    before = products.allow_tf32
    products.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        products.allow_tf32 = before


def _best(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    work()
    times = []
    for _ in range(repeats):
        synchronise(device)
        begin = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was given; a CPU always has."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_growth_mb(work: Callable[[], object], device: torch.device = CPU) -> float | None:
    """Megabytes that `work` adds at its peak to the memory of this process, or of its GPU.

    On a GPU those are what torch gave to tensors. None where the system does not tell (on a CPU
    other than Linux with glibc).
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
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


def describe_machine(device: torch.device = CPU) -> dict[str, Any]:
    """What numbers of this process depend on: CPU, GPU, threads, load, torch."""
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
        'gpu': torch.cuda.get_device_name(device) if device.type == 'cuda' else None,
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'load_1_min': os.getloadavg()[0],
        'torch': torch.__version__,
        'capability': torch.backends.cpu.get_cpu_capability(),
    }
