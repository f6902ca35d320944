"""The factorised lift against the frustum volume that it avoids.

The oracle builds the volume feature x depth probability and samples it with torch's trilinear
`grid_sample`, as the official code does (cmkd-spec C1, C2).
"""

import math

import pytest
import torch
from torch.nn import functional as F

from cmkd_ros.model.bev import Collapse
from cmkd_ros.model.lift import Lift

RANGE_M = (1.0, -4.0, -1.5, 11.0, 4.0, 1.0)
CELLS_XYZ = (9, 7, 3)
DEPTH_BINS = ('LID', 6, 1.5, 9.0)
CANVAS_HW = (60, 100)
FEATURE_HW = (8, 13)
CHANNELS = 5


def make_camera(generator, inside=False):
    """A camera near the origin of ref, turned a little; `inside`: in the middle of the grid."""
    focal = 40 + 30 * torch.rand((), generator=generator, dtype=torch.float64)
    cam_to_img = torch.zeros(3, 4, dtype=torch.float64)
    cam_to_img[0, 0] = cam_to_img[1, 1] = focal
    cam_to_img[0, 2], cam_to_img[1, 2], cam_to_img[2, 2] = 52.0, 27.0, 1.0
    cam_to_img[:, 3] = torch.tensor([4.5, 0.2, 0.003])
    axes = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=torch.float64)
    turn = 0.2 * torch.randn(3, generator=generator, dtype=torch.float64)
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 1], skew[0, 2], skew[1, 2] = -turn[2], turn[1], -turn[0]
    ref_to_cam = torch.eye(4, dtype=torch.float64)
    ref_to_cam[:3, :3] = torch.linalg.matrix_exp(skew - skew.T) @ axes
    position = torch.tensor([5.0 if inside else -0.3, 0.2, 0.1], dtype=torch.float64)
    ref_to_cam[:3, 3] = -ref_to_cam[:3, :3] @ position
    return cam_to_img, ref_to_cam


def make_inputs(seed, inside=False, channels=CHANNELS, feature_hw=FEATURE_HW, batch=2):
    generator = torch.Generator().manual_seed(seed)
    cameras = [make_camera(generator, inside) for _ in range(batch)]
    shape = {'generator': generator, 'dtype': torch.float64}
    features = torch.randn(batch, channels, *feature_hw, **shape)
    logits = 3 * torch.randn(batch, DEPTH_BINS[1] + 1, *feature_hw, **shape)
    return (
        features.requires_grad_(),
        logits.requires_grad_(),
        torch.stack([camera[0] for camera in cameras]),
        torch.stack([camera[1] for camera in cameras]),
    )


def official_grid(cam_to_img, ref_to_cam):
    """Normalised (Z, Y, X, 3) sampling grid, voxel by voxel."""
    _, n_bins, near, far = DEPTH_BINS
    size = 2 * (far - near) / (n_bins * (n_bins + 1))
    n_x, n_y, n_z = CELLS_XYZ
    grid = torch.empty(n_z, n_y, n_x, 3, dtype=torch.float64)
    for k in range(n_z):
        for j in range(n_y):
            for i in range(n_x):
                center = [
                    RANGE_M[a] + (index + 0.5) * (RANGE_M[a + 3] - RANGE_M[a]) / CELLS_XYZ[a]
                    for a, index in enumerate((i, j, k))
                ]
                in_cam = ref_to_cam @ torch.tensor([*center, 1.0], dtype=torch.float64)
                a, b, c = (cam_to_img @ in_cam).tolist()
                depth = c - cam_to_img[2, 3].item()
                square = 1 + 8 * (depth - near) / size
                kappa = -0.5 + 0.5 * math.sqrt(square) if square >= 0 else math.nan
                entries = (
                    2 * a / (c + 1e-8) / (CANVAS_HW[1] - 1) - 1,
                    2 * b / (c + 1e-8) / (CANVAS_HW[0] - 1) - 1,
                    2 * kappa / (n_bins - 1) - 1,
                )
                for axis, entry in enumerate(entries):
                    grid[k, j, i, axis] = entry if math.isfinite(entry) else -2.0
    return grid


def volume_voxels(features, logits, cam_to_img, ref_to_cam):
    """Voxels (B, C, Z, Y, X) sampled from the materialised frustum."""
    probability = logits.softmax(dim=1)[:, :-1]
    frustum = features[:, :, None] * probability[:, None]
    grids = [official_grid(p, t) for p, t in zip(cam_to_img, ref_to_cam, strict=True)]
    return F.grid_sample(frustum, torch.stack(grids), padding_mode='zeros', align_corners=False)


def factorised_voxels(lift, features, logits, cam_to_img, ref_to_cam, canvas_hw=CANVAS_HW):
    """The same from `Lift`, put back into the whole grid."""
    n_x, n_y, n_z = lift.cells_xyz
    maps = []
    for columns in lift(features, logits, cam_to_img, ref_to_cam, canvas_hw):
        full = features.new_zeros(n_y * n_x, n_z, features.shape[1])
        full = full.index_copy(0, columns.cells_M, columns.values_MZC)
        maps.append(full.view(n_y, n_x, n_z, -1).permute(3, 2, 0, 1))
    return torch.stack(maps)


