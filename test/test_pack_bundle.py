"""Bundles made ready for others: `cmkd pack`."""

import json

import pytest
import torch

from cmkd_ros.checkpoint import Bundle, load_bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.pack_bundle import pack_bundle

REPORT = {
    'frames': 3,
    'n_gt': {'Car': [1, 2, 3]},
    'ap': {'strict': {'Car': {'3d': {'R40': [10.0, 20.0, 30.0], 'R11': [1.0, 2.0, 3.0]}}}},
}


@pytest.fixture
def model(tmp_path):
    recipe = {'teacher': '/home/me/t.cmkd', 'data': {'sources': [{'root': '/data/drives'}]}}
    tensors = {'weight': torch.randn(100, 100), 'count': torch.tensor(7)}
    provenance = {
        'recipe': recipe,
        'date': 'now',
        'data': {'teacher': {'frames': '/base64=='}},
        'teacher': {'recipe': recipe},
    }
    bundle = Bundle('teacher', {'name': 'x'}, tensors, provenance=provenance)
    return save_bundle(tmp_path / 'model.cmkd', bundle)


def test_packed_bundle_is_half_as_large_and_tells_how_good_it_is(tmp_path, model, capsys):
    report = tmp_path / 'ap.json'
    report.write_text(json.dumps(REPORT))
    out = tmp_path / 'packed.cmkd'

    assert main(['pack', str(model), '--out', str(out), '--ap', f'unseen={report}']) == 0

    packed, original = load_bundle(out), load_bundle(model)
    assert out.stat().st_size < 0.6 * model.stat().st_size
    found, expected = packed.tensors['weight'], original.tensors['weight']
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)  # float16 ends at 6e-8
    assert packed.provenance['evaluation']['unseen']['ap_3d_r40'] == {
        'strict': {'Car': [10.0, 20.0, 30.0]}
    }
    clean = {'teacher': 't.cmkd', 'data': {'sources': [{'root': 'drives'}]}}
    assert packed.provenance['recipe'] == packed.provenance['teacher']['recipe'] == clean
    assert packed.provenance['data'] == {'teacher': {'frames': '/base64=='}}
    assert packed.provenance['date'] == 'now'


def test_packing_never_overwrites(tmp_path, model):
    with pytest.raises(FileExistsError, match='exists'):
        pack_bundle(model, model, {})


@pytest.mark.parametrize('text', ['{"ap": 3}', 'no json'])
def test_something_else_for_a_report(tmp_path, model, text):
    report = tmp_path / 'ap.json'
    report.write_text(text)

    with pytest.raises(ValueError, match='expected a report of'):
        pack_bundle(model, tmp_path / 'new.cmkd', {'unseen': report})

    assert not (tmp_path / 'new.cmkd').exists()


def test_a_nameless_report_is_refused(tmp_path, model, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['pack', str(model), '--out', str(tmp_path / 'new.cmkd'), '--ap', 'ap.json'])

    assert 'expected NAME=FILE' in capsys.readouterr().err
