"""The benchmark: what it counts is right, and its numbers fit together."""

import io
import json

import cv2
import pytest
import torch
from rich.console import Console

from cmkd_ros.benchmark import STAGES, benchmark, student_to_measure
from cmkd_ros.benchmark_chart import draw_benchmark
from cmkd_ros.benchmark_table import print_benchmark
from cmkd_ros.ceilings import peak_growth_mb
from cmkd_ros.cli import main


@pytest.fixture(scope='module')
def result():
    student, spec = student_to_measure(None, 'r18')
    return benchmark(student, spec, 'fp32', (416, 128), repeats=2)


def test_every_stage_is_there_once(result):
    assert [cost.name for cost in result.stages] == [*STAGES.values(), 'boxes', 'whole']
    assert result.precision == 'fp32'


def test_stages_add_up_to_the_whole(result):
    *stages, whole = result.stages
    assert sum(cost.gflop for cost in stages) == pytest.approx(whole.gflop)
    assert sum(cost.floor_ms for cost in stages) == pytest.approx(whole.floor_ms)
    for form in ('reference_ms', 'fast_ms'):
        total = sum(getattr(cost, form) for cost in stages)
        assert 0.5 * total < getattr(whole, form) < 2 * total


def test_operations_are_those_of_the_layers(result):
    """The channel reduction: 256 x 64 products for each of 8 x 26 pixels at stride 16."""
    reduction = next(cost for cost in result.stages if cost.name == 'channel reduction')
    assert reduction.gflop == pytest.approx(2 * 256 * 64 * 8 * 26 / 1e9)
    assert reduction.megabytes == pytest.approx(
        4e-6 * (256 * 64 + 2 * 64 + 8 * 26 * (256 + 64)), rel=1e-6
    )
    assert all(cost.needed_gflop <= 1.001 * cost.gflop for cost in result.stages)


def test_the_chart_is_a_picture(result, tmp_path):
    height, width, _ = cv2.imread(str(draw_benchmark(result, tmp_path / 'chart.png'))).shape
    assert width > height > 200


def test_memory_of_work_is_seen():
    grown = peak_growth_mb(lambda: torch.ones(25_000_000).sum())
    assert grown is None or 95 < grown < 130


def test_the_table_and_the_file_hold_the_same(result):
    text = io.StringIO()
    print_benchmark(result, Console(file=text, width=120))
    data = result.as_dict()
    whole = data['stages'][-1]
    assert f'{whole["fast_ms"]:.1f}' in text.getvalue()
    assert whole['speed_up'] == pytest.approx(whole['reference_ms'] / whole['fast_ms'])
    assert json.loads(json.dumps(data))['size_wh'] == [416, 128]


def test_wrong_input_is_told_in_one_line(capsys):
    assert main(['benchmark', '--student', 'r19']) == 2
    assert "no student named 'r19'; known:" in capsys.readouterr().err
    assert main(['benchmark', '--student', 'r18', '--repeats', '0']) == 2
    assert 'repeats = 0: must be at least 1' in capsys.readouterr().err
    assert main(['benchmark', '--student', 'r18', '--precision', 'fp16']) == 2
    assert 'fp16 needs a CUDA device' in capsys.readouterr().err


@pytest.mark.parametrize(
    'wrong', [['benchmark', '--size', '0', '96'], ['export', '--model', 'm', '--frames', '-1']]
)
def test_sizes_and_numbers_below_one_are_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert "expected 1 or more, found '" in capsys.readouterr().err
