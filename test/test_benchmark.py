"""The benchmark: what it counts is right, and its numbers fit together."""

import io
import json

import cv2
import pytest
import torch
from exported_students import tiny_spec, tiny_student
from rich.console import Console

from cmkd_ros.benchmark import benchmark, student_to_measure
from cmkd_ros.benchmark_chart import draw_benchmark
from cmkd_ros.benchmark_table import print_benchmark
from cmkd_ros.ceilings import copy_ceiling, gemm_ceiling, peak_growth_mb
from cmkd_ros.checkpoint import Bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.graph_cache import cached_graph, int8_graph
from cmkd_ros.int8_graph import save_int8
from cmkd_ros.model.cuda_choice import for_cuda
from cmkd_ros.stage_work import STAGES


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


def test_a_batch_shares_the_weights():
    """Twice the operations and maps of one image; weights come and go once."""
    one, two = (
        benchmark(tiny_student('anchor'), tiny_spec('anchor'), 'fp32', (160, 64), 1, batch=batch)
        for batch in (1, 2)
    )
    assert (one.batch, two.batch) == (1, 2)
    for single, double in zip(one.stages, two.stages, strict=True):
        assert double.gflop == pytest.approx(2 * single.gflop)
        assert double.needed_gflop == pytest.approx(2 * single.needed_gflop)
    reduction = [next(c for c in r.stages if c.name == 'channel reduction') for r in (one, two)]
    maps = 4e-6 * 4 * 10 * (64 + 8)  # of 64 channels at stride 16, into 8
    assert reduction[1].megabytes - reduction[0].megabytes == pytest.approx(maps)


@pytest.fixture
def bundle(exported, tmp_path, monkeypatch):
    """Bundle of the tiny student with anchors, whose graph lies in the cache."""
    student, graph = exported('anchor')
    monkeypatch.setenv('CMKD_CACHE', str(tmp_path))
    cached_graph(student).write_bytes(graph.read_bytes())
    data = tiny_spec('anchor').model_dump(mode='json')
    return save_bundle(
        tmp_path / 'tiny.cmkd', Bundle('student', data, student.state_dict(), True, 190.0)
    )


@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_an_engine_is_measured_beside_both_forms(bundle, backend, tmp_path, capsys):
    json_file = tmp_path / 'cost.json'
    given = ['--model', str(bundle), '--backend', backend, '--precision', 'fp32']
    rest = ['--size', '320', '96', '--repeats', '2', '--device', 'cpu', '--json', str(json_file)]
    assert main(['benchmark', *given, *rest]) == 0
    data = json.loads(json_file.read_text())
    assert (data['device'], data['batch'], data['precision']) == ('cpu', 1, 'fp32')
    assert [way['name'] for way in data['whole']] == ['reference', 'fast', backend, 'detector']
    reference, fast, engine, _ = data['whole']
    whole = data['stages'][-1]
    assert (whole['reference_ms'], whole['fast_ms']) == (reference['ms'], fast['ms'])
    for way in data['whole']:
        assert way['precision'] == 'fp32'
        assert 0 < way['ms'] <= way['p95_ms']
        assert way['floor_ms'] == whole['floor_ms'] > 0
        assert way['speed_up'] == pytest.approx(reference['ms'] / way['ms'])
        assert way['over_floor'] == pytest.approx(way['ms'] / way['floor_ms'])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (row,) = [row for row in rows if row[1:2] == [backend]]
    assert f'{engine["ms"]:.{1 if engine["ms"] >= 10 else 2}f}' in row


def test_int8_is_measured_without_a_floor(exported, bundle):
    """A graph in fp32 where that in int8 is looked for: made in a moment, run the same way."""
    openvino = pytest.importorskip('openvino', reason='needs openvino (extra: export)')
    student, graph = exported('anchor')
    save_int8(openvino.Core().read_model(str(graph)), int8_graph(student), '')
    model, spec = student_to_measure(bundle, None)
    result = benchmark(model, spec, 'int8', (160, 64), 1, backend='openvino', device='cpu')
    assert [way.precision for way in result.whole] == ['fp32', 'fp32', 'int8', 'int8']
    assert [bool(way.floor_ms) for way in result.whole] == [True, True, False, False]
    assert result.as_dict()['whole'][2]['over_floor'] is None
    text = io.StringIO()
    print_benchmark(result, Console(file=text, width=120))
    (row,) = [line for line in text.getvalue().splitlines() if 'openvino' in line]
    assert not ''.join(row.split('│')[-3:-1]).strip()


def test_the_form_for_gpus_is_measured_in_stages_and_whole(monkeypatch):
    """On a CPU, which runs all of it but the graph."""
    monkeypatch.setattr('cmkd_ros.backend.for_inference', for_cuda)
    result = benchmark(tiny_student('anchor'), tiny_spec('anchor'), 'fp32', (320, 96), 2)
    assert [way.name for way in result.whole] == ['reference', 'fast', 'detector']
    assert all(way.ms > 0 for way in result.whole)
    assert all(cost.fast_ms > 0 for cost in result.stages)


@pytest.mark.parametrize(
    ('given', 'told'),
    [
        (['--backend', 'onnxruntime', '--batch', '2'], 'onnxruntime takes one image at a time'),
        (['--backend', 'onnxruntime', '--device', 'cuda'], 'cuda'),
        (['--device', 'cuda:99'], 'cuda:99'),
        (['--precision', 'int8'], 'precision int8 needs backend openvino'),
        (['--precision', 'int8', '--backend', 'openvino'], 'this model has no int8 graph yet'),
    ],
)
def test_what_an_engine_or_a_device_cannot_do_is_told_in_one_line(bundle, given, told, capsys):
    assert main(['benchmark', '--model', str(bundle), *given]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith('cmkd: ')]
    assert told in line


def test_the_node_has_no_options_of_the_network_alone(capsys):
    assert main(['benchmark', '--node', '--backend', 'openvino', '--batch', '2']) == 2
    assert 'and has no --batch or --backend' in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU, which torch sees none')
def test_a_gpu_is_measured_by_its_own_rates_and_memory():
    device = torch.device('cuda')
    result = benchmark(
        tiny_student('anchor'), tiny_spec('anchor'), 'bf16', (320, 96), 3, device='cuda'
    )
    assert result.device.startswith('cuda')
    assert result.machine['gpu'] == torch.cuda.get_device_name(device)
    assert result.gemm_gflops > 0.5 * gemm_ceiling(torch.bfloat16, device)
    assert result.copy_gb_s > 0.5 * copy_ceiling(device)
    assert result.activation_mb > 0
    assert result.whole[-1].name == 'detector'
    *stages, whole = result.stages
    for form in ('reference_ms', 'fast_ms'):
        assert 0 < sum(getattr(cost, form) for cost in stages) <= 1.05 * getattr(whole, form)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU, which torch sees none')
def test_memory_of_work_on_a_gpu_is_seen():
    device = torch.device('cuda')
    assert 95 < peak_growth_mb(lambda: torch.ones(25_000_000, device=device).sum(), device) < 130


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
    fast_ms = whole['fast_ms']
    assert f'{fast_ms:.{1 if fast_ms >= 10 else 2}f}' in text.getvalue()
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
