"""Which drive each frame comes from: frames of one drive are near-duplicates of each other."""

from __future__ import annotations

import csv
import re
from pathlib import Path

_DRIVE = re.compile(r'\d{4}_\d{2}_\d{2}_drive_\d{4}')
_MAPPING_FOLDERS = ('.', 'mapping', 'devkit/mapping', 'devkit_object/mapping')
_MAPPING, _PERMUTATION = 'train_mapping.txt', 'train_rand.txt'


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


def find_drives(root: Path, split_folder: str, mapping: str | Path | None = None) -> dict[str, str]:
    """The drives of a folder's frames by what lies in or below a KITTI root; empty without any.

    Args:
        root: folder of `training/` ...; asked are its MANIFEST.tsv and KITTI's own
            `train_mapping.txt` and `train_rand.txt` (also in `mapping/`, `devkit/mapping/`,
            `devkit_object/mapping/`), which speak of `training` only.
        split_folder: e.g. 'training'.
        mapping: folder of KITTI's two files, when they lie elsewhere.

    Raises:
        FileNotFoundError, ValueError: as `read_drives` and `read_kitti_mapping`.
    """
    drives: dict[str, str] = {}
    if root.joinpath('MANIFEST.tsv').is_file():
        drives |= read_drives(root, split_folder)
    if split_folder != 'training':
        return drives
    if mapping is not None:
        places = [Path(mapping)]
    else:
        places = [root / part for part in _MAPPING_FOLDERS if (root / part / _MAPPING).is_file()]
    for place in places:
        drives |= read_kitti_mapping(place / _MAPPING, place / _PERMUTATION)
    return drives


def drive_name(text: str) -> str | None:
    """The drive in a text such as `2011_09_26/2011_09_26_drive_0005_sync/image_02`, else None."""
    found = _DRIVE.search(text)
    return found.group() if found else None


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
    name = drive_name(text)
    if name is None:
        raise ValueError(
            f'{where}: expected a drive like 2011_09_26_drive_0005, found {text[:60]!r}'
        )
    return name
