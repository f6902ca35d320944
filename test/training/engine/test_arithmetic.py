"""What `optimiser.precision` means on machines with and without instructions for bf16."""

from __future__ import annotations

import logging

import pytest

from cmkd_ros.training.engine.arithmetic import training_precision


@pytest.fixture
def cpuinfo(tmp_path):
    def write(flags: str):
        path = tmp_path / 'cpuinfo'
        path.write_text(f'flags\t\t: fpu avx2 {flags}\n')
        return path

    return write


@pytest.mark.parametrize(('flags', 'expected'), [('avx512_bf16', 'bf16'), ('', 'fp32')])
def test_auto_takes_what_the_cpu_multiplies(cpuinfo, flags, expected):
    assert training_precision('auto', False, cpuinfo(flags)) == expected


def test_bf16_without_instructions_is_done_but_not_in_silence(cpuinfo, caplog):
    with caplog.at_level(logging.WARNING, logger='cmkd.train'):
        assert training_precision('bf16', False, cpuinfo('')) == 'bf16'
    assert 'optimiser.precision=auto' in caplog.text


@pytest.mark.parametrize('flags', ['avx512_bf16', ''])
def test_what_is_plain_is_not_told(cpuinfo, caplog, flags):
    with caplog.at_level(logging.INFO, logger='cmkd.train'):
        assert training_precision('fp32', False, cpuinfo(flags)) == 'fp32'
    assert not caplog.records
