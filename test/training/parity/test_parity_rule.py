"""The rule behind the golden values makes the weights that the goldens were recorded with."""

import json

import numpy as np
import pytest

from cmkd_ros.training.parity.rule import make_checkpoint, read_table

TABLES = {
    'scd_R50_V2': 'student-scd_pp-stage2.tsv',
    'ctp_R50_V2': 'student-ctp-stage2.tsv',
    'second_teacher': 'teacher-second.tsv',
    'pointpillar_teacher': 'teacher-pointpillar.tsv',
    'centerpoint_teacher': 'teacher-centerpoint.tsv',
}


@pytest.mark.parametrize('model', TABLES)
def test_the_rule_gives_the_recorded_weights(shared_dir, model):
    recorded = json.loads((shared_dir / 'goldens/rule_check.json').read_text())[model]
    checkpoint = make_checkpoint(read_table(shared_dir / 'docs/statedict' / TABLES[model]))

    assert len(checkpoint) == recorded['n_keys']
    for key, values in recorded['examples'].items():
        first = checkpoint[key].flatten()[: len(values)].numpy()
        assert np.array_equal(first, np.float32(values)), key
    magnitude = sum(float(tensor.double().abs().sum()) for tensor in checkpoint.values())
    assert magnitude == pytest.approx(recorded['sum_abs_all'], rel=1e-9)
