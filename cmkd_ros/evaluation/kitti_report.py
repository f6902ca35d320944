"""The numbers of one KITTI evaluation and their JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cmkd_ros.evaluation.kitti_errors import MatchedErrors
from cmkd_ros.evaluation.kitti_matching import N_SAMPLES
from cmkd_ros.evaluation.kitti_split import DIFFICULTIES, MIN_OVERLAP

Curve = list[float]
Averages = dict[str, list[float]]
# Percent; reference files carry nine digits.
_SAME_AP = 1e-6


@dataclass(frozen=True)
class KittiReport:
    """Every number of one evaluation; APs are percentages, lists are [easy, moderate, hard].

    Args:
        frames: number of frames.
        n_gt: labels that count, per class; fewer than 41 cap every AP below 100.
        aos_evaluated: False when any detection has the observation angle -10.
        classes_without_detection: classes whose APs are 0 because nothing was detected.
        ap: `ap[level][class][metric]['R40' | 'R11']` with metrics `bbox`, `bev`, `3d`, `aos`;
            `aos` is None when it is not evaluated.
        curves_41: `[level][class][metric][difficulty number]`, the 41 samples, 0 to 1.
        ap_by_distance: `[level][class][metric][range]['R40' | 'R11']` for `bev` and `3d`.
        n_gt_by_distance: `[class][range]`.
        errors: `[class][range or 'all']`, errors of the boxes that match in the image.
        extra: what else the caller wants in the JSON, by its own names.
    """

    frames: int
    n_gt: dict[str, list[int]]
    aos_evaluated: bool
    classes_without_detection: list[str]
    ap: dict[str, dict[str, dict[str, Averages | None]]]
    curves_41: dict[str, dict[str, dict[str, list[Curve] | None]]]
    ap_by_distance: dict[str, dict[str, dict[str, dict[str, Averages]]]]
    n_gt_by_distance: dict[str, dict[str, list[int]]]
    errors: dict[str, dict[str, MatchedErrors]]
    extra: dict[str, Any] = field(default_factory=dict)

    def with_extra(self, entries: Mapping[str, Any]) -> 'KittiReport':
        """Return the same report with more entries for the JSON, such as the latency of a node.

        Raises:
            ValueError: an entry has the name of one of the report's own.
        """
        own = sorted(set(entries) & (set(self.to_json()) - set(self.extra)))
        if own:
            raise ValueError(f'extra: {", ".join(own)} are entries of the report itself')
        return replace(self, extra={**self.extra, **entries})

    def to_json(self) -> dict[str, Any]:
        """Return dictionaries, lists and numbers ready for `json.dump`."""
        return {
            **self.extra,
            'frames': self.frames,
            'min_overlap': {level: MIN_OVERLAP[level] for level in self.ap},
            'difficulties': list(DIFFICULTIES),
            'unit': 'percent',
            'n_gt': self.n_gt,
            'aos_evaluated': self.aos_evaluated,
            'classes_without_detection': self.classes_without_detection,
            'ap': self.ap,
            'ap_by_distance': self.ap_by_distance,
            'n_gt_by_distance': self.n_gt_by_distance,
            'matched_errors': {
                name: {where: errors.to_json() for where, errors in by_range.items()}
                for name, by_range in self.errors.items()
            },
            'curves_41': self.curves_41,
        }

    @classmethod
    def from_json(cls, document: Any) -> 'KittiReport':
        """Return the report that `to_json` described; other evaluators' files may lack ranges.

        Raises:
            ValueError: an entry is missing, or an AP is not the mean of its own curve.
        """
        document = dict(document) if isinstance(document, Mapping) else {}
        needed = ('frames', 'n_gt', 'aos_evaluated', 'classes_without_detection', 'ap', 'curves_41')
        for key in needed:
            if key not in document:
                raise ValueError(
                    f'expected a KITTI report with {", ".join(needed)}; {key} is missing'
                )
        _check_averages(document['ap'], document['curves_41'])
        for derived in ('min_overlap', 'difficulties', 'unit'):
            document.pop(derived, None)
        errors = {
            name: {where: MatchedErrors(**numbers) for where, numbers in by_range.items()}
            for name, by_range in document.pop('matched_errors', {}).items()
        }
        return cls(
            **{key: document.pop(key) for key in needed},
            ap_by_distance=document.pop('ap_by_distance', {}),
            n_gt_by_distance=document.pop('n_gt_by_distance', {}),
            errors=errors,
            extra=document,
        )


def average_precisions(samples: ArrayLike) -> Averages:
    """Average the 41 samples of each difficulty, in percent.

    Args:
        samples: (difficulties, 41) precision or orientation similarity, 0 to 1.

    Returns:
        `R40` (official since 2019, without the sample at recall 0) and `R11` (before).
    """
    curves = np.asarray(samples, dtype=np.float64)
    return {
        'R40': (100.0 * curves[:, 1:].sum(axis=1) / 40.0).tolist(),
        'R11': (100.0 * curves[:, ::4].sum(axis=1) / 11.0).tolist(),
    }


def highest_ap(n_gt: int, recall: int) -> float:
    """Return the AP in percent of a perfect detector on so few labels (100 from 41 on).

    Args:
        n_gt: labels that count; each gives at most one of the 41 samples.
        recall: 40 or 11 recall positions.
    """
    samples = np.arange(N_SAMPLES) < n_gt
    return average_precisions(samples[None])[f'R{recall}'][0]


def _check_averages(ap: Any, curves: Any) -> None:
    """Refuse APs that are not those of the curves, mostly R11 taken for R40."""
    for level, of_class in curves.items():
        for name, of_metric in of_class.items():
            for metric, samples in of_metric.items():
                if samples is None:
                    continue
                try:
                    _check_average(ap[level][name][metric], average_precisions(samples))
                except (KeyError, TypeError, ValueError) as error:
                    raise ValueError(f'ap.{level}.{name}.{metric}: {error}') from error


def _check_average(found: Any, expected: Averages) -> None:
    for kind, other in (('R40', 'R11'), ('R11', 'R40')):
        if kind not in found:
            raise ValueError(f'{kind} is missing')
        if np.allclose(found[kind], expected[kind], rtol=0.0, atol=_SAME_AP):
            continue
        mixed_up = np.allclose(found[kind], expected[other], rtol=0.0, atol=_SAME_AP)
        raise ValueError(
            f'{kind}: its curve gives {expected[kind]}, found {found[kind]}'
            + (f', which is {other}' if mixed_up else '')
        )
