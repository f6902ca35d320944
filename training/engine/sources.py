"""The frames of a recipe: data sets in KITTI layouts, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cmkd_ros.kitti_files import read_frame_list
from cmkd_ros.training.data.augment import InTurn, TeacherAugmentation
from cmkd_ros.training.data.frames import Augmentation, ConcatFrames, Range
from cmkd_ros.training.data.gt_database import PasteObjects, join_databases, open_database
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_raw import KittiRawFrames, read_raw_list
from cmkd_ros.training.engine.recipe import DataSpec, SourceSpec, TeacherAugment


def open_frames(
    data: DataSpec,
    classes: tuple[str, ...],
    range_m: Range,
    with_depth: bool,
    with_image: bool = True,
    with_plane: bool = False,
) -> ConcatFrames:
    """The frames of a recipe, labelled and unlabelled sources one after the other.

    Args:
        data: the recipe's sources.
        classes: wanted class names.
        range_m: crop of points and boxes.
        with_depth: whether frames carry depth targets.
        with_image: False spares the decoding of pictures, for teachers.
        with_plane: whether frames carry the road's plane, for teachers too.
    """
    options = {'with_depth': with_depth, 'with_image': with_image}
    return ConcatFrames(
        [
            _open_raw(source, range_m, **options)
            if source.layout == 'raw'
            else _open_object(
                source,
                classes,
                range_m,
                with_plane=with_plane,
                cache=data.keep_in_memory,
                **options,
            )
            for source in data.sources
        ]
    )


def teacher_augmentation(
    spec: TeacherAugment, data: DataSpec, classes: tuple[str, ...], folder: Path
) -> Augmentation:
    """The random changes of a teacher's scans, pasted objects first.

    Args:
        spec: the recipe's augmentation.
        data: its sources; objects are cut out of the labelled ones.
        classes: class names of the teacher.
        folder: of the run; the cut-out objects are kept there.

    Raises:
        ValueError: a class to paste that the teacher does not know, or no labelled source.
    """
    change = TeacherAugmentation(
        flip_probability=spec.flip,
        rotation_rad=spec.rotation_rad,
        scale=spec.scale,
        shuffle=spec.shuffle,
    )
    if not any(spec.paste.values()):
        return change
    unknown = sorted(set(spec.paste) - set(classes))
    if unknown:
        raise ValueError(
            f'augment.paste: {", ".join(unknown)}: not among the classes {", ".join(classes)}'
        )
    databases = [
        open_database(
            folder / f'objects_{index}.safetensors',
            _open_object(source, classes, None, with_image=False),
            spec.paste_min_points,
        )
        for index, source in enumerate(data.sources)
        if source.labelled
    ]
    if not databases:
        raise ValueError('augment.paste needs a labelled source to cut objects out of')
    wanted = {classes.index(name) + 1: number for name, number in spec.paste.items()}
    return InTurn((PasteObjects(join_databases(databases), wanted, spec.paste_fill_up), change))


def _open_raw(
    source: SourceSpec, range_m: Range, with_depth: bool, with_image: bool
) -> KittiRawFrames:
    if source.frames is None:
        raise ValueError(f'{source.root}: raw recordings need a list of frames or drives')
    entries = read_raw_list(source.root / source.frames)
    return KittiRawFrames(
        source.root, entries, range_m=range_m, with_depth=with_depth, with_image=with_image
    )


def _open_object(
    source: SourceSpec, classes: Sequence[str], range_m: Range | None, **options: bool
) -> KittiFrames:
    return KittiFrames(
        source.root,
        frames_of(source),
        classes,
        split_folder=source.folder,
        range_m=range_m,
        labelled=source.labelled,
        **options,
    )


def frames_of(source: SourceSpec) -> list[str]:
    """The frame ids of a source in KITTI's object layout.

    Raises:
        FileNotFoundError: no list, or without one no image.
        ValueError: a malformed list.
    """
    if source.frames is not None:
        return list(read_frame_list(source.root / source.frames))
    folder = source.root / source.folder / 'image_2'
    frames = sorted(path.stem for path in folder.glob('*.png'))
    if not frames:
        raise FileNotFoundError(f'{folder}: no *.png images there (data.sources root or folder)')
    return frames
