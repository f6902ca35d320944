"""Sparse convolution against dense convolution, spconv on one thread, and its own gradients."""

import pytest
import torch
from torch.nn import functional as F

from cmkd_ros.training.teacher.sparse_backbone import convolve
from cmkd_ros.training.teacher.sparse_conv import VoxelPairs, sparse_conv

spconv = pytest.importorskip('spconv.pytorch', reason='needs spconv')

GRID = (7, 9, 8)
KINDS = {  # of the convolutions in the backbone: (kernel, stride, padding, submanifold)
    'keep': ((3, 3, 3), (1, 1, 1), (1, 1, 1), True),
    'halve': ((3, 3, 3), (2, 2, 2), (1, 1, 1), False),
    'halve without padding in z': ((3, 3, 3), (2, 2, 2), (0, 1, 1), False),
    'squash': ((3, 1, 1), (2, 1, 1), (0, 0, 0), False),
}


def make_conv(kind, in_channels=4, out_channels=6, bias=False):
    kernel, stride, padding, keeps = KINDS[kind]
    torch.manual_seed(3)
    conv = (spconv.SubMConv3d if keeps else spconv.SparseConv3d)(
        in_channels, out_channels, kernel, stride, padding, bias=bias, indice_key='level'
    )
    if bias:
        torch.nn.init.normal_(conv.bias)
    return conv


def random_voxels(channels=4, density=0.15, scans=2, seed=1):
    """A sparse tensor with requires_grad, its rows in no order."""
    generator = torch.Generator().manual_seed(seed)
    occupied = torch.rand(scans, *GRID, generator=generator) < density
    indices = occupied.nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    features = torch.randn(len(indices), channels, generator=generator, requires_grad=True)
    return spconv.SparseConvTensor(features, indices, GRID, scans)


def to_dense(voxels):
    """(B, C, Z, Y, X), zero where nothing is active."""
    dense = torch.zeros(voxels.batch_size, *voxels.spatial_shape, voxels.features.shape[1])
    dense = dense.index_put(tuple(voxels.indices.long().T), voxels.features)
    return dense.permute(0, 4, 1, 2, 3)


def dense_conv(conv, dense):
    weight = conv.weight.permute(0, 4, 1, 2, 3)  # (out, kz, ky, kx, in) as torch wants it
    return F.conv3d(dense, weight, conv.bias, conv.stride, conv.padding)


def at_voxels(dense, voxels):
    b, z, y, x = voxels.indices.long().T
    return dense[b, :, z, y, x]


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_values_and_gradients_are_those_of_a_dense_convolution(kind, bias):
    conv, voxels = make_conv(kind, bias=bias), random_voxels()
    result = convolve(conv, voxels)
    expected = dense_conv(conv, to_dense(voxels))
    assert result.spatial_shape == list(expected.shape[2:])
    torch.testing.assert_close(result.features, at_voxels(expected, result), rtol=1e-5, atol=1e-6)

    upstream = torch.randn(result.features.shape, generator=torch.Generator().manual_seed(5))
    learned = (voxels.features, *conv.parameters())
    own = torch.autograd.grad(result.features, learned, upstream)
    wanted = torch.autograd.grad(at_voxels(expected, result), learned, upstream)
    for name, gradient, reference in zip(('x', 'weight', 'bias'), own, wanted, strict=False):
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize('kind', KINDS)
def test_output_is_active_where_the_kernel_touches_a_voxel(kind):
    conv, voxels = make_conv(kind), random_voxels()
    result = convolve(conv, voxels)
    if KINDS[kind][3]:
        assert torch.equal(result.indices, voxels.indices)
        return
    mask = to_dense(voxels.replace_feature(torch.ones(len(voxels.indices), 1)))
    kernel, stride, padding, _ = KINDS[kind]
    touched = F.conv3d(mask, torch.ones(1, 1, *kernel), None, stride, padding)[:, 0] > 0
    assert sorted(result.indices.tolist()) == touched.nonzero().tolist()


@pytest.mark.parametrize('kind', KINDS)
def test_values_are_those_of_spconv_on_one_thread(kind):
    conv, voxels = make_conv(kind, 16, 16), random_voxels(16, density=0.4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            reference = conv.eval()(voxels.replace_feature(voxels.features.detach()))
    finally:
        torch.set_num_threads(threads)
    result = convolve(conv, voxels)
    assert torch.equal(result.indices, reference.indices)
    torch.testing.assert_close(result.features, reference.features, rtol=1e-5, atol=1e-5)


def test_two_threads_give_the_same_every_time():
    """spconv itself loses rows in one call of fifteen here."""
    conv, voxels = make_conv('keep', 16, 16), random_voxels(16, density=0.5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = [convolve(conv, voxels).features for _ in range(100)]
    finally:
        torch.set_num_threads(threads)
    expected = at_voxels(dense_conv(conv, to_dense(voxels)), voxels)
    torch.testing.assert_close(results[0], expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(result, results[0]) for result in results)


def test_gradients_are_the_derivatives():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(2, 1, 3, 1, 3, dtype=torch.float64, generator=generator).requires_grad_()
    pairs = VoxelPairs(
        inputs=(torch.tensor([0, 2, 4]), torch.tensor([], dtype=torch.int64), torch.tensor([4, 1])),
        outputs=(
            torch.tensor([1, 0, 3]),
            torch.tensor([], dtype=torch.int64),
            torch.tensor([3, 1]),
        ),
        n_outputs=4,
    )
    assert torch.autograd.gradcheck(lambda x, w: sparse_conv(x, w, pairs), (features, weight))


def test_layers_of_one_level_share_their_pairs():
    first, second = make_conv('keep'), make_conv('keep', 6, 2)
    voxels = convolve(first, random_voxels())
    pairs = voxels.indice_dict['level']
    assert convolve(second, voxels).indice_dict['level'] is pairs


def test_what_does_not_fit_is_refused():
    pairs = VoxelPairs((torch.tensor([0]),) * 27, (torch.tensor([0]),) * 27, 1)
    with pytest.raises(ValueError, match=r'weight \(6, 3, 3, 3, 4\).*features \(1, 5\)'):
        sparse_conv(torch.zeros(1, 5), torch.zeros(6, 3, 3, 3, 4), pairs)
    with pytest.raises(ValueError, match=r'weight \(6, 3, 1, 1, 4\).*27 kernel cells'):
        sparse_conv(torch.zeros(1, 4), torch.zeros(6, 3, 1, 1, 4), pairs)
