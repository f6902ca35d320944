"""What the CPU can multiply, read from Linux."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path('/proc/cpuinfo')
_BF16_FLAGS = {'avx512_bf16', 'amx_bf16', 'bf16'}  # the last is Arm's


def cpu_flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Names of the CPU's instruction sets as Linux lists them; empty where it cannot be told."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(':')
        if name.strip() in ('flags', 'Features'):
            return frozenset(value.split())
    return frozenset()


def cpu_multiplies_bf16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether there are instructions for bf16 products; False where it cannot be told."""
    return not _BF16_FLAGS.isdisjoint(cpu_flags(cpuinfo))


def cpu_has_tiles(cpuinfo: Path = CPUINFO) -> bool:
    """Whether there are matrix tiles (Intel AMX)."""
    return 'amx_tile' in cpu_flags(cpuinfo)
