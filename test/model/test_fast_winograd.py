"""Convolutions by minimal filtering against direct ones in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_layers import fill
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.fast_conv import packing_works
from cmkd_ros.model.fast_winograd import WinogradConv, winograd_pays
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student

ROUNDING = 1e-5  # of the largest value, as of the other fast convolutions


def make_layers(channels, out_channels, dilation, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(channels, out_channels, 3, padding=dilation, dilation=dilation)
    norm = nn.BatchNorm2d(out_channels, eps=1e-3).eval()
    fill(conv, norm, generator)
    return conv, norm


def deviation(channels, out_channels, hw, dilation=1, batch=1, relu=True, residual=False, seed=0):
    """Largest, relative to the largest value; the input must survive."""
    conv, norm = make_layers(channels, out_channels, dilation, seed)
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, channels, *hw, generator=generator)
    other = torch.randn(batch, out_channels, *hw, generator=generator) if residual else None
    into = None if other is None else other.clone(memory_format=torch.channels_last)
    kept = maps.clone()
    with torch.inference_mode():
        found = WinogradConv(conv, norm, relu, torch.float32)(maps, into)
        expected = norm.double()(conv.double()(maps.double()))
        expected = expected if other is None else expected + other.double()
        largest = expected.abs().max()  # before the ReLU, which may leave nothing
        expected = F.relu(expected) if relu else expected
    assert torch.equal(maps, kept)
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    return ((found - expected).abs().max() / largest).item()


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 6),
    out_channels=st.integers(1, 6),
    hw=st.tuples(st.integers(1, 21), st.integers(1, 21)),
    dilation=st.integers(1, 4),
    batch=st.integers(1, 3),
    relu=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_maps_of_any_size(channels, out_channels, hw, dilation, batch, relu, residual, seed):
    assert deviation(channels, out_channels, hw, dilation, batch, relu, residual, seed) < ROUNDING


@pytest.mark.parametrize('channels', [256, 257, 600])
def test_channels_that_are_taken_in_parts(channels):
    assert deviation(channels, 8, (13, 18), dilation=2) < ROUNDING


@pytest.mark.parametrize(
    ('change', 'pays'),
    [
        ({}, True),
        ({'dilation': 4, 'padding': 4}, True),
        ({'in_channels': 128}, False),
        ({'out_channels': 128}, False),
        ({'kernel_size': 1, 'padding': 0}, False),
        ({'stride': 2}, False),
        ({'padding': 0}, False),
        ({'dilation': 12, 'padding': 12}, False),
        ({'groups': 2}, False),
    ],
    ids=str,
)
def test_which_convolutions_it_is_for(change, pays):
    usual = {'in_channels': 256, 'out_channels': 256, 'kernel_size': 3, 'padding': 1}
    with torch.device('meta'):
        assert winograd_pays(nn.Conv2d(**(usual | change))) == pays


def test_students_take_it_in_fp32_only():
    if not packing_works(torch.float32):
        pytest.skip('no packed convolutions here')
    student = build_student(load_spec('r18')).eval()

    def convolutions(*how, **options):
        fast = fast_form(student, *how, **options)
        return sum(isinstance(module, WinogradConv) for module in fast.modules())

    assert convolutions() > 0
    assert convolutions('bf16') == 0
    assert convolutions(packed=False) == 0
