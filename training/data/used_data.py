"""Which frames and drives a network learned from, as hashes that are small enough for its bundle.

A frame is known by an identity that does not depend on where it lies or what its pixels are, and by
its drive where that is known: frames of one drive are near-duplicates of each other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Of a SHA-256: ten million pairs of 42,000 and 3,769 frames meet by chance once in 10^11 times.
_BYTES = 8


@dataclass(frozen=True)
class FrameIdentity:
    """What a frame is recognised by.

    Attributes:
        name: for people, e.g. 'training/000003'.
        frame: the same text wherever the same frame of the same data set lies.
        drive: likewise of its drive; None where unknown.
        witness: not asked about itself, only there because of its drive.
    """

    name: str
    frame: str
    drive: str | None = None
    witness: bool = False


@dataclass(frozen=True)
class Overlap:
    """Frames that were used before, or whose drives were.

    Attributes:
        frames: names.
        drives: those of the frames whose drive was used, as far as known.
    """

    frames: tuple[str, ...]
    drives: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.frames)

    def shown(self, most: int = 3) -> str:
        """The number of frames, and the first drives or frames by name."""
        names = self.drives or self.frames
        more = ' ...' if len(names) > most else ''
        kind = 'drives' if self.drives else 'frames'
        return f'{len(self.frames)} frames ({kind} {", ".join(names[:most])}{more})'

    def to_json(self) -> dict[str, Any]:
        """Number of frames and names of drives."""
        return {'frames': len(self.frames), 'drives': list(self.drives)}


@dataclass(frozen=True)
class UsedData:
    """Hashes of the frames and drives that a network learned from."""

    frames: frozenset[bytes]
    drives: frozenset[bytes]

    @classmethod
    def of(cls, identities: Iterable[FrameIdentity]) -> UsedData:
        """The hashes of these frames."""
        known = tuple(identities)
        return cls(
            frozenset(_hash(identity.frame) for identity in known),
            frozenset(_hash(identity.drive) for identity in known if identity.drive is not None),
        )

    def overlap(self, identities: Sequence[FrameIdentity]) -> Overlap:
        """The frames among these that were used, themselves or another one of their drive."""
        drives = {
            identity.drive
            for identity in identities
            if identity.drive is not None
            and (_hash(identity.drive) in self.drives or _hash(identity.frame) in self.frames)
        }
        frames = [
            identity.name
            for identity in identities
            if not identity.witness
            and (identity.drive in drives or _hash(identity.frame) in self.frames)
        ]
        return Overlap(tuple(frames), tuple(sorted(drives)))

    def to_json(self) -> dict[str, str]:
        """Sorted hashes of eight bytes each in base 64, for a bundle's provenance."""
        return {'frames': _encode(self.frames), 'drives': _encode(self.drives)}

    @classmethod
    def from_json(cls, document: Any, source: str) -> UsedData:
        """Undo `to_json`.

        Raises:
            ValueError: something else; names the source.
        """
        try:
            return cls(_decode(document['frames']), _decode(document['drives']))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{source}: provenance.data: expected hashes of frames and drives ({error!r})'
            ) from error


def hash_names(names: Iterable[str]) -> str:
    """SHA-256 over the sorted names, one a line: the same for the same set in any order."""
    return hashlib.sha256('\n'.join(sorted(names)).encode()).hexdigest()


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_BYTES]


def _encode(hashes: frozenset[bytes]) -> str:
    return base64.b64encode(b''.join(sorted(hashes))).decode()


def _decode(text: str) -> frozenset[bytes]:
    content = base64.b64decode(text, validate=True)
    if len(content) % _BYTES:
        raise ValueError(f'expected a multiple of {_BYTES} bytes, found {len(content)}')
    return frozenset(content[i : i + _BYTES] for i in range(0, len(content), _BYTES))
