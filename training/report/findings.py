"""What the numbers of a report say, in sentences: where a distillation breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cmkd_ros.training.report.bev_maps import MapDistance
from cmkd_ros.training.report.depth_plots import DepthErrors
from cmkd_ros.training.report.loss_curves import LossCurves
from cmkd_ros.training.report.probe import Probe

_UNLEARNED = 0.9  # of the teacher's energy: hardly better than an empty map
_ROUGH = 0.15  # of the distance: a depth that is too rough for strict overlaps


def find_faults(
    maps: MapDistance | None,
    depth: DepthErrors | None,
    curves: LossCurves,
    probes: Sequence[Probe],
) -> list[str]:
    """Sentences on what was measured, suspicious things first marked with 'Look:'.

    Args:
        maps: student against teacher, None without teacher.
        depth: student against LiDAR, None where the frames have none.
        curves: loss terms of the run.
        probes: the frames.
    """
    return [*_of_maps(maps), *_of_depth(depth), *_of_losses(curves), *_of_boxes(probes)]


def _of_maps(maps: MapDistance | None) -> list[str]:
    if maps is None:
        return ['No teacher: labels taught this student, so there are no maps to compare.']
    text = (
        f"BEV maps: the squared difference is {maps.relative_error:.0%} of the teacher's square, "
        f'correlation {maps.correlation:.2f}.'
    )
    if maps.relative_error > _UNLEARNED:
        text = (
            f'Look: {text} An empty map gets 100 %: the features were not learned (was weights.bev '
            '0 or the rate too low?).'
        )
    found = [text]
    if maps.dead_teacher > maps.channels // 2:
        found.append(
            f'Look: {maps.dead_teacher} of {maps.channels} channels of the teacher are always '
            'zero; most of the feature loss compares nothing. Train the teacher with a lower rate.'
        )
    if maps.dead_student > maps.dead_teacher + maps.channels // 4:
        found.append(
            f'Look: {maps.dead_student} of {maps.channels} channels of the student are always '
            f"zero, {maps.dead_teacher} of the teacher's."
        )
    return found


def _of_depth(depth: DepthErrors | None) -> list[str]:
    if depth is None:
        return []
    parts = [f'{low}-{high} m: {error:.2f} m' for (low, high), error in depth.median_m.items()]
    text = f'Depth, median error by distance: {", ".join(parts)}.'
    rough = [error / max((low + high) / 2, 1) for (low, high), error in depth.median_m.items()]
    if np.median(rough) > _ROUGH:
        text = f'Look: {text} That is too rough for boxes (was weights.depth 0?).'
    if depth.beyond > 0.5:
        text += (
            f' Look: the student calls {depth.beyond:.0%} of these pixels "beyond", so little of '
            'the picture is lifted into the grid.'
        )
    return [text]


def _of_losses(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    found = []
    shares = {}
    for term, (_, values) in curves.items():
        tenth = max(1, len(values) // 10)
        begin, end = float(np.mean(values[:tenth])), float(np.mean(values[-tenth:]))
        if term != 'loss':
            shares[term] = end
        if begin > 0 and end > 0.95 * begin and len(values) >= 20:
            found.append(f'Look: loss {term} did not fall ({begin:.4g} to {end:.4g}).')
    total = sum(shares.values())
    if total > 0:
        parts = sorted(shares.items(), key=lambda item: -item[1])
        text = ', '.join(f'{term} {value / total:.0%}' for term, value in parts)
        found.append(f'Share of the weighted terms at the end: {text}.')
    return found


def _of_boxes(probes: Sequence[Probe]) -> list[str]:
    true = sum(len(probe.sample.boxes_M7) for probe in probes)
    sentences = []
    if probes and all(probe.taught is not None for probe in probes):
        taught = sum(len(probe.taught) for probe in probes if probe.taught is not None)
        text = f'The teacher finds {taught} boxes in these frames, {true} are labelled.'
        if taught == 0:
            text = (
                f'Look: {text} It has nothing to teach: are these scans like those that it learned '
                'from (height of the reference frame, intensity, density)?'
            )
        sentences.append(text)
    if any(probe.found is None for probe in probes):
        return [*sentences, 'Stage 1: this student has no head yet, so it finds no boxes.']
    found = sum(len(probe.found) for probe in probes if probe.found is not None)
    text = f'The student finds {found} boxes in these frames, {true} are labelled.'
    if true and found == 0:
        text = f'Look: {text} Scores stay below the threshold.'
    return [*sentences, text]
