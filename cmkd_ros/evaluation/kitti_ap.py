"""Average precision of the KITTI object benchmark: image box, orientation (AOS), BEV and 3D.

Agrees with the official C++ evaluator to the rounding of float64.
"""

from collections.abc import Sequence

from cmkd_ros.evaluation.kitti_errors import matched_errors
from cmkd_ros.evaluation.kitti_matching import precision_samples
from cmkd_ros.evaluation.kitti_report import Averages, Curve, KittiReport, average_precisions
from cmkd_ros.evaluation.kitti_split import (
    ALL_DISTANCES,
    CLASSES,
    DIFFICULTIES,
    DISTANCES,
    MIN_OVERLAP,
    KittiSplit,
)
from cmkd_ros.kitti_files import KittiObjects


def evaluate_kitti(
    labels: Sequence[KittiObjects],
    results: Sequence[KittiObjects],
    classes: Sequence[str] = CLASSES,
    levels: Sequence[str] = ('strict', 'loose'),
) -> KittiReport:
    """Evaluate detections against labels by the rules of the KITTI object benchmark.

    Args:
        labels: the labels of each frame, DontCare regions included.
        results: the detections of the same frames in the same order; every detection needs an
            image box, since the benchmark takes its height for 3D, too.
        classes: of Car, Pedestrian, Cyclist.
        levels: of strict (official overlaps) and loose.

    Returns:
        all metrics, difficulties, R40 and R11.

    Raises:
        ValueError: on an unknown class or level, different numbers of frames, no scores.
    """
    for kind, given, known in (('class', classes, CLASSES), ('level', levels, MIN_OVERLAP)):
        wrong = [name for name in given if name not in known]
        if wrong or not given:
            raise ValueError(f'{kind}: expected some of {", ".join(known)}, found {list(given)}')
    split = KittiSplit(labels, results)
    curves = {
        level: {name: _curves_of_class(split, name, MIN_OVERLAP[level][name]) for name in classes}
        for level in levels
    }
    return KittiReport(
        frames=split.n_frames,
        n_gt={name: _n_gt(split, name, ALL_DISTANCES) for name in classes},
        aos_evaluated=split.orientations_known,
        classes_without_detection=[name for name in classes if not split.is_detected(name)],
        ap={
            level: {
                name: {
                    metric: None if samples is None else average_precisions(samples)
                    for metric, samples in of_metric.items()
                }
                for name, of_metric in of_class.items()
            }
            for level, of_class in curves.items()
        },
        curves_41=curves,
        ap_by_distance={
            level: {
                name: _ap_by_distance(split, name, MIN_OVERLAP[level][name]) for name in classes
            }
            for level in levels
        },
        n_gt_by_distance={
            name: {where: _n_gt(split, name, DISTANCES[where]) for where in DISTANCES}
            for name in classes
        },
        errors={name: matched_errors(split, name) for name in classes},
    )


def _curves_of_class(
    split: KittiSplit, class_name: str, min_overlap: dict[str, float]
) -> dict[str, list[Curve] | None]:
    alphas = (split.labels.objects.alphas_N, split.detections.objects.alphas_N)
    angles = alphas if split.orientations_known else None
    curves: dict[str, list[Curve] | None] = {}
    orientation: list[Curve] = []
    for metric, limit in min_overlap.items():
        precisions: list[Curve] = []
        for difficulty in range(len(DIFFICULTIES)):
            problem = split.problem(class_name, metric, limit, difficulty)
            precision, similarity = precision_samples(problem, angles if metric == 'bbox' else None)
            precisions.append(precision.tolist())
            if similarity is not None:
                orientation.append(similarity.tolist())
        curves[metric] = precisions
    curves['aos'] = orientation or None
    return curves


def _ap_by_distance(
    split: KittiSplit, class_name: str, min_overlap: dict[str, float]
) -> dict[str, dict[str, Averages]]:
    return {
        metric: {
            where: average_precisions(
                [
                    precision_samples(split.problem(class_name, metric, limit, i, distance))[0]
                    for i in range(len(DIFFICULTIES))
                ]
            )
            for where, distance in DISTANCES.items()
        }
        for metric, limit in min_overlap.items()
        if metric != 'bbox'
    }


def _n_gt(split: KittiSplit, class_name: str, distance: tuple[float, float]) -> list[int]:
    return [split.n_gt(class_name, i, distance) for i in range(len(DIFFICULTIES))]