@pytest.mark.parametrize('inside', [False, True], ids=['before the grid', 'inside the grid'])
@pytest.mark.parametrize('seed', range(4))
def test_voxels_and_gradients_equal_those_of_the_volume(seed, inside):
    inputs = make_inputs(seed, inside)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    expected = volume_voxels(*inputs)
    found = factorised_voxels(lift, *inputs)

    assert 0.05 < (expected != 0).double().mean() < 0.95
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)
    weights = torch.randn_like(expected)
    for tensor in inputs[:2]:
        slow, fast = (
            torch.autograd.grad((voxels * weights).sum(), tensor, retain_graph=True)[0]
            for voxels in (expected, found)
        )
        assert slow.abs().max() > 0
        assert torch.allclose(fast, slow, rtol=0, atol=1e-9)


def test_gradients_are_those_of_finite_differences():
    features, logits, cam_to_img, ref_to_cam = make_inputs(
        1, channels=2, feature_hw=(2, 3), batch=1
    )
    lift = Lift(RANGE_M, (4, 3, 2), DEPTH_BINS)

    assert torch.autograd.gradcheck(
        lambda f, d: factorised_voxels(lift, f, d, cam_to_img, ref_to_cam), (features, logits)
    )


def test_collapse_is_the_convolution_of_all_voxels():
    """Over the visible columns only, yet with the batch statistics of the whole map."""
    inputs = make_inputs(5)
    torch.manual_seed(0)
    collapse = Collapse(CHANNELS, CELLS_XYZ, 4).double().train()
    columns = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)(*inputs, CANVAS_HW)
    voxels_BCZYX = volume_voxels(*inputs)
    expected = F.conv2d(voxels_BCZYX.flatten(1, 2), collapse.conv.weight)
    mean = expected.mean((0, 2, 3), keepdim=True)
    spread = (expected.var((0, 2, 3), unbiased=False, keepdim=True) + collapse.bn.eps).sqrt()

    found = collapse(columns)
    assert torch.allclose(found, F.relu((expected - mean) / spread), rtol=0, atol=1e-9)


def test_every_camera_of_a_batch_keeps_its_own_indices():
    inputs = make_inputs(7, batch=3)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS, cached_cameras=2)
    together = factorised_voxels(lift, *inputs)
    alone = torch.cat(
        [factorised_voxels(lift, *(tensor[b : b + 1] for tensor in inputs)) for b in range(3)]
    )

    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_a_changed_calibration_or_canvas_is_not_answered_from_the_cache():
    features, logits, cam_to_img, ref_to_cam = make_inputs(8)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    first = factorised_voxels(lift, features, logits, cam_to_img, ref_to_cam)
    shifted = ref_to_cam.clone()
    shifted[:, 2, 3] += 0.5
    canvas = (CANVAS_HW[0] + 16, CANVAS_HW[1])

    again = factorised_voxels(lift, features, logits, cam_to_img, ref_to_cam)
    moved = factorised_voxels(lift, features, logits, cam_to_img, shifted)
    padded = factorised_voxels(lift, features, logits, cam_to_img, ref_to_cam, canvas)
    assert torch.equal(first, again)
    assert not torch.equal(first, moved)
    assert not torch.equal(first, padded)
    assert torch.allclose(moved, volume_voxels(features, logits, cam_to_img, shifted), atol=1e-9)


def test_indices_made_while_detecting_serve_training_too():
    inputs = make_inputs(9)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    with torch.inference_mode():
        factorised_voxels(lift, *inputs)

    factorised_voxels(lift, *inputs).sum().backward()
    assert inputs[0].grad.abs().max() > 0


def test_voxels_are_float32_under_autocast():
    features, logits, cam_to_img, ref_to_cam = make_inputs(10)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    expected = factorised_voxels(lift, features, logits, cam_to_img, ref_to_cam)
    inputs = (features.bfloat16(), logits.bfloat16(), cam_to_img, ref_to_cam)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        columns = lift(*inputs, CANVAS_HW)
        found = factorised_voxels(lift, *inputs)

    assert all(column.values_MZC.dtype == torch.float32 for column in columns)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_camera_that_sees_nothing_of_the_grid_gives_no_columns():
    features, logits, cam_to_img, ref_to_cam = make_inputs(11)
    backwards = ref_to_cam.clone()
    backwards[:, [0, 2]] *= -1
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    collapse = Collapse(CHANNELS, CELLS_XYZ, 4).double().eval()

    columns = lift(features, logits, cam_to_img, backwards, CANVAS_HW)
    assert [len(c.cells_M) for c in columns] == [0, 0]
    bev = collapse(columns)
    assert torch.equal(bev, torch.zeros(2, 4, CELLS_XYZ[1], CELLS_XYZ[0], dtype=torch.float64))
    bev.sum().backward()
    assert not features.grad.any()
    assert not logits.grad.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_a_gpu_gives_the_same():
    inputs = make_inputs(12)
    lift = Lift(RANGE_M, CELLS_XYZ, DEPTH_BINS)
    results = []
    for device in ('cpu', 'cuda'):
        moved = [tensor.detach().to(device).requires_grad_() for tensor in inputs]
        voxels = factorised_voxels(lift, *moved)
        voxels.square().sum().backward()
        results.append([t.cpu() for t in (voxels, moved[0].grad, moved[1].grad)])

    for on_cpu, on_gpu in zip(*results, strict=True):
        assert torch.allclose(on_cpu, on_gpu, rtol=0, atol=1e-9)
