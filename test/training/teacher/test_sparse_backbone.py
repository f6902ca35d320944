"""The sparse backbone: what it is made of, how it folds, and what it does with odd input."""

import sys

import pytest
import torch
from golden_teachers import golden_teacher
from golden_values import golden_frames

from cmkd_ros.official import IGNORED_OFFICIAL_KEYS, rename_table
from cmkd_ros.training.parity.rule import read_table
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.official_names import SPARSE_RULES
from cmkd_ros.training.teacher.sparse_backbone import (
    SparseBackbone,
    SparseConvBn,
    fold,
    folded_shape,
)
from cmkd_ros.training.teacher.spec import load_teacher_spec

spconv = pytest.importorskip('spconv.pytorch', reason='needs spconv')

CELLS_XYZ = (32, 24, 40)
WIDTHS = (4, 6, 8, 10)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    backbone = SparseBackbone(4, WIDTHS, CELLS_XYZ)
    for norm in backbone.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    return backbone.eval()


def random_voxels(scans=2, n=150, seed=0):
    """Features and unordered coordinates of occupied voxels."""
    generator = torch.Generator().manual_seed(seed)
    shape = (scans, CELLS_XYZ[2], CELLS_XYZ[1], CELLS_XYZ[0])
    occupied = torch.rand(shape, generator=generator) < n / (CELLS_XYZ[0] * CELLS_XYZ[1] * 40)
    coords = occupied.nonzero()
    coords = coords[torch.randperm(len(coords), generator=generator)]
    return torch.randn(len(coords), 4, generator=generator), coords


@pytest.mark.parametrize(
    ('name', 'table', 'with_head', 'count'),
    [
        ('second', 'teacher-second.tsv', True, 233),
        ('second_scd', 'teacher-second-stage1-subset.tsv', False, 143),
        ('centerpoint', 'teacher-centerpoint.tsv', True, 237),
        ('centerpoint_ctp', 'teacher-centerpoint-stage1-subset.tsv', False, 143),
    ],
)
def test_every_official_tensor_has_one_place_of_equal_shape(
    shared_dir, name, table, with_head, count
):
    official = read_table(shared_dir / 'docs/statedict' / table)
    with torch.device('meta'):
        teacher = build_teacher(load_teacher_spec(name), with_head)
    ours = {key: tuple(value.shape) for key, value in teacher.state_dict().items()}
    renamed = rename_table(ours, SPARSE_RULES)
    assert len(official) == count
    assert set(renamed) == set(official) - IGNORED_OFFICIAL_KEYS
    assert {key: ours[renamed[key]] for key in renamed} == {key: official[key] for key in renamed}


def test_norms_have_the_official_constants(backbone):
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    assert len(norms) == 1 + 4 * 4 + 3 + 1
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_biases_are_in_the_residual_blocks_only(backbone):
    with_bias = {name for name, _ in backbone.named_parameters() if name.endswith('conv.bias')}
    convs = {name for name, _ in backbone.named_parameters() if name.endswith('conv.weight')}
    residual = {name for name in convs if '.first.' in name or '.second.' in name}
    assert len(residual) == 16
    assert with_bias == {name.replace('weight', 'bias') for name in residual}


def test_layers_are_folded_into_channels_channel_first():
    features = torch.arange(1.0, 7.0).view(2, 3)  # two voxels, three channels
    indices = torch.tensor([[1, 0, 2, 3], [1, 1, 2, 3]], dtype=torch.int32)
    bev = fold(spconv.SparseConvTensor(features, indices, (2, 4, 5), 2))
    assert bev.shape == (2, 6, 4, 5)
    assert bev[1, :, 2, 3].tolist() == [1, 4, 2, 5, 3, 6]  # c * 2 + z
    assert bev.count_nonzero() == 6


def test_a_batch_is_its_scans_one_by_one(backbone):
    features, coords = random_voxels()
    with torch.inference_mode():
        both = backbone(features, coords, 2)
        for scan in range(2):
            rows = coords[:, 0] == scan
            alone = coords[rows] - torch.tensor([scan, 0, 0, 0])
            single = backbone(features[rows], alone, 1)
            torch.testing.assert_close(both[scan], single[0], rtol=1e-5, atol=1e-5)
    assert both.shape == (2, *folded_shape(CELLS_XYZ, WIDTHS[-1])) == (2, 20, 3, 4)
    assert both.count_nonzero() > 0


def test_the_order_of_the_voxels_does_not_matter(backbone):
    features, coords = random_voxels(scans=1)
    order = torch.arange(len(coords) - 1, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(
            backbone(features[order], coords[order], 1), backbone(features, coords, 1)
        )


def test_empty_scans_give_an_empty_map(backbone):
    features, coords = random_voxels(scans=1)
    with torch.inference_mode():
        assert not backbone(features[:0], coords[:0], 2).any()
        bev = backbone(features, coords, 3)
    assert bev.shape == (3, 20, 3, 4)
    assert bev[0].any() and not bev[1:].any()


def test_every_parameter_learns_and_autocast_changes_nothing(backbone):
    features, coords = random_voxels()
    backbone.train()
    bev = backbone(features, coords, 2)
    bev.square().sum().backward()
    idle = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a batch norm cancels out, but for rounding.
    assert [name for name in idle if not name.endswith('conv.bias')] == []
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = backbone(features, coords, 2)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, bev)


def test_without_spconv_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'spconv', None)
    monkeypatch.setitem(sys.modules, 'spconv.pytorch', None)
    with pytest.raises(ImportError, match='need spconv: pip install spconv'):
        SparseConvBn(4, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('name', ['second_scd', 'centerpoint_ctp'])
def test_gpu_and_cpu_agree(shared_dir, name, monkeypatch):
    """spconv's own kernels on the GPU (where built for it) against ours on the CPU, both passes."""
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    teacher = golden_teacher(shared_dir, name, with_head=False)
    range_m = load_teacher_spec(name).grid.range_m
    frames = golden_frames(shared_dir, range_m, ['000001', '000002'], with_image=False)
    scans = [torch.from_numpy(frames[i].points_N4) for i in range(2)]
    results = {}
    for device in ('cpu', 'cuda'):
        teacher.to(device).zero_grad()
        bev = teacher([scan.to(device) for scan in scans]).bev_BCYX
        bev.square().mean().backward()
        results[device] = [bev.detach().cpu(), *(p.grad.cpu() for p in teacher.parameters())]
    for own, reference in zip(results['cuda'], results['cpu'], strict=True):
        error = (own - reference).square().mean().sqrt() / reference.square().mean().sqrt()
        assert error < 1e-3
