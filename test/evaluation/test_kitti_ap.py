"""The evaluator against the official one, and properties that any evaluator must have."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.evaluation import kitti_ap
from cmkd_ros.evaluation.kitti_matching import count_per_frame
from cmkd_ros.evaluation.kitti_report import average_precisions, highest_ap
from cmkd_ros.evaluation.kitti_split import CLASSES, DISTANCES, MIN_OVERLAP, KittiSplit
from cmkd_ros.kitti_files import KittiObjects

CASES = ('a_synthetic_mono', 'b_real_labels', 'c_edge_rules')


def make_objects(names, rows, scores=None):
    """Rows: truncated, occluded, alpha, x1, y1, x2, y2, h, w, l, x, y, z, ry."""
    rows = np.array(rows, dtype=float).reshape(-1, 14)
    return KittiObjects(
        tuple(names),
        rows[:, 0],
        rows[:, 1].astype(int),
        rows[:, 2],
        rows[:, 3:7],
        rows[:, 7:10],
        rows[:, 10:13],
        rows[:, 13],
        None if scores is None else np.array(scores, dtype=float),
    )


def car(z=20.0, x=0.0, ry=0.3, alpha=0.1, height_px=60.0):
    return [0, 0, alpha, 100, 100, 200, 100 + height_px, 1.5, 1.6, 4.0, x, 1.6, z, ry]


@pytest.mark.parametrize('name', CASES)
def test_every_number_of_the_official_evaluator(reference_case, name):
    case = reference_case(name)
    found = kitti_ap.evaluate_kitti(case.labels, case.results).to_json()
    expected = case.expected
    for key in ('frames', 'n_gt', 'aos_evaluated', 'classes_without_detection', 'min_overlap'):
        assert found[key] == expected[key]
    compared = 0
    for level, classes in expected['ap'].items():
        for class_name, metrics in classes.items():
            for metric, averages in metrics.items():
                curve = expected['curves_41'][level][class_name][metric]
                # The reference has nine digits: half a unit of the last of them, and 1e-12.
                np.testing.assert_allclose(
                    found['curves_41'][level][class_name][metric], curve, rtol=0, atol=5.01e-10
                )
                for kind, percent in averages.items():
                    np.testing.assert_allclose(
                        found['ap'][level][class_name][metric][kind], percent, rtol=0, atol=5.01e-8
                    )
                    compared += 3
    assert compared == 2 * 3 * 4 * 2 * 3


def test_counts_of_every_frame_of_the_edge_rules(reference_case):
    case = reference_case('c_edge_rules')
    frames = json.loads((case.folder / 'frames.json').read_text())
    split = KittiSplit(case.labels, case.results)
    for class_name in CLASSES:
        for metric, limit in MIN_OVERLAP['strict'][class_name].items():
            for difficulty in range(3):
                problem = split.problem(class_name, metric, limit, difficulty)
                found = count_per_frame(problem, split.n_frames)
                for frame, counts in zip(frames, found.tolist(), strict=True):
                    expected = frame['counts'][class_name][metric][difficulty]
                    assert counts == expected, (frame['frame'], frame['rule'], class_name, metric)


@pytest.mark.parametrize('name', CASES)
def test_labels_as_detections_give_exactly_100(reference_case, name):
    labels = reference_case(name).labels
    if name == 'c_edge_rules':
        # By the rules a Van (a sitting person) in the place of a Car (a pedestrian) and before it
        # takes its detection; these two frames are there to show it.
        labels = [frame for i, frame in enumerate(labels) if i not in (20, 78)] * 3
    results = [replace(frame, scores_N=np.ones(len(frame))) for frame in labels]
    report = kitti_ap.evaluate_kitti(labels, results)
    checked = 0
    for level in report.ap:
        for class_name, metrics in report.ap[level].items():
            for metric, averages in metrics.items():
                if averages is None:  # DontCare has alpha -10
                    assert metric == 'aos' and not report.aos_evaluated
                    continue
                for kind in ('R40', 'R11'):
                    for n_gt, value in zip(report.n_gt[class_name], averages[kind], strict=True):
                        if n_gt >= 41 and metric != 'aos':
                            assert value == 100.0
                            checked += 1
    assert checked >= 2 * 3 * 2 * 2 * 3


@given(
    st.lists(st.integers(0, 30), min_size=41, max_size=60),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=5, deadline=None)
def test_random_labels_as_detections_give_100(counts, seed):
    random = np.random.default_rng(seed)
    labels, results = [], []
    for count in [1, *counts]:
        rows = []
        for i in range(count):
            rows.append(car(ry=random.uniform(-4, 4), alpha=random.uniform(-3, 3)))
            rows[-1][7:10] = random.uniform(0.3, 9, 3)
            # Apart in the image and on the ground, or labels could take each other's detection.
            rows[-1][3:7] = [110 * i, 0, 110 * i + random.uniform(1, 100), random.uniform(41, 90)]
            rows[-1][10:13] = [15 * i, random.uniform(-2, 3), random.uniform(2, 90)]
        labels.append(make_objects(['Cyclist'] * count, rows))
        results.append(make_objects(['cyclist'] * count, rows, random.uniform(-3, 3, count)))
    report = kitti_ap.evaluate_kitti(labels, results, classes=['Cyclist'])
    n_gt = report.n_gt['Cyclist'][0]
    for metrics in (report.ap['strict']['Cyclist'], report.ap['loose']['Cyclist']):
        for averages in metrics.values():
            for recall in (40, 11):
                assert averages[f'R{recall}'] == pytest.approx([highest_ap(n_gt, recall)] * 3)


def test_few_labels_cap_the_average():
    labels = [make_objects(['Car'], [car()])] * 10
    results = [replace(frame, scores_N=np.ones(1)) for frame in labels]
    averages = kitti_ap.evaluate_kitti(labels, results).ap['strict']['Car']['3d']
    assert averages['R40'] == pytest.approx([22.5] * 3) == [highest_ap(10, 40)] * 3
    assert averages['R11'] == pytest.approx([300 / 11] * 3) == [highest_ap(10, 11)] * 3
    assert highest_ap(41, 40) == highest_ap(41, 11) == 100.0
    assert highest_ap(0, 40) == 0.0


def test_class_names_ignore_case(reference_case):
    case = reference_case('a_synthetic_mono')
    lower = [replace(f, names=tuple(n.lower() for n in f.names)) for f in case.labels]
    upper = [replace(f, names=tuple(n.upper() for n in f.names)) for f in case.results]
    assert kitti_ap.evaluate_kitti(lower, upper) == kitti_ap.evaluate_kitti(
        case.labels, case.results
    )


def test_order_of_frames_does_not_matter(reference_case):
    case = reference_case('a_synthetic_mono')
    order = np.random.default_rng(7).permutation(len(case.labels))
    shuffled = kitti_ap.evaluate_kitti(
        [case.labels[i] for i in order], [case.results[i] for i in order]
    )
    for level, classes in case.expected['ap'].items():
        for name, metrics in classes.items():
            for metric, averages in metrics.items():
                for kind, percent in averages.items():
                    found = shuffled.ap[level][name][metric][kind]
                    np.testing.assert_allclose(found, percent, rtol=0, atol=1e-7)


def test_one_unknown_orientation_switches_aos_off(reference_case):
    case = reference_case('c_edge_rules')
    results = list(case.results)
    last = max(i for i, frame in enumerate(results) if len(frame))
    results[last] = replace(results[last], alphas_N=np.full(len(results[last]), -10.0))
    report = kitti_ap.evaluate_kitti(case.labels, results)
    assert not report.aos_evaluated
    assert report.ap['strict']['Car']['aos'] is None
    assert report.curves_41['loose']['Cyclist']['aos'] is None
    expected = case.expected['ap']['strict']['Car']['3d']['R40']
    np.testing.assert_allclose(report.ap['strict']['Car']['3d']['R40'], expected, atol=1e-7)


def test_nothing_detected_and_nothing_labelled():
    empty, one_car = KittiObjects.empty(), make_objects(['Car'], [car()])
    report = kitti_ap.evaluate_kitti([empty, one_car], [KittiObjects.empty(scored=True)] * 2)
    assert report.classes_without_detection == list(CLASSES)
    assert report.n_gt == {'Car': [1, 1, 1], 'Pedestrian': [0, 0, 0], 'Cyclist': [0, 0, 0]}
    assert report.ap['strict']['Car']['3d'] == {'R40': [0.0] * 3, 'R11': [0.0] * 3}
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert kitti_ap.evaluate_kitti([], []).frames == 0


def test_distance_ranges_split_the_labels(reference_case):
    case = reference_case('b_real_labels')
    report = kitti_ap.evaluate_kitti(case.labels, case.results)
    for name, total in report.n_gt.items():
        parts = [report.n_gt_by_distance[name][where] for where in DISTANCES]
        assert np.sum(parts, axis=0).tolist() == total


def test_distance_ranges_judge_labels_where_they_stand():
    """Found across a border it counts for the label's range; a false one for its own."""
    labels = make_objects(['Car', 'Car'], [car(z=19.9), car(z=50.0)])
    rows = [car(z=20.1), car(z=50.0), car(z=30.0)]
    results = make_objects(['Car'] * 3, rows, [0.5, 0.5, 0.9])
    report = kitti_ap.evaluate_kitti([labels] * 60, [results] * 60)
    by_range = report.ap_by_distance['strict']['Car']['3d']
    assert by_range['0-20']['R40'] == by_range['40+']['R40'] == [100.0] * 3
    assert by_range['20-40']['R40'] == [0.0] * 3
    assert report.n_gt_by_distance['Car'] == {
        '0-20': [60] * 3,
        '20-40': [0] * 3,
        '40+': [60] * 3,
    }
    assert report.ap['strict']['Car']['3d']['R40'] == pytest.approx([200 / 3] * 3)


