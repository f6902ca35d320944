"""`cmkd distill` leaves a report when it ends, and one that fails does no harm."""

import pytest
import yaml
from lightning.pytorch.utilities import rank_zero_only

from cmkd_ros.cli import main
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.report.after_run import report_after_run


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    """One step of the student `tiny` on two frames, taught by labels."""
    root = tmp_path_factory.mktemp('frames') / 'drive'
    generate_drive(root, frames=4, seed=2, width=207, height=63, frames_per_drive=2)
    path = root.parent / 'short.yaml'
    keys = {
        'task': 'distill',
        'name': 'short',
        'stage': 2,
        'student': 'tiny',
        'weights': {'bev': 0.0},
        'labels': {},
        'optimiser': {'steps': 1, 'batch_size': 2},
        'device': 'cpu',
        'data': {'sources': [{'root': str(root), 'frames': 'ImageSets/train.txt'}]},
    }
    path.write_text(yaml.safe_dump(keys))
    return path


@pytest.fixture(scope='module')
def run(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs') / 'run'
    assert main(['distill', str(recipe), '--out', str(out), '--no-report']) == 0
    assert not (out / 'report.html').exists()
    return out


def test_the_report_lies_beside_the_student(run, recipe, capsys):
    assert main(['distill', str(recipe), '--out', str(run), '--resume']) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(run / 'student.cmkd'), str(run / 'report.html')]
    text = (run / 'report.html').read_text()
    assert 'ImageSets/val.txt, which were held out' in text and 'Frame 000002' in text
    (run / 'report.html').unlink()


def test_a_report_that_fails_leaves_the_training_a_success(run, recipe, capsys, caplog):
    (run / 'report.html').mkdir()  # where the report should go
    assert main(['distill', str(recipe), '--out', str(run), '--resume']) == 0
    (run / 'report.html').rmdir()
    assert capsys.readouterr().out.split() == [str(run / 'student.cmkd')]
    (warning,) = [r.message for r in caplog.records if r.levelname == 'WARNING']
    assert 'no report could be drawn: IsADirectoryError' in warning
    assert f'`cmkd report {run}` tries again' in warning


def test_only_the_first_process_draws(run, monkeypatch):
    monkeypatch.setattr(rank_zero_only, 'rank', 1)
    assert report_after_run(run) is None
    assert not (run / 'report.html').exists()
