"""No frame, and no drive, is both learned from and evaluated on, unless the user says so.

A bundle's provenance carries under `data`, by role ('student', 'teacher', 'stage-1 student' ...),
hashes of what was learned from; null where that is not known, as of official checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmkd_ros.checkpoint import Bundle
from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.identity import identify_object_frames, identify_raw_entries
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.kitti_raw import read_raw_list
from cmkd_ros.training.data.used_data import FrameIdentity, UsedData
from cmkd_ros.training.engine.recipe import DataSpec, SourceSpec
from cmkd_ros.training.engine.sources import frames_of

LOG = logging.getLogger('cmkd.data')
Lineage = Mapping[str, UsedData | None]


def lineage(bundle: Bundle) -> dict[str, UsedData | None]:
    """What a bundle's network, and those it came from, learned from; None where unknown.

    Raises:
        ValueError: the provenance is malformed.
    """
    data = bundle.provenance.get('data')
    if data is None:
        return dict.fromkeys(('teacher',) if bundle.kind == 'teacher' else ('student', 'teacher'))
    if not isinstance(data, Mapping):
        raise ValueError(f'{bundle.source}: provenance.data: expected roles, found {data!r:.60}')
    return {
        role: None if used is None else UsedData.from_json(used, bundle.source)
        for role, used in data.items()
    }


def teacher_lineage(own: UsedData, start: Bundle | None) -> Lineage:
    """What a teacher, and the network it started from, learned from."""
    before = {} if start is None else lineage(start)
    return {'teacher': own, **{f'initial {role}': used for role, used in before.items()}}


def student_lineage(own: UsedData, teacher: Bundle | None, stage_1: Bundle | None) -> Lineage:
    """What a student, its teacher, and the stage-1 student it started from learned from."""
    roles: dict[str, UsedData | None] = {
        'student': own,
        **({} if teacher is None else lineage(teacher)),
    }
    before = {} if stage_1 is None else lineage(stage_1)
    for role, used in before.items():
        if used is None or used not in roles.values():  # usually the same teacher and frames
            roles[f'stage-1 {role}'] = used
    return roles


def lineage_to_json(roles: Lineage) -> dict[str, Any]:
    """For `provenance.data`."""
    return {role: used and used.to_json() for role, used in roles.items()}


def held_out_frames(data: DataSpec) -> tuple[FrameIdentity, ...]:
    """The frames of a recipe that are kept for evaluation, with witnesses of their drives.

    `data.held_out` says which; where it says nothing, those of ImageSets/val.txt in the root of
    each source that has one.

    Raises:
        FileNotFoundError, ValueError: a list or the drives are malformed.
    """
    if data.held_out is not None:
        return tuple(identity for source in data.held_out for identity in _identities(source))
    roots = dict.fromkeys(source.root for source in data.sources if source.layout == 'object')
    lists = [(root, path) for root in roots if (path := root / 'ImageSets' / 'val.txt').is_file()]
    return tuple(
        identity
        for root, path in lists
        for identity in identify_object_frames(
            KittiFolder(root / 'training'), read_frame_list(path), with_drives=True
        )
    )


def check_leaks(
    where: str,
    used: Lineage,
    held_out: Sequence[FrameIdentity],
    allow: bool,
    advice: str,
) -> dict[str, Any]:
    """Compare what was or will be learned from with what is kept for evaluation.

    Args:
        where: recipe or model, for messages.
        used: by role.
        held_out: frames to evaluate, maybe with witnesses.
        allow: go on in spite of a leak, with a warning.
        advice: what to do about it, for the message.

    Returns:
        What was compared and found, as plain JSON data for a bundle or report.

    Raises:
        ValueError: a leak, and `allow` is off.
    """
    found = {role: data.overlap(held_out) for role, data in used.items() if data is not None}
    leaks = {role: overlap for role, overlap in found.items() if overlap}
    unknown = [role for role, data in used.items() if data is None]
    if leaks:
        shown = '; '.join(f'{role}: {overlap.shown()}' for role, overlap in leaks.items())
        message = (
            f'{where}: frames kept for evaluation, or their drives, are among those learned from'
        )
        if not all(overlap.drives for overlap in leaks.values()):
            advice += ', tell recordings of one rig apart by a file DATASET (docs/kitti.md)'
        if not allow:
            raise ValueError(f'{message}: {shown}; {advice}, or go on with --allow-leak')
        LOG.warning('%s, as allowed: %s', message, shown)
    if unknown and held_out:
        LOG.warning(
            '%s: not known which frames the %s learned from; a leak cannot be ruled out',
            where, ', '.join(unknown),
        )  # fmt: skip
    return {
        'held_out': sum(not identity.witness for identity in held_out),
        'allowed': allow,
        'leaks': {role: overlap.to_json() for role, overlap in leaks.items()},
        'unknown': unknown,
    }


def _identities(source: SourceSpec) -> tuple[FrameIdentity, ...]:
    if source.layout == 'raw' and source.frames is not None:
        return identify_raw_entries(read_raw_list(source.root / source.frames))
    folder = KittiFolder(Path(source.root) / source.folder)
    return identify_object_frames(folder, frames_of(source), with_drives=True)