def test_errors_of_matched_boxes():
    labels = [make_objects(['Car'], [car(z=10.0)]), make_objects(['Car'], [car(z=30.0)])]
    near, far = car(z=11.0, ry=0.3 + 2 * np.pi + 0.1), car(z=27.0, ry=0.3 + np.pi - 0.2)
    near[7:10] = [1.6, 1.6, 3.7]
    results = [make_objects(['Car'], [near], [0.1]), make_objects(['Car'], [far], [-5.0])]
    errors = kitti_ap.evaluate_kitti(labels, results).errors['Car']
    assert errors['all'].n == 2
    assert errors['all'].depth_mean_abs == pytest.approx(2.0)
    assert errors['all'].depth_bias == pytest.approx(-1.0)
    assert errors['all'].heading_reversed_percent == pytest.approx(50.0)
    assert errors['0-20'].yaw_median_abs_rad == pytest.approx(0.1)
    assert errors['0-20'].size_mean_abs == pytest.approx([0.1, 0.0, 0.3])
    assert errors['20-40'].yaw_median_abs_rad == pytest.approx(0.2)
    assert errors['40+'].n == 0 and errors['40+'].depth_mean_abs is None


def test_results_of_an_image_detector_have_no_3d_errors():
    row = car()
    row[7:] = [-1, -1, -1, -1000, -1000, -1000, -10]
    labels = [make_objects(['Car'], [car()])] * 50
    report = kitti_ap.evaluate_kitti(labels, [make_objects(['Car'], [row], [1.0])] * 50)
    assert report.ap['strict']['Car']['bbox']['R40'] == [100.0] * 3
    assert report.ap['strict']['Car']['3d']['R40'] == [0.0] * 3
    assert report.errors['Car']['all'].n == 0


