"""The frames of a ladder: made where they are synthetic, and as sources for its runs."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.progress import show_progress
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
    """

    labelled: SourceSpec
    unlabelled: SourceSpec | None
    evaluation: SourceSpec


def provide_frames(data: LadderData, out: Path) -> LadderFrames:
    """Make the synthetic drives in `out`/drives, or take the sources of the recipe.

    Several processes may ask at once: one makes the drives, the others wait for it.

    Raises:
        OSError: no space; the same command goes on later.
        FileExistsError: `out`/drives holds other drives.
    """
    if data.synthetic is None:
        if data.labelled is None or data.evaluation is None:
            raise ValueError('data: expected labelled and evaluation frames')
        return LadderFrames(data.labelled, data.unlabelled, data.evaluation)
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
    return LadderFrames(sources['labelled'], sources.get('unlabelled'), sources['evaluation'])


def some_labels(source: SourceSpec, share: float, folder: Path) -> SourceSpec:
    """The source with a share of its frames, evenly spread; the list lies in `folder`."""
    if share >= 1:
        return source
    frames = frames_of(source)
    wanted = max(1, round(share * len(frames)))
    chosen = [frames[math.floor((i + 0.5) * len(frames) / wanted)] for i in range(wanted)]
    path = folder.resolve() / f'labels_{share:g}.txt'
    write_text_atomically(path, ''.join(f'{frame}\n' for frame in chosen))
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
