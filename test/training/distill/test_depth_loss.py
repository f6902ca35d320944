"""Depth loss: targets to the bit, the focal loss against its formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.geometry.depth_bins import bin_edges
from cmkd_ros.training.distill.depth_loss import depth_loss, depth_target

BINS = ('LID', 120, 2.0, 46.8)


@pytest.mark.parametrize('record', ['pp_R50_bev', 'scd_R50_bev', 'ctp_R50_bev'])
def test_targets_are_the_official_ones(shared_dir, record):
    golden = np.load(shared_dir / f'goldens/loss_{record}_bn_eval.npz')
    depth = torch.from_numpy(golden['depth_maps_ds8'])
    assert depth.isnan().any() and (depth == 0).any()
    assert np.array_equal(depth_target(depth, *BINS).numpy(), golden['depth_target'])


@settings(deadline=None)
@given(bin_=st.integers(0, 119), inside=st.floats(0.01, 0.99))
def test_a_depth_belongs_to_the_bin_that_covers_it(bin_, inside):
    edges = bin_edges(*BINS)
    depth = edges[bin_] + inside * (edges[bin_ + 1] - edges[bin_])
    assert depth_target(torch.tensor([depth]), *BINS).item() == bin_


def test_what_is_unknown_or_beyond_is_the_last_class():
    depth = torch.tensor([0.0, 1.9, -3.0, 46.9, 500.0, math.nan, math.inf])
    assert depth_target(depth, *BINS).tolist() == [120] * 7
    assert depth_target(torch.tensor([2.0, 46.79]), *BINS).tolist() == [0, 119]


def test_loss_equals_its_formula():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 121, 3, 4, generator=generator) * 3
    depth = torch.rand(2, 3, 4, generator=generator) * 60
    depth[0, 0, 0], depth[1, 2, 3] = 0.0, math.nan
    target = depth_target(depth, *BINS)
    total = 0.0
    for b, y, x in np.ndindex(2, 3, 4):
        own = logits[b, :, y, x].double().numpy()
        p = np.exp(own - own.max())
        p /= p.sum()
        focal = -0.25 * (1 - p) ** 2 * np.log(p)
        total += focal[target[b, y, x]] + 1e-6 * focal.sum()
    loss = depth_loss(logits, depth, 'LID', 2.0, 46.8, weight=0.5)
    assert loss.depth.item() == pytest.approx(0.5 * total / 24, rel=1e-5)


def test_it_teaches_padded_pixels_too_and_stays_finite():
    logits = (torch.randn(1, 121, 2, 2, generator=torch.Generator().manual_seed(2)) * 300).detach()
    logits.requires_grad_()
    depth = torch.tensor([[[10.0, math.nan], [0.0, 46.9]]])
    depth_loss(logits, depth, 'LID', 2.0, 46.8).total.backward()
    assert logits.grad.isfinite().all()
    calm = torch.zeros(1, 121, 2, 2, requires_grad=True)
    depth_loss(calm, depth, 'LID', 2.0, 46.8).total.backward()
    assert (calm.grad[0, 120] < 0).tolist() == [[False, True], [True, True]]
    assert calm.grad[0, :, 0, 0].argmin() == depth_target(depth, *BINS)[0, 0, 0]


def test_a_target_at_another_stride_is_refused():
    with pytest.raises(ValueError, match=r'target is \(1, 4, 4\).*logits are \(1, 2, 2\)'):
        depth_loss(torch.zeros(1, 121, 2, 2), torch.zeros(1, 4, 4), 'LID', 2.0, 46.8)
