"""Sizes and refusals of the networks over the BEV map; their numbers: test_goldens.py."""

import pytest
import torch

from cmkd_ros.model.bev import BevBackbone, SelfCalibratedBlock


def test_blocks_are_joined_at_one_size():
    backbone = BevBackbone(4, [1, 2], [1, 2], [6, 8], [1, 2], [5, 7]).eval()

    assert backbone(torch.randn(2, 4, 12, 10)).shape == (2, 12, 12, 10)
    assert backbone.out_channels == 12
    assert backbone.out_scale == 1.0


def test_upsampling_may_enlarge_the_map():
    backbone = BevBackbone(4, [1], [1], [6], [2], [5]).eval()

    assert backbone(torch.randn(1, 4, 6, 5)).shape == (1, 5, 12, 10)
    assert backbone.out_scale == 2.0


def test_blocks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r'end at different sizes: \[0.5, 1.0\]'):
        BevBackbone(4, [1, 1], [1, 2], [6, 6], [1, 1], [5, 5])


@pytest.mark.parametrize('size', [(4, 4), (9, 7), (94, 70)])
def test_adaptation_keeps_the_size(size):
    bev = torch.randn(2, 6, *size)

    assert SelfCalibratedBlock(6).eval()(bev).shape == bev.shape
