"""Folders in; table, JSON and pictures out; wrong folders and files are named."""

import io
import json

import cv2
import numpy as np
import pytest
from rich.console import Console

from cmkd_ros.evaluation.report import (
    evaluate_folders,
    print_table,
    read_report,
    write_json,
    write_plots,
)

LABEL = 'Car 0.00 0 -1.57 100.00 150.00 200.00 250.00 1.50 1.60 3.90 0.00 1.65 20.00 -1.57'


@pytest.fixture(scope='module')
def case(reference_case):
    return reference_case('a_synthetic_mono')


@pytest.fixture(scope='module')
def report(case):
    return evaluate_folders(case.folder / 'label_2', case.folder / 'results')


@pytest.fixture
def folders(tmp_path):
    """Three labelled frames, each detected exactly; the last label file lacks its newline."""
    labels, results = tmp_path / 'labels', tmp_path / 'results'
    for folder, line in ((labels, LABEL), (results, f'{LABEL} 0.9')):
        folder.mkdir()
        for frame, end in (('000000', '\n'), ('000001', '\r\n'), ('000002', '')):
            (folder / f'{frame}.txt').write_bytes(f'{line}{end}'.encode())
    return labels, results


def printed(report, recall=40):
    console = Console(file=io.StringIO(), width=100)
    print_table(report, recall, console)
    return console.file.getvalue()


def test_folders_give_the_official_numbers(case, report):
    assert report.frames == 120 and report.extra == {'labels_without_results': 0}
    for metric, averages in case.expected['ap']['strict']['Car'].items():
        found = report.ap['strict']['Car'][metric]['R40']
        np.testing.assert_allclose(found, averages['R40'], rtol=0, atol=1e-7)


def test_frame_list_restricts_and_orders(folders, tmp_path):
    (tmp_path / 'split.txt').write_text('000002\n000000\n')
    report = evaluate_folders(*folders, tmp_path / 'split.txt')
    assert report.frames == 2 and report.n_gt['Car'] == [2, 2, 2]


def test_line_ends_do_not_matter(folders):
    assert evaluate_folders(*folders).ap['strict']['Car']['3d']['R40'] == pytest.approx([5.0] * 3)


def test_empty_result_file_is_a_frame_without_detections(folders):
    (folders[1] / '000001.txt').write_text('')
    report = evaluate_folders(*folders)
    assert report.frames == 3 and report.n_gt['Car'] == [3, 3, 3]


def test_labels_without_results_are_counted_and_told(folders):
    (folders[1] / '000001.txt').unlink()
    report = evaluate_folders(*folders)
    assert report.frames == 2 and report.to_json()['labels_without_results'] == 1
    assert '1 labelled frames have no result file' in printed(report)


def test_missing_files_and_folders_are_named(folders, tmp_path):
    labels, results = folders
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        evaluate_folders(labels, tmp_path / 'nowhere')
    (labels / '000002.txt').unlink()
    with pytest.raises(FileNotFoundError, match='labels/000002.txt: missing label file'):
        evaluate_folders(labels, results)
    (results / '000001.txt').unlink()
    (tmp_path / 'split.txt').write_text('000000\n000001\n')
    with pytest.raises(FileNotFoundError, match=r'results/000001.txt: missing .*split.txt'):
        evaluate_folders(labels, results, tmp_path / 'split.txt')
    for path in results.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match='results: expected result files'):
        evaluate_folders(labels, results)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (LABEL, '16 fields .* found 15'),
        (f'{LABEL} nan', "score must be a finite number, found 'nan'"),
        (f'{LABEL} 0.9 1', '16 fields .* found 17'),
        (f'{LABEL} 0.9'.replace(' 0 ', ' 0.00 ', 1), 'occluded must be written as an integer'),
    ],
)
def test_wrong_result_lines_are_named(folders, line, message):
    (folders[1] / '000001.txt').write_text(f'{LABEL} 0.5\n{line}\n')
    with pytest.raises(ValueError, match=f'results/000001.txt:2: .*{message}'):
        evaluate_folders(*folders)


def test_json_holds_everything_and_reads_back(report, tmp_path):
    path = tmp_path / 'report.json'
    write_json(report.with_extra({'latency_ms': {'p50': 12.5}}), path)
    document = json.loads(path.read_text())
    assert document['ap']['loose']['Car']['3d']['R11'] == report.ap['loose']['Car']['3d']['R11']
    assert len(document['curves_41']['strict']['Cyclist']['bev'][2]) == 41
    assert document['latency_ms'] == {'p50': 12.5}
    assert read_report(path) == report.with_extra({'latency_ms': {'p50': 12.5}})
    assert sorted(p.name for p in tmp_path.iterdir()) == ['report.json']


def test_extra_entries_cannot_replace_numbers(report):
    with pytest.raises(ValueError, match='extra: ap, frames are entries of the report itself'):
        report.with_extra({'ap': {}, 'frames': 3, 'note': 'x'})


def test_reference_files_read_as_reports(case):
    reference = read_report(case.folder / 'expected.json')
    assert reference.ap == case.expected['ap']
    assert '92.75' in printed(reference)


def test_r11_passed_for_r40_is_refused(report, tmp_path):
    document = json.loads(json.dumps(report.to_json()))
    averages = document['ap']['strict']['Car']['3d']
    averages['R40'], averages['R11'] = averages['R11'], averages['R40']
    path = tmp_path / 'mixed.json'
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r'mixed.json: ap.strict.Car.3d: R40: .* which is R11'):
        read_report(path)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'Expecting value'),
        ('[1]', 'frames is missing'),
        ('{"frames": 3}', 'n_gt is missing'),
    ],
)
def test_files_that_are_no_reports_are_refused(tmp_path, text, message):
    path = tmp_path / 'other.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'other.json: .*{message}'):
        read_report(path)
    with pytest.raises(FileNotFoundError, match='none.json'):
        read_report(tmp_path / 'none.json')


def test_report_without_an_average_is_refused(report, tmp_path):
    document = json.loads(json.dumps(report.to_json()))
    del document['ap']['loose']['Cyclist']['bev']['R11']
    (tmp_path / 'short.json').write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r'ap.loose.Cyclist.bev: R11 is missing'):
        read_report(tmp_path / 'short.json')


def test_table_shows_the_chosen_recall(report):
    r40, r11 = printed(report, 40), printed(report, 11)
    assert 'AP R40' in r40 and '92.75' in r40 and '164' in r40
    assert 'AP R11' in r11 and '87.22' in r11 and '92.75' not in r11
    # 28 easy cyclists: a perfect detector cannot get more than 27 of 40 samples.
    assert 'Cyclist has fewer than 41 labels; the best possible AP is easy 67.5' in r40
    with pytest.raises(ValueError, match='expected 40 or 11, found 41'):
        print_table(report, 41)


def test_table_fits_a_narrow_terminal(report):
    console = Console(file=io.StringIO(), width=80)
    print_table(report, 40, console)
    assert '…' not in console.file.getvalue()


def test_pictures_of_the_curves(report, tmp_path):
    paths = write_plots(report, tmp_path / 'plots')
    assert {p.name for p in paths} == {
        f'{name}_{level}.png'
        for name in ('car', 'pedestrian', 'cyclist')
        for level in ('strict', 'loose')
    }
    for path in paths:
        image = cv2.imread(str(path))
        assert image.shape == (400, 1600, 3)
        # Three coloured curves, which is to say pixels that are not grey.
        assert (np.ptp(image, axis=2) > 50).sum() > 3000
