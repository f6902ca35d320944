"""What a check of a KITTI tree found, in lines for people."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from cmkd_ros.training.data.kitti_index import frame_key
from cmkd_ros.training.data.kitti_prepare import PreparedKitti


def finding_lines(prepared: PreparedKitti) -> list[str]:
    """One line a broken file, with its reason, then one a folder and one a list.

    Args:
        prepared: what `prepare_kitti` returned.
    """
    return [
        *(fault.reason for fault in prepared.faults),
        *_folder_lines(prepared),
        *_list_lines(prepared),
        f'{prepared.checked} frames read, {prepared.reused} unchanged since an earlier run',
        f'index: {prepared.path} (frames sha256 {prepared.index.frames_sha256[:16]})',
    ]


def _folder_lines(prepared: PreparedKitti) -> list[str]:
    index = prepared.index
    lines = []
    for folder, count in sorted(Counter(record.folder for record in index.records).items()):
        records = [record for record in index.records if record.folder == folder]
        sizes = Counter(record.image_size for record in records)
        drives = [
            index.drives[key]
            for record in records
            if (key := frame_key(folder, record.frame)) in index.drives
        ]
        shown = ', '.join(f'{width}x{height}' for (height, width), _ in sizes.most_common(4))
        parts = [f'{folder}: {count} whole frames', f'images {shown}']
        parts += ['...'] if len(sizes) > 4 else []
        if any(record.objects >= 0 for record in records):
            parts.append(f'{sum(max(record.objects, 0) for record in records)} labelled objects')
        parts.append(
            f'{len(set(drives))} drives known for {len(drives)} frames'
            if drives
            else 'drives unknown: frames alone tell training and evaluation apart'
        )
        lines.append('; '.join(parts))
    return lines


def _list_lines(prepared: PreparedKitti) -> list[str]:
    index = prepared.index
    whole = {frame_key(record.folder, record.frame) for record in index.records}
    lines = []
    for name, entry in sorted(index.lists.items()):
        usable = sum(frame_key(entry.folder, frame) in whole for frame in entry.frames)
        lines.append(f'list {name}: {usable} of {len(entry.frames)} frames usable')
    lines += _shared_drives(prepared)
    return lines


def _shared_drives(prepared: PreparedKitti) -> list[str]:
    """Two lists with frames of one drive must not be trained and evaluated on."""
    index = prepared.index
    drives = {
        name: {
            index.drives[key]
            for frame in entry.frames
            if (key := frame_key(entry.folder, frame)) in index.drives
        }
        for name, entry in sorted(index.lists.items())
    }
    frames = {name: set(entry.frames) for name, entry in index.lists.items()}
    return [
        f'lists {one} and {other} share {len(shared)} drives: {", ".join(sorted(shared)[:3])}'
        + (' ...' if len(shared) > 3 else '')
        for one, other in combinations(drives, 2)
        if (shared := drives[one] & drives[other])
        and not (frames[one] <= frames[other] or frames[other] <= frames[one])
    ]
