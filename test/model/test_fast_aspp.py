"""Products over image rows against dilated convolutions."""

import pytest
import torch

from cmkd_ros.model.conv_bn import ConvBnRelu
from cmkd_ros.model.fast_aspp import RowClippedConv


@pytest.mark.parametrize('rate', [12, 24, 36])
@pytest.mark.parametrize('hw', [(47, 30), (30, 50), (13, 80), (5, 7), (1, 1), (24, 36)], ids=str)
def test_maps_of_any_size_even_smaller_than_the_rate(hw, rate):
    torch.manual_seed(0)
    plain = ConvBnRelu(16, 8, 3, dilation=rate).eval()
    plain.bn.running_mean.uniform_(-0.2, 0.2)
    plain.bn.running_var.uniform_(0.3, 1)
    plain.bn.bias.data.uniform_(-0.2, 0.2)
    maps = torch.randn(2, 16, *hw)
    with torch.inference_mode():
        expected = plain(maps)
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            found = RowClippedConv(plain.conv, plain.bn, dtype)(maps)
            assert found.dtype == dtype
            assert found.shape == expected.shape
            assert (found.float() - expected).norm() < limit * expected.norm()
