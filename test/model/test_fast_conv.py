"""Folded and packed convolutions against convolution, batch norm, addition and ReLU in a row."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_layers import fill
from torch import nn
from torch.nn import functional as F

from cmkd_ros.model.fast_conv import FoldedConv, PackedConv, fold_batch_norm, packing_works


def make_layers(kernel, stride, dilation, bias, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(
        6, 10, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation, bias=bias
    )
    norm = nn.BatchNorm2d(10, eps=1e-3).eval()
    fill(conv, norm, generator)
    return conv, norm


def assert_equal_up_to_rounding(found, expected):
    """Sums of hundreds of products round by their own size, not by that of what remains."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.sampled_from([1, 3, 7]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 4),
    bias=st.booleans(),
    relu=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_one_operator_equals_four(kernel, stride, dilation, bias, relu, residual, seed):
    conv, norm = make_layers(kernel, stride, dilation, bias, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        maps = torch.randn(2, 6, 13, 17, generator=generator)
        expected = norm(conv(maps))
        other = None
        if residual:
            other = torch.randn(expected.shape, generator=generator)
            expected = expected + other
        expected = F.relu(expected) if relu else expected
        kinds = [FoldedConv] + [PackedConv] * packing_works(torch.float32)
        for kind in kinds:
            given = None if other is None else other.contiguous(memory_format=torch.channels_last)
            found = kind(conv, norm, relu, torch.float32)(maps, given)
            assert_equal_up_to_rounding(found, expected)


def test_a_packed_convolution_follows_the_size_of_its_maps():
    conv, norm = make_layers(3, 1, 2, True, 0)
    packed = (PackedConv if packing_works(torch.float32) else FoldedConv)(
        conv, norm, False, torch.float32
    )
    with torch.inference_mode():
        for size in ((9, 31), (20, 5), (9, 31)):
            maps = torch.randn(1, 6, *size)
            assert_equal_up_to_rounding(packed(maps), norm(conv(maps)))


def test_where_packing_fails_one_line_says_so(caplog):
    """oneDNN has no convolutions in float64."""
    packing_works.cache_clear()
    with caplog.at_level(logging.INFO, logger='cmkd.model'):
        assert not packing_works(torch.float64)
        assert not packing_works(torch.float64)
    assert len(caplog.records) == 1
    assert 'plain ones run' in caplog.text
    assert '\n' not in caplog.records[0].getMessage()


def test_a_norm_without_statistics_cannot_be_folded():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(ValueError, match='without running statistics'):
        fold_batch_norm(torch.zeros(3, 2, 1, 1), None, norm)
