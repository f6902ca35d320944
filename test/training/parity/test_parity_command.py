"""The command that writes the parity tables."""

import math

import pytest

from cmkd_ros.training.parity.__main__ import main
from cmkd_ros.training.parity.losses import schedule_rows
from cmkd_ros.training.parity.records import Row
from cmkd_ros.training.parity.report import Section, all_passed, write_report
from cmkd_ros.training.parity.teachers import TEACHER_GOLDENS, teacher_rows

GOOD = Row('bev', 'mean abs 1', 'mean abs 1', 2e-7, 1e-4)
BAD = Row('head', '3 boxes', '4 boxes', math.inf, 1e-3)


def test_the_document_says_what_is_off_and_what_was_not_compared():
    sections = [
        Section('Student', [GOOD, BAD]),
        Section('Teacher', absent='needs spconv.'),
        Section('Rates', [GOOD]),
    ]
    text = write_report(sections, 'python -m cmkd_ros.training.parity --losses')
    assert 'Written by `python -m cmkd_ros.training.parity --losses`' in text
    assert '**2 of 3 comparisons are within their limit.** Not compared: Teacher.' in text
    assert '| bev | mean abs 1 | mean abs 1 | 2.0e-07 | 1.0e-04 | ok |' in text
    assert '| head | 3 boxes | 4 boxes | inf | 1.0e-03 | **off** |' in text
    assert 'Not compared: needs spconv.' in text
    assert not all_passed(sections)
    assert all_passed(sections[1:])


def test_a_folder_without_records_is_bad_input(tmp_path, caplog):
    assert main(['--goldens', str(tmp_path), '--out', str(tmp_path / 'parity.md')]) == 2
    assert f'{tmp_path}: no recorded values' in caplog.text
    assert not (tmp_path / 'parity.md').exists()


def test_the_schedule_is_the_recorded_one_to_the_last_digit(shared_dir):
    rows = schedule_rows(shared_dir / 'goldens')
    assert len(rows) == 6
    assert all(row.passed for row in rows), rows


@pytest.mark.parametrize('title', ['PointPillars in the range of pp', 'PointPillars alone'])
def test_a_teacher_passes_every_comparison(shared_dir, title):
    (golden,) = (golden for golden in TEACHER_GOLDENS if golden.title == title)
    rows = teacher_rows(shared_dir / 'goldens', golden)
    assert {'voxel.coords', 'voxel.num_points', 'vfe.pillar', 'bev', 'bev.backbone'} <= {
        row.name for row in rows
    }
    assert [row for row in rows if not row.passed] == []
