"""The pillar encoder against the padded network that it stands for."""

import pytest
import torch
from torch import nn

from cmkd_ros.training.teacher.pillars import PillarEncoder
from cmkd_ros.training.teacher.voxelize import voxelize_batch

RANGE_M = (0.0, -2.0, -3.0, 4.0, 2.0, 1.0)
VOXEL_M = (0.5, 0.5, 4.0)
CELLS_XYZ = (8, 8, 1)
SLOTS = 6


def padded_features(encoder: PillarEncoder, norm: nn.BatchNorm1d, voxels) -> torch.Tensor:
    """Every slot computed, empty ones too, as the published code does."""
    points = voxels.padded_VP4(SLOTS)
    filled = torch.arange(SLOTS) < voxels.counts_V[:, None]
    mean = points[..., :3].sum(1, keepdim=True) / voxels.counts_V[:, None, None]
    cell = voxels.coords_bzyx_V4[:, [3, 2, 1]] + 0.5
    center = (cell * torch.tensor(VOXEL_M) + torch.tensor(RANGE_M[:3]))[:, None]
    features = torch.cat([points, points[..., :3] - mean, points[..., :3] - center], dim=2)
    values = encoder.linear(features * filled[..., None])
    values = norm(values.transpose(1, 2)).transpose(1, 2)
    return values.relu().amax(1)


@pytest.fixture
def voxels():
    generator = torch.Generator().manual_seed(1)
    low, span = torch.tensor([0.0, -2, -3, 0]), torch.tensor([4.0, 4, 4, 1])
    scans = [torch.rand(n, 4, generator=generator) * span + low for n in (150, 0, 300)]
    voxels = voxelize_batch(scans, RANGE_M, VOXEL_M, CELLS_XYZ, SLOTS, 100)
    assert (voxels.counts_V == SLOTS).any() and (voxels.counts_V < SLOTS).any()
    return voxels


@pytest.fixture
def pair():
    """An encoder with uneven weights, and the official norm with the same."""
    torch.manual_seed(2)
    encoder = PillarEncoder(16, RANGE_M, VOXEL_M, CELLS_XYZ, SLOTS)
    norm = nn.BatchNorm1d(16, eps=1e-3, momentum=0.01)
    with torch.no_grad():
        for name in ('weight', 'bias', 'running_mean'):
            getattr(encoder.norm, name).normal_()
        encoder.norm.running_var.uniform_(0.5, 2)
    norm.load_state_dict(encoder.norm.state_dict())
    return encoder, norm


@pytest.mark.parametrize('train', [False, True])
def test_equals_the_padded_network(pair, voxels, train):
    encoder, norm = (module.train(train) for module in pair)
    found = encoder.pillar_features(voxels)
    expected = padded_features(encoder, norm, voxels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(encoder.norm.get_buffer(name), buffer, rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_the_padded_network(pair, voxels):
    encoder, norm = (module.train() for module in pair)
    push = torch.randn(len(voxels.counts_V), 16, generator=torch.Generator().manual_seed(3))
    (encoder.pillar_features(voxels) * push).sum().backward()
    found = [p.grad.clone() for p in (encoder.linear.weight, *encoder.norm.parameters())]
    encoder.zero_grad()
    (padded_features(encoder, norm, voxels) * push).sum().backward()
    expected = [encoder.linear.weight.grad, *(p.grad for p in norm.parameters())]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_features_lie_at_their_cells(pair, voxels):
    encoder = pair[0].eval()
    features = encoder.pillar_features(voxels)
    canvas = encoder(voxels, n_scans=3)
    assert canvas.shape == (3, 16, 8, 8)
    for (b, _, y, x), feature in zip(voxels.coords_bzyx_V4.tolist(), features, strict=True):
        assert torch.equal(canvas[b, :, y, x], feature)
    taken = torch.zeros(3, 8, 8, dtype=torch.bool)
    b, _, y, x = voxels.coords_bzyx_V4.unbind(1)
    taken[b, y, x] = True
    assert not canvas.permute(0, 2, 3, 1)[~taken].any()
    assert not canvas[1].any()  # the scan without points
