"""The voxeliser: equal to a slow obvious one on anything, to the official one on real scans."""

import numpy as np
import pytest
import torch
from golden_values import golden_frames, sampled
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.training.teacher.voxelize import voxelize, voxelize_batch

RANGE_M = (0.0, -2.0, -1.0, 4.0, 2.0, 1.0)
VOXEL_M = (1.0, 0.5, 1.0)
CELLS_XYZ = (4, 8, 2)


def obvious(points_N4, range_m, voxel_m, cells_xyz, max_points, max_voxels):
    """Point by point, as one would explain it: {cell zyx: kept points}, in order."""
    voxels: dict[tuple[int, ...], list[np.ndarray]] = {}
    for point in points_N4:
        cell = np.floor((point[:3] - np.float32(range_m[:3])) / np.float32(voxel_m))
        if not all(0 <= c < n for c, n in zip(cell, cells_xyz, strict=True)):
            continue
        key = tuple(int(c) for c in cell[::-1])
        if key not in voxels and len(voxels) == max_voxels:
            continue
        kept = voxels.setdefault(key, [])
        if len(kept) < max_points:
            kept.append(point)
    return voxels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 300),
    max_points=st.integers(1, 5),
    max_voxels=st.integers(1, 70),
)
def test_equals_the_obvious_voxeliser(seed, n, max_points, max_voxels):
    generator = np.random.default_rng(seed)
    points_N4 = generator.uniform((-0.5, -2.5, -1.5, 0), (4.5, 2.5, 1.5, 1), (n, 4))
    points_N4 = points_N4.astype(np.float32)
    points_N4[: n // 3] = np.round(points_N4[: n // 3] * 2) / 2  # on the borders of cells
    voxels = voxelize(
        torch.from_numpy(points_N4), RANGE_M, VOXEL_M, CELLS_XYZ, max_points, max_voxels
    )
    expected = obvious(points_N4, RANGE_M, VOXEL_M, CELLS_XYZ, max_points, max_voxels)
    assert [tuple(c) for c in voxels.coords_bzyx_V4[:, 1:].tolist()] == list(expected)
    parts = voxels.points_K4.split(voxels.counts_V.tolist())
    assert len(parts) == len(expected) or not expected
    for part, kept in zip(parts, expected.values(), strict=False):
        assert np.array_equal(part.numpy(), np.stack(kept))


def test_borders_belong_to_the_upper_cell_and_the_far_border_to_none():
    points = torch.tensor(
        [[0.0, -2.0, -1.0, 0], [1.0, -1.5, 0.0, 0], [4.0, 0.0, 0.0, 0], [3.9, 2.0, 0.0, 0]]
    )
    voxels = voxelize(points, RANGE_M, VOXEL_M, CELLS_XYZ, 5, 10)
    assert voxels.coords_bzyx_V4.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]


def test_points_without_a_place_are_dropped():
    points = torch.full((3, 4), 0.5)
    points[0, 1], points[2, 0] = float('nan'), float('inf')
    voxels = voxelize(points, RANGE_M, VOXEL_M, CELLS_XYZ, 5, 10)
    assert voxels.points_K4.tolist() == [[0.5] * 4]


def test_an_empty_scan_has_no_voxels():
    voxels = voxelize(torch.zeros(0, 4), RANGE_M, VOXEL_M, CELLS_XYZ, 5, 10)
    assert voxels.points_K4.shape == (0, 4)
    assert voxels.coords_bzyx_V4.shape == (0, 4)
    assert voxels.padded_VP4(5).shape == (0, 5, 4)


def test_scans_of_a_batch_do_not_share_caps_or_voxels():
    scan = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 2
    alone = voxelize(scan, RANGE_M, VOXEL_M, CELLS_XYZ, 3, 4)
    batch = voxelize_batch([scan, scan[:0], scan], RANGE_M, VOXEL_M, CELLS_XYZ, 3, 4)
    assert batch.coords_bzyx_V4[:, 0].tolist() == [0] * 4 + [2] * 4
    assert torch.equal(batch.coords_bzyx_V4[:, 1:], alone.coords_bzyx_V4[:, 1:].repeat(2, 1))
    assert torch.equal(batch.padded_VP4(3), alone.padded_VP4(3).repeat(2, 1, 1))
    assert batch.voxel_of_point_K().bincount().tolist() == batch.counts_V.tolist()


@pytest.mark.parametrize(
    ('scans', 'message'),
    [
        ([], 'no scan'),
        ([torch.zeros(5, 4, dtype=torch.float64)], r'scan 0: expected float32 \(N, 4\)'),
        ([torch.zeros(5, 4), torch.zeros(5, 3)], r'scan 1.*found torch.float32 \(5, 3\)'),
    ],
)
def test_scans_of_another_kind_are_refused(scans, message):
    with pytest.raises(ValueError, match=message):
        voxelize_batch(scans, RANGE_M, VOXEL_M, CELLS_XYZ, 3, 4)


STUDENT_RANGE = (2, -30.08, -3, 46.8, 30.08, 1)


@pytest.mark.parametrize(
    ('record', 'range_m', 'voxel_m', 'max_points', 'max_voxels'),
    [
        ('in_pp_R50_V2', STUDENT_RANGE, (0.16, 0.16, 4), 32, 16000),
        ('in_scd_R50_V2', STUDENT_RANGE, (0.04, 0.04, 0.1), 5, 16000),
        ('in_ctp_R50_V2', (2, -30, -3, 46.8, 30, 1), (0.05, 0.05, 0.1), 5, 16000),
        (
            'standalone_pointpillar_teacher',
            (0, -39.68, -3, 69.12, 39.68, 1),
            (0.16, 0.16, 4),
            32,
            40000,
        ),
        ('standalone_second_teacher', (0, -40, -3, 70.4, 40, 1), (0.04, 0.04, 0.1), 5, 40000),
    ],
)
def test_equals_the_official_voxeliser(
    shared_dir, record, range_m, voxel_m, max_points, max_voxels
):
    golden = np.load(shared_dir / f'goldens/teacher_{record}_000002.npz')
    points_N4 = golden_frames(shared_dir, range_m, ['000002'], with_image=False)[0].points_N4
    assert len(points_N4) == golden['n_points']
    cells = [
        round((high - low) / size)
        for low, high, size in zip(range_m[:3], range_m[3:], voxel_m, strict=True)
    ]
    voxels = voxelize(torch.from_numpy(points_N4), range_m, voxel_m, cells, max_points, max_voxels)
    assert np.array_equal(voxels.coords_bzyx_V4.numpy(), golden['voxel.coords'])
    assert np.array_equal(voxels.counts_V.numpy(), golden['voxel.num_points'])
    padded = voxels.padded_VP4(max_points).numpy()
    assert padded.shape == tuple(golden['voxel.points.shape'])
    assert np.array_equal(sampled(padded), golden['voxel.points.samp'])
