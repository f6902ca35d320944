"""From an official checkpoint to boxes on a real picture, by two commands."""

import json

import numpy as np
import pytest
import torch
from official_files import write_official

from cmkd_ros.cli import main
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import rename_table
from cmkd_ros.training.parity.rule import make_checkpoint

CLASSES = ('Car', 'Pedestrian', 'Cyclist')

pytestmark = pytest.mark.slow  # a ResNet-50 and 180 MB of weights


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    """A checkpoint recreated from the rule, saved as the official trainer does, imported."""
    folder = tmp_path_factory.mktemp('official')
    with torch.device('meta'):
        own = build_student(load_spec('scd_r50')).state_dict()
    shapes = {key: tuple(own[ours].shape) for key, ours in rename_table(own).items()}
    state = make_checkpoint({'global_step': (1,), **shapes})
    path = write_official(folder / 'checkpoint_epoch_20.pth', state)
    out = folder / 'scd.cmkd'
    assert main(['import-official', str(path), '--config', 'scd_r50', '--out', str(out)]) == 0
    path.unlink()
    return out


def test_an_imported_checkpoint_detects_the_recorded_boxes(shared_dir, bundle, tmp_path):
    golden = np.load(shared_dir / 'goldens/student_scd_R50_V2_000002.npz')
    frames = shared_dir / 'goldens/frames'
    boxes_file = tmp_path / 'boxes.json'
    arguments = [
        'detect', '--model', bundle, '--image', frames / 'image_2/000002.png',
        '--calib', frames / 'calib/000002.txt', '--json', boxes_file, '--device', 'cpu',
    ]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0

    found = json.loads(boxes_file.read_text())
    expected = golden['final.0.boxes']
    assert len(found) == len(expected) == 164
    gap = np.array([row['box'] for row in found])[None] - expected[:, None]
    gap[..., 6] = (gap[..., 6] + np.pi) % (2 * np.pi) - np.pi
    nearest = np.abs(gap).max(axis=-1).argmin(axis=1)
    assert sorted(nearest) == list(range(len(found)))
    assert np.abs(gap[np.arange(len(expected)), nearest]).max() < 1e-3
    scores = np.array([row['score'] for row in found])[nearest]
    assert np.abs(scores - golden['final.0.scores']).max() < 1e-4
    names = [found[i]['class'] for i in nearest]
    assert names == [CLASSES[label - 1] for label in golden['final.0.labels']]
