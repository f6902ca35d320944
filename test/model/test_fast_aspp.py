"""Pyramid pooling by matrix products against its dilated convolutions."""

import pytest
import torch
from torch import nn

from cmkd_ros.model.depth_net import Aspp
from cmkd_ros.model.fast_aspp import FastAspp


@pytest.mark.parametrize(
    'hw',
    [(47, 30), (30, 50), (13, 80), (5, 7), (1, 1), (24, 36)],
    ids=lambda hw: f'{hw[0]}x{hw[1]}',
)
def test_maps_of_any_size_even_smaller_than_the_rates(hw):
    torch.manual_seed(0)
    plain = Aspp(16, 8).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.3, 1)
            module.bias.data.uniform_(-0.2, 0.2)
    deep = torch.randn(2, 16, *hw)
    with torch.inference_mode():
        expected = plain(deep)
        for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
            found = FastAspp(plain, dtype)(deep)
            assert found.dtype == dtype
            assert found.shape == expected.shape
            assert (found.float() - expected).norm() < limit * expected.norm()
