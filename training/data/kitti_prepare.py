"""Check a whole KITTI tree and write its index: parallel, and resumable after a cut.

Every checked frame is noted in a journal beside the index; a later run, after a cut or after the
index was written, takes over the frames whose files have kept size and time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.drives import find_drives
from cmkd_ros.training.data.extract_folder import SETTINGS_FILE
from cmkd_ros.training.data.kitti_checks import Fault, FrameRecord, check_frame
from cmkd_ros.training.data.kitti_index import (
    INDEX_NAME,
    FrameList,
    KittiIndex,
    frame_key,
    load_index,
    save_index,
)
from cmkd_ros.training.data.kitti_layout import KittiFolder

_SHOWN = 5


@dataclass(frozen=True)
class PreparedKitti:
    """What a run found.

    Attributes:
        index: the frames that are whole; also written to `path`.
        path: the index file.
        faults: files that cannot be used, by path; their frames are not in the index.
        checked: frames that were read.
        reused: frames taken over from an earlier run.
    """

    index: KittiIndex
    path: Path
    faults: tuple[Fault, ...]
    checked: int
    reused: int


def prepare_kitti(
    root: str | Path,
    *,
    index_path: str | Path | None = None,
    lists: Sequence[str | Path] = (),
    drives: Mapping[str, str] | None = None,
    mapping: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparedKitti:
    """Check every frame of a KITTI object tree and write the index.

    Every folder of the root with an `image_2` is read (`training`, `testing`, ...). Its frames
    need what the folder has subfolders for; `training` always needs labels, but not in a root that
    `cmkd extract-bag` made.

    Args:
        root: folder of `training/`, `testing/`.
        index_path: where to write; default `ROOT/cmkd_index.safetensors`.
        lists: list files beside those of `ROOT/ImageSets`; a list belongs to the folder of its
            own name, to `testing` when its name begins with test, otherwise to `training`.
        drives: 'training/000003' -> drive; default what `find_drives` finds in or below the root,
            and where it finds none what the index of an earlier run says.
        mapping: folder of KITTI's own `train_mapping.txt` and `train_rand.txt`, when it lies
            elsewhere.
        workers: threads; default one a processor.
        progress: called with (frames done, frames in all), first with what is taken over.

    Raises:
        FileNotFoundError: no such root, no KITTI folder in it, or a passed list is missing.
        ValueError: the mapping of frames to drives is malformed.
    """
    root = Path(root)
    path = root / INDEX_NAME if index_path is None else Path(index_path)
    folders = _find_folders(root)
    kinds = {name: _needed_kinds(folder) for name, folder in folders.items()}
    frames = [
        (name, frame)
        for name, folder in folders.items()
        for frame in sorted(set().union(*(folder.frames(kind) for kind in kinds[name])))
    ]
    found_lists, faults = _read_lists(root, lists, frames)
    if drives is None:
        drives = _find_drives(root, folders, mapping) or _known_drives(path)
    journal = path.with_name(f'{path.name}.partial')
    known = _known_records(path, journal)
    records = {
        key: known[key]
        for name, frame in frames
        if (key := frame_key(name, frame)) in known
        and _unchanged(known[key], folders[name], kinds[name])
    }
    reused = len(records)
    todo = [(name, frame) for name, frame in frames if frame_key(name, frame) not in records]
    report = progress or (lambda done, total: None)
    report(reused, len(frames))
    with journal.open('a', encoding='utf-8') as notes:
        notes.write('\n')  # ends a line that a cut may have torn
        for done, outcome in enumerate(_check_all(folders, kinds, todo, workers), reused + 1):
            if isinstance(outcome, FrameRecord):
                records[frame_key(outcome.folder, outcome.frame)] = outcome
                notes.write(json.dumps(asdict(outcome)) + '\n')
                notes.flush()
            else:
                faults += outcome
            report(done, len(frames))
    index = KittiIndex(
        records=tuple(records[key] for key in sorted(records)),
        drives={key: drives[key] for key in sorted(records) if key in drives},
        lists=found_lists,
    )
    save_index(path, index)
    journal.unlink()
    return PreparedKitti(
        index, path, tuple(sorted(faults, key=lambda fault: fault.path)), len(todo), reused
    )


def _find_folders(root: Path) -> dict[str, KittiFolder]:
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder')
    folders = {
        path.name: KittiFolder(path)
        for path in sorted(root.iterdir())
        if path.joinpath('image_2').is_dir()
    }
    if not folders:
        raise FileNotFoundError(
            f'{root}: expected training/ or testing/ with image_2/ in it, found neither'
        )
    return folders


def _needed_kinds(folder: KittiFolder) -> tuple[str, ...]:
    needed = dict.fromkeys(('image', 'calib', *folder.kinds()))
    recorded = (folder.path.parent / SETTINGS_FILE).is_file()
    if folder.path.name == 'training' and not recorded:
        needed['label'] = None
    return tuple(needed)


def _check_all(
    folders: Mapping[str, KittiFolder],
    kinds: Mapping[str, tuple[str, ...]],
    frames: Sequence[tuple[str, str]],
    workers: int | None,
) -> Iterator[FrameRecord | tuple[Fault, ...]]:
    # Threads are enough: decoding, hashing and reading all release the interpreter lock.
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        tasks = [
            pool.submit(check_frame, folders[name], frame, kinds[name]) for name, frame in frames
        ]
        for task in as_completed(tasks):
            yield task.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _known_records(path: Path, journal: Path) -> dict[str, FrameRecord]:
    """Records of earlier runs; a damaged index or a torn line costs only its own frames."""
    try:
        records = list(load_index(path).records) if path.is_file() else []
    except ValueError:
        records = []
    if journal.is_file():
        for line in journal.read_text(encoding='utf-8', errors='replace').splitlines():
            try:
                records.append(FrameRecord.from_json(json.loads(line)))
            except (ValueError, TypeError, KeyError):
                continue
    return {frame_key(record.folder, record.frame): record for record in records}


def _unchanged(record: FrameRecord, folder: KittiFolder, kinds: Sequence[str]) -> bool:
    return set(record.files) == set(kinds) and all(
        stamp.is_of(folder.file(kind, record.frame)) for kind, stamp in record.files.items()
    )


def _read_lists(
    root: Path, passed: Sequence[str | Path], frames: Sequence[tuple[str, str]]
) -> tuple[dict[str, FrameList], list[Fault]]:
    """Lists by name, and the faults of those that name frames which are not there."""
    there = set(frames)
    folders = {name for name, _ in frames}
    lists: dict[str, FrameList] = {}
    faults: list[Fault] = []
    for path in (*sorted(root.joinpath('ImageSets').glob('*.txt')), *map(Path, passed)):
        folder = _folder_of_list(path.stem, folders)
        if folder not in folders and path not in map(Path, passed):
            continue  # a tree without testing/ still has its test.txt
        try:
            names = read_frame_list(path)
        except ValueError as error:
            faults.append(Fault(path, str(error)))
            continue
        absent = [name for name in names if (folder, name) not in there]
        if absent:
            shown = ', '.join(absent[:_SHOWN]) + (' ...' if len(absent) > _SHOWN else '')
            faults.append(
                Fault(path, f'{path}: {len(absent)} of {len(names)} not in {folder}/: {shown}')
            )
        lists[path.stem] = FrameList(folder, tuple(names))
    return lists, faults


def _folder_of_list(name: str, folders: set[str]) -> str:
    if name in folders:
        return name
    return 'testing' if name.startswith('test') else 'training'


def _find_drives(
    root: Path, folders: Mapping[str, KittiFolder], mapping: str | Path | None
) -> dict[str, str]:
    return {
        frame_key(name, frame): drive
        for name in folders
        for frame, drive in find_drives(root, name, mapping).items()
    }


def _known_drives(path: Path) -> dict[str, str]:
    try:
        return dict(load_index(path).drives) if path.is_file() else {}
    except ValueError:  # damaged: made anew
        return {}
