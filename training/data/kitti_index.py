"""The index of a checked KITTI tree: one safetensors file, columns over frames.

Letters: F frames, K kinds of files (image, calib, scan, label, depth).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.training.data.kitti_checks import FileStamp, FrameRecord
from cmkd_ros.training.data.used_data import hash_names

INDEX_NAME = 'cmkd_index.safetensors'
KINDS = ('image', 'calib', 'scan', 'label', 'depth')
_FORMAT = 'cmkd kitti index 1'
_NAMES = ('image_size', 'points', 'objects', 'size', 'mtime_ns', 'sha256')


@dataclass(frozen=True)
class FrameList:
    """A split: the frames that a list file names.

    Attributes:
        folder: folder of the frames, e.g. 'training'.
        frames: frame ids in file order.
    """

    folder: str
    frames: tuple[str, ...]


@dataclass(frozen=True)
class KittiIndex:
    """Frames that passed all checks, sorted by folder and name.

    Attributes:
        records: one a frame.
        drives: 'training/000003' -> '2011_09_26_drive_0046', where it is known; the first ten
            letters are the date.
        lists: name of the list ('train', 'val' ...) -> its frames, faulty ones too.
    """

    records: tuple[FrameRecord, ...]
    drives: Mapping[str, str]
    lists: Mapping[str, FrameList]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def frames_sha256(self) -> str:
        """SHA-256 over the names of the frames."""
        return hash_names([frame_key(record.folder, record.frame) for record in self.records])

    @property
    def drives_sha256(self) -> str:
        """SHA-256 over frames and their drives, as far as known."""
        return hash_names([f'{key} {drive}' for key, drive in self.drives.items()])


def frame_key(folder: str, frame: str) -> str:
    """Name of a frame within a tree: ids repeat in other folders."""
    return f'{folder}/{frame}'


def save_index(path: Path, index: KittiIndex) -> None:
    """Write the index atomically, with a checksum over its content."""
    columns = _columns(index.records)
    document = json.dumps(
        {
            'frames': [frame_key(record.folder, record.frame) for record in index.records],
            'drives': dict(index.drives),
            'frames_sha256': index.frames_sha256,
            'drives_sha256': index.drives_sha256,
            'lists': {
                name: {'folder': entry.folder, 'frames': entry.frames}
                for name, entry in index.lists.items()
            },
        }
    )
    metadata = {'format': _FORMAT, 'json': document, 'sha256': _digest(document, columns)}
    write_bytes_atomically(path, save(columns, metadata))


def load_index(path: Path) -> KittiIndex:
    """Read an index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or not an index of this version.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (index of a KITTI tree)')
    try:
        with safe_open(path, framework='numpy') as file:
            metadata = file.metadata() or {}
            columns = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f'{path}: damaged index: {error}') from error
    if metadata.get('format') != _FORMAT or set(columns) != set(_NAMES):
        raise ValueError(
            f'{path}: expected the format {_FORMAT!r}, found {metadata.get("format")!r}'
        )
    document = metadata.get('json', '')
    if _digest(document, columns) != metadata.get('sha256'):
        raise ValueError(f'{path}: damaged index: its checksum does not match its content')
    content = json.loads(document)
    return KittiIndex(
        records=_records(content['frames'], columns),
        drives=content['drives'],
        lists={
            name: FrameList(entry['folder'], tuple(entry['frames']))
            for name, entry in content['lists'].items()
        },
    )


def _columns(records: Sequence[FrameRecord]) -> dict[str, np.ndarray]:
    stamps_FK = [[record.files.get(kind) for kind in KINDS] for record in records]
    absent = FileStamp(-1, -1, '00' * 32)
    known_FK = [[stamp or absent for stamp in row] for row in stamps_FK]
    digests = b''.join(bytes.fromhex(stamp.sha256) for row in known_FK for stamp in row)
    shape = (len(records), len(KINDS))
    return {
        'image_size': np.array([r.image_size for r in records], dtype=np.int64).reshape(-1, 2),
        'points': np.array([record.points for record in records], dtype=np.int64),
        'objects': np.array([record.objects for record in records], dtype=np.int64),
        'size': np.array([[s.size for s in row] for row in known_FK], np.int64).reshape(shape),
        'mtime_ns': np.array([[s.mtime_ns for s in row] for row in known_FK], np.int64).reshape(
            shape
        ),
        'sha256': np.frombuffer(digests, dtype=np.uint8).reshape(*shape, 32),
    }


def _records(frames: Sequence[str], columns: Mapping[str, np.ndarray]) -> tuple[FrameRecord, ...]:
    records = []
    for row, key in enumerate(frames):
        folder, _, frame = key.rpartition('/')
        sizes, times = columns['size'][row].tolist(), columns['mtime_ns'][row].tolist()
        files = {
            kind: FileStamp(size, time, columns['sha256'][row, column].tobytes().hex())
            for column, (kind, size, time) in enumerate(zip(KINDS, sizes, times, strict=True))
            if size >= 0
        }
        height, width = columns['image_size'][row].tolist()
        points, objects = int(columns['points'][row]), int(columns['objects'][row])
        records.append(FrameRecord(folder, frame, (height, width), points, objects, files))
    return tuple(records)


def _digest(document: str, columns: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(document.encode())
    for name in sorted(columns):
        array = np.ascontiguousarray(columns[name])
        digest.update(f'\n{name} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
