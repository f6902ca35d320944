"""Which precision runs where: flags of the CPU, the check on one frame, what is told."""

import logging
import math

import pytest
import torch

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.model.fast_conv import FoldedConv
from cmkd_ros.model.precision import (
    BF16_LIMIT,
    check_precision,
    for_inference,
    head_deviation,
)
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def student():
    torch.manual_seed(0)
    return build_student(load_spec('r18')).eval()


def type_of(network):
    return next(m.weight.dtype for m in network.modules() if isinstance(m, FoldedConv))


@pytest.mark.parametrize('precision', ['auto', 'bf16'])
def test_bf16_runs_where_the_cpu_has_it_and_the_frame_agrees(student, precision):
    network, chosen = for_inference(student, CPU, precision, bf16_cpu=True)
    assert (chosen, type_of(network)) == ('bf16', torch.bfloat16)
    assert 0 < head_deviation(network, student) <= BF16_LIMIT


@pytest.mark.parametrize('precision', ['auto', 'bf16'])
def test_a_cpu_without_bf16_computes_in_fp32_and_says_why(student, precision, caplog):
    with caplog.at_level(logging.INFO, logger='cmkd.model'):
        network, chosen = for_inference(student, CPU, precision, bf16_cpu=False)
    assert (chosen, type_of(network)) == ('fp32', torch.float32)
    (line,) = [r.getMessage() for r in caplog.records if 'precision' in r.getMessage()]
    assert line.startswith(f'precision {precision}: computing in fp32, because this CPU')


def test_a_network_that_bf16_changes_too_much_stays_in_fp32(caplog):
    """Two large numbers whose difference is what counts: bf16 has lost it."""
    torch.manual_seed(0)
    student = build_student(load_spec('r18')).eval()
    with torch.no_grad():
        norm = student.bev_backbone.ups[0].bn
        norm.bias.fill_(300.0)  # all channels: 300 and a little
        student.head.direction.weight[:, 0::2] = 1.0
        student.head.direction.weight[:, 1::2] = -1.0
        student.head.direction.bias.zero_()
        student.bev_backbone.ups[1].bn.bias.fill_(300.0)
    with caplog.at_level(logging.INFO, logger='cmkd.model'):
        network, chosen = for_inference(student, CPU, 'auto', bf16_cpu=True)
    assert (chosen, type_of(network)) == ('fp32', torch.float32)
    assert 'because bf16 changes a head map by' in caplog.text
    assert head_deviation(network, student) < 1e-3


def test_broken_weights_do_not_pass_for_equal(student):
    broken = build_student(load_spec('r18')).eval()
    with torch.no_grad():
        broken.head.box.weight[0] = torch.nan
    assert head_deviation(broken, student) == math.inf


def test_what_no_machine_does_is_refused():
    with pytest.raises(ValueError, match="precision 'int4': expected one of auto, fp32"):
        check_precision('int4', CPU)
    with pytest.raises(ValueError, match='fp16 needs a CUDA device'):
        check_precision('fp16', CPU)


def test_a_trained_model_may_run_in_bf16(project_root):
    """Its boxes where there is nothing are arbitrary and move by more than the limit."""
    student = load_bundle(project_root / 'config' / 'models' / 'demo.cmkd').build()
    network, chosen = for_inference(student, CPU, 'bf16', bf16_cpu=True)
    assert (chosen, type_of(network)) == ('bf16', torch.bfloat16)
