"""The frames of a ladder: made where they are synthetic, and as sources for its runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.progress import show_progress
from cmkd_ros.training.data.kitti_raw import KittiRawFrames, read_raw_list
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.engine.recipe import SourceSpec
from cmkd_ros.training.engine.sources import frames_of
from cmkd_ros.training.ladder.claim import claimed
from cmkd_ros.training.ladder.recipe import LadderData, SyntheticFrames

LOG = logging.getLogger('cmkd.ladder')
KINDS = ('labelled', 'unlabelled', 'evaluation')


@dataclass(frozen=True)
class LadderFrames:
    """What the runs of a ladder read.

    Attributes:
        labelled, evaluation: with labels.
        unlabelled: None where there are none.
        first: number -> that many frames from the beginning of `unlabelled`.
    """

    labelled: SourceSpec
    unlabelled: SourceSpec | None
    evaluation: SourceSpec
    first: Mapping[int, SourceSpec] = field(default_factory=dict)

    def unlabelled_of(self, amount: bool | int) -> SourceSpec | None:
        """What a rung's `unlabelled` asks for: all, none, or the first so many frames."""
        if amount is True:
            return self.unlabelled
        return self.first[amount] if amount else None


def provide_frames(data: LadderData, out: Path, numbers: Collection[int] = ()) -> LadderFrames:
    """Make the synthetic drives in `out`/drives, or take the sources of the recipe.

    Several processes may ask at once: one makes the drives, the others wait for it.

    Args:
        data: of the ladder.
        out: its folder; lists of chosen frames lie there too.
        numbers: of unlabelled frames that rungs ask for, beside all of them.

    Raises:
        ValueError: more frames are asked for than there are.
        OSError: no space; the same command goes on later.
        FileExistsError: `out`/drives holds other drives.
    """
    if data.synthetic is None:
        if data.labelled is None or data.evaluation is None:
            raise ValueError('data: expected labelled and evaluation frames')
        first = _first(data.unlabelled, numbers, out)
        return LadderFrames(data.labelled, data.unlabelled, data.evaluation, first)
    counts = dict(zip(KINDS, _counts(data.synthetic), strict=True))
    for number, (kind, count) in enumerate(counts.items()):
        folder = out / 'drives' / kind
        if count:
            with claimed(folder.with_suffix('.lock')):
                _generate(folder, count, data.synthetic.seed + number, data.synthetic)
    sources = {
        kind: SourceSpec(root=(out / 'drives' / kind).resolve(), labelled=kind != 'unlabelled')
        for kind, count in counts.items()
        if count
    }
    unlabelled = sources.get('unlabelled')
    first = _first(unlabelled, numbers, out)
    return LadderFrames(sources['labelled'], unlabelled, sources['evaluation'], first)


def count_unlabelled(data: LadderData, amount: bool | int) -> int:
    """How many unlabelled frames a rung's `unlabelled` means."""
    if amount is not True:
        return int(amount)
    if data.synthetic is not None:
        return data.synthetic.unlabelled
    return 0 if data.unlabelled is None else len(_list_frames(data.unlabelled))


def some_labels(source: SourceSpec, share: float, folder: Path) -> SourceSpec:
    """The source with a share of its frames, evenly spread; the list lies in `folder`."""
    if share >= 1:
        return source
    frames = frames_of(source)
    wanted = max(1, round(share * len(frames)))
    chosen = [frames[math.floor((i + 0.5) * len(frames) / wanted)] for i in range(wanted)]
    return _listed(source, chosen, folder / f'labels_{share:g}.txt')


def _first(
    source: SourceSpec | None, numbers: Collection[int], folder: Path
) -> dict[int, SourceSpec]:
    """The source cut after so many frames, for every number; the lists lie in `folder`."""
    if source is None or not numbers:
        return {}
    frames = _list_frames(source)
    if max(numbers) > len(frames):
        raise ValueError(
            f'unlabelled: a rung asks for {max(numbers)} frames, but {source.root} has '
            f'{len(frames)}; lower it, or take true for all'
        )
    return {
        number: _listed(source, frames[:number], folder / f'unlabelled_{number}.txt')
        for number in numbers
    }


def _list_frames(source: SourceSpec) -> Sequence[str]:
    if source.layout == 'raw' and source.frames is not None:
        entries = read_raw_list(source.root / source.frames)
        return KittiRawFrames(source.root, entries).frame_ids
    return frames_of(source)


def _listed(source: SourceSpec, frames: Sequence[str], path: Path) -> SourceSpec:
    path = path.resolve()
    write_text_atomically(path, ''.join(f'{frame}\n' for frame in frames))
    return source.model_copy(update={'frames': path})


def _counts(synthetic: SyntheticFrames) -> tuple[int, int, int]:
    return synthetic.labelled, synthetic.unlabelled, synthetic.evaluation


def _generate(folder: Path, frames: int, seed: int, synthetic: SyntheticFrames) -> None:
    if (folder / 'MANIFEST.tsv').is_file():
        return
    LOG.info('rendering %d frames into %s', frames, folder)
    with show_progress(f'rendering {folder.name}', frames) as step:
        generate_drive(
            folder,
            frames,
            seed,
            width=synthetic.width,
            height=synthetic.height,
            frames_per_drive=synthetic.frames_per_drive,
            density=synthetic.density,
            workers=synthetic.workers,
            progress=step,
        )
