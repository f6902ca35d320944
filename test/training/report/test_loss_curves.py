"""Curves of a run that was cut off and resumed."""

import numpy as np

from cmkd_ros.training.report.loss_curves import read_curves


def test_parts_are_joined_and_repeated_steps_count_once(tmp_path):
    folder = tmp_path / 'logs' / 'csv'
    folder.mkdir(parents=True)
    (folder / 'metrics_1.csv').write_text('epoch,loss,loss/bev,step\n0,3.0,2.0,0\n0,2.5,1.5,1\n')
    (folder / 'metrics.csv').write_text('epoch,loss,loss/bev,step\n0,2.4,1.4,1\n0,2.0,,2\n')
    curves = read_curves(tmp_path)
    assert set(curves) == {'loss', 'bev'}
    np.testing.assert_array_equal(curves['loss'], ([0, 1, 2], [3.0, 2.4, 2.0]))
    np.testing.assert_array_equal(curves['bev'], ([0, 1], [2.0, 1.4]))
    assert read_curves(tmp_path / 'nothing') == {}
