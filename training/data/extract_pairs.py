"""Which scan goes with which image, and which pairs are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pair:
    """An image and the scan taken nearest to it.

    Attributes:
        image_ns, scan_ns: header stamps.
    """

    image_ns: int
    scan_ns: int


@dataclass(frozen=True)
class Pairing:
    """The pairs of a recording and what did not become one.

    Attributes:
        pairs: in the order of time.
        lonely_scans: scans without an image near enough, or whose image has a nearer scan.
        gaps_ns: from each scan to the nearest image, for messages.
    """

    pairs: tuple[Pair, ...]
    lonely_scans: int
    gaps_ns: tuple[int, ...]

    def describe_gaps(self) -> str:
        """The gaps in milliseconds, for a message about too few pairs."""
        gaps_ms = np.array(self.gaps_ns) / 1e6
        return (
            f'from a scan to the nearest image it is {gaps_ms.min():.1f} ms at least, '
            f'{np.median(gaps_ms):.1f} ms in the middle and {gaps_ms.max():.1f} ms at most'
        )


def pair_scans(
    image_stamps_ns: Sequence[int], scan_stamps_ns: Sequence[int], max_gap_ns: int
) -> Pairing:
    """Give each scan the image nearest in time; an image goes with its nearest scan only.

    Args:
        image_stamps_ns, scan_stamps_ns: in any order; stamps that occur twice count once.
        max_gap_ns: the largest difference of stamps.
    """
    images = sorted(set(image_stamps_ns))
    scans = sorted(set(scan_stamps_ns))
    if not images or not scans:
        return Pairing((), len(scans), ())
    places = np.searchsorted(images, scans)
    nearest: dict[int, int] = {}
    gaps = []
    for scan, place in zip(scans, places.tolist(), strict=True):
        gap, image = min((abs(image - scan), image) for image in images[max(place - 1, 0) :][:2])
        gaps.append(gap)
        if gaps[-1] > max_gap_ns:
            continue
        if image not in nearest or abs(nearest[image] - image) > gaps[-1]:
            nearest[image] = scan
    pairs = tuple(Pair(image, nearest[image]) for image in sorted(nearest))
    return Pairing(pairs, len(scans) - len(pairs), tuple(gaps))


def thin_out(pairs: Sequence[Pair], every: int = 1, rate_hz: float = 0.0) -> tuple[Pair, ...]:
    """Keep every n-th pair, and of those at most so many a second.

    Args:
        pairs: in the order of time.
        every: 1 keeps all.
        rate_hz: 0 for no limit.
    """
    kept: list[Pair] = []
    # A tenth of the period of slack: stamps of a camera tremble.
    period_ns = 0.9e9 / rate_hz if rate_hz else 0.0
    for pair in pairs[::every]:
        if not kept or pair.image_ns - kept[-1].image_ns >= period_ns:
            kept.append(pair)
    return tuple(kept)