def test_r40_leaves_out_the_sample_at_recall_zero():
    samples = np.zeros((1, 41))
    samples[0, 0] = 1.0
    assert average_precisions(samples) == {'R40': [0.0], 'R11': [100.0 / 11.0]}


def test_wrong_arguments_are_refused():
    frame, result = KittiObjects.empty(), KittiObjects.empty(scored=True)
    with pytest.raises(ValueError, match='2 frames of labels and 1 of results'):
        kitti_ap.evaluate_kitti([frame, frame], [result])
    with pytest.raises(ValueError, match='carry scores'):
        kitti_ap.evaluate_kitti([frame], [frame])
    with pytest.raises(ValueError, match='class: expected some of Car'):
        kitti_ap.evaluate_kitti([frame], [result], classes=['car'])
    with pytest.raises(ValueError, match='level: expected some of strict, loose'):
        kitti_ap.evaluate_kitti([frame], [result], levels=['official'])


def test_kitti_val_takes_seconds(reference_case):
    case = reference_case('a_synthetic_mono')
    repeat = 3769 // len(case.labels) + 1
    labels, results = (case.labels * repeat)[:3769], (case.results * repeat)[:3769]
    # Time of all cores together, so that a busy machine does not fail the test.
    start = time.process_time()
    report = kitti_ap.evaluate_kitti(labels, results)
    assert time.process_time() - start < 10.0
    assert report.frames == 3769
