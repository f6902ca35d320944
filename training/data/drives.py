"""Which drive each frame comes from: frames of one drive are near-duplicates of each other."""

from __future__ import annotations

import csv
import re
from pathlib import Path

_DRIVE = re.compile(r'\d{4}_\d{2}_\d{2}_drive_\d{4}')


def read_drives(path: str | Path, split_folder: str = 'training') -> dict[str, str]:
    """Read the drive of every frame of a folder.

    Args:
        path: a MANIFEST.tsv with the columns `file` (`training/image_2/000003.png`) and
            `kitti_raw`, a folder that holds one, or a text file with lines `FRAME DRIVE`.
        split_folder: which folder of the manifest; frame ids repeat in others.

    Returns:
        frame -> drive, as `2011_09_26_drive_0005`. Frames whose drive the file does not give
        (KITTI never published it for its testing frames) are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: missing columns, a line that names no drive, or a frame with two drives.
    """
    path = Path(path)
    if path.is_dir():
        path = path / 'MANIFEST.tsv'
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such file (drives of the frames)')
    pairs = _manifest_pairs(path, split_folder) if path.suffix == '.tsv' else _list_pairs(path)
    drives: dict[str, str] = {}
    for number, frame, text in pairs:
        drive = _drive(f'{path}:{number}', text)
        if drives.setdefault(frame, drive) != drive:
            raise ValueError(f'{path}:{number}: frame {frame} in {drive} and in {drives[frame]}')
    return drives


def read_kitti_mapping(mapping: str | Path, permutation: str | Path) -> dict[str, str]:
    """Read KITTI's own object-to-raw mapping (`train_mapping.txt`, `train_rand.txt`).

    Line i of the permutation, a list of numbers from 1, tells which line of the mapping belongs to
    training frame i.

    Returns:
        frame -> drive, as `read_drives`.

    Raises:
        FileNotFoundError, ValueError: a file is missing, or the two do not fit together.
    """
    for path in (mapping, permutation):
        if not Path(path).is_file():
            raise FileNotFoundError(f'{path}: no such file (KITTI object-to-raw mapping)')
    lines = Path(mapping).read_text(encoding='utf-8').splitlines()
    words = Path(permutation).read_text(encoding='utf-8').replace(',', ' ').split()
    drives: dict[str, str] = {}
    for frame, word in enumerate(words):
        if not word.isdecimal() or not 1 <= int(word) <= len(lines):
            raise ValueError(
                f'{permutation}: expected line numbers 1 to {len(lines)} of {mapping}, '
                f'found {word!r} for frame {frame:06d}'
            )
        drives[f'{frame:06d}'] = _drive(f'{mapping}:{word}', lines[int(word) - 1])
    return drives


def _manifest_pairs(path: Path, split_folder: str) -> list[tuple[int, str, str]]:
    with path.open(encoding='utf-8', newline='') as file:
        rows = csv.DictReader(file, delimiter='\t')
        missing = {'file', 'kitti_raw'} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f'{path}:1: expected the column {sorted(missing)[0]!r}, found none')
        pairs = [(rows.line_num, Path(row['file']), row['kitti_raw'] or '') for row in rows]
    return [
        (number, file.stem, raw)
        for number, file, raw in pairs
        if file.parts[:2] == (split_folder, 'image_2') and _DRIVE.search(raw)
    ]


def _list_pairs(path: Path) -> list[tuple[int, str, str]]:
    pairs = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        if line.strip():
            frame, _, rest = line.strip().partition(' ')
            pairs.append((number, frame, rest))
    return pairs


def _drive(where: str, text: str) -> str:
    found = _DRIVE.search(text)
    if found is None:
        raise ValueError(
            f'{where}: expected a drive like 2011_09_26_drive_0005, found {text[:60]!r}'
        )
    return found.group()
