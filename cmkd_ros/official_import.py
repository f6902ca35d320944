"""Official checkpoints become bundles: every tensor is used, or named with the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cmkd_ros.checkpoint import Bundle
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import IGNORED_OFFICIAL_KEYS, STUDENT_RULES, Rule, rename_table
from cmkd_ros.official_file import OfficialFile
from cmkd_ros.official_kind import Contents, identify

KITTI_FX_PX = 721.5377  # focal length of the camera that all official students were trained with
KITTI_LIDAR_HEIGHT_M = 1.73
IGNORED = dict.fromkeys(IGNORED_OFFICIAL_KEYS, "the trainer's step counter")


@dataclass(frozen=True)
class Imported:
    """An official checkpoint as a bundle.

    Attributes:
        bundle: ours, with the same values.
        config: name of the official configuration.
        ignored: official keys that were left out, and why.
    """

    bundle: Bundle
    config: str
    ignored: Mapping[str, str]

    def summary(self) -> str:
        """One line on what was imported."""
        text = f'{self.bundle.kind} {self.config}, {len(self.bundle.tensors)} tensors'
        text += ''.join(f'; left out {key} ({why})' for key, why in self.ignored.items())
        if not self.bundle.with_head:
            text += (
                '; of stage 1, so it has features but cannot detect: distil stage 2 from it, or '
                'import a stage-2 (V2) checkpoint'
            )
        return text


def import_student(file: OfficialFile, config: str) -> Imported:
    """Turn the checkpoint of an official student, of stage 1 or 2, into a bundle.

    Args:
        file: the checkpoint.
        config: 'scd_r50', 'pp_r50' or 'ctp_r50'.

    Raises:
        ValueError: it holds something else, or tensors are missing, unexpected or of another
            shape; says which, and which configuration would fit.
    """
    contents = identify(file.shapes)
    refuse_other_contents(file, contents, 'student', config)
    with_head = contents is not None and contents.stage == 2
    spec = load_spec(config)
    with torch.device('meta'):
        network = build_student(spec, with_head)
    tensors, ignored = match_tensors(
        file, file.tensors, network.state_dict(), STUDENT_RULES, config
    )
    bundle = Bundle(
        kind='student',
        spec=spec.model_dump(mode='json'),
        tensors=tensors,
        with_head=with_head,
        train_fx_px=KITTI_FX_PX,
        reference_height_m=KITTI_LIDAR_HEIGHT_M,
        provenance=describe_source(file, config, ignored),
        source=str(file.path),
    )
    return Imported(bundle, config, ignored)


def refuse_other_contents(
    file: OfficialFile, contents: Contents | None, kind: str, config: str
) -> None:
    """Refuse a file that holds another network than the one asked for.

    Raises:
        ValueError: says what the file holds and what to do with it.
    """
    if contents is None:
        some = ', '.join(list(file.tensors)[:3])
        raise ValueError(
            f'{file.path}: no network of official CMKD (it begins with {some}); expected a '
            f'{kind} {config}'
        )
    if config not in contents.configs:
        hint = contents.hint
        if contents.kind == 'student' and kind == 'teacher':
            hint = f'the {config} teacher is a file of its own, {hint} for this one'
        raise ValueError(f'{file.path}: not the {kind} {config}, it holds {contents.title}; {hint}')


def match_tensors(
    file: OfficialFile,
    official: Mapping[str, torch.Tensor],
    own: Mapping[str, torch.Tensor],
    rules: Iterable[Rule],
    config: str,
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Rename tensors to ours; every one must have its place, and every place its tensor.

    Args:
        file: where they come from, for messages.
        official: tensors by official key.
        own: state dict of the network to be filled (shapes and types count, values do not).
        rules: rename patterns of that network.
        config: its name, for messages.

    Returns:
        The tensors by our key, float ones as float32; and the keys left out with their reasons.

    Raises:
        ValueError: keys missing, unexpected, or of another shape; names the first of each.
    """
    table = rename_table(own, rules)
    ignored = {key: IGNORED[key] for key in official if key in IGNORED}
    faults = {
        'missing': [key for key in table if key not in official],
        'unexpected': [key for key in official if key not in table and key not in ignored],
        'of another shape': [
            f'{key} expected {tuple(own[ours].shape)}, found {tuple(official[key].shape)}'
            for key, ours in table.items()
            if key in official and official[key].shape != own[ours].shape
        ],
    }
    if any(faults.values()):
        told = [f'{len(keys)} {word}: {_first(keys)}' for word, keys in faults.items() if keys]
        raise ValueError(
            f'{file.path}: looks like {config} but differs from the official network; tensors '
            f'{"; ".join(told)}; take the whole checkpoint of an unchanged CMKD configuration'
        )
    return {ours: official[key].to(own[ours].dtype) for key, ours in table.items()}, ignored


def describe_source(file: OfficialFile, config: str, ignored: Mapping[str, str]) -> dict[str, Any]:
    """Provenance of an imported bundle as plain JSON data."""
    return {
        'official': {
            'config': config,
            'file': file.path.name,
            'sha256': file.sha256,
            **file.trainer,
            'left_out': dict(ignored),
        }
    }


def _first(faults: list[str]) -> str:
    return ', '.join(faults[:3]) + (', ...' if len(faults) > 3 else '')
