"""Depth bins against closed forms and the official numbers."""

import numpy as np
import pytest
import torch

from cmkd_ros.geometry import bin_edges, bin_to_depth, depth_to_bin, transform_points

MODES = ['LID', 'UD', 'SID']
OFFICIAL = ('LID', 120, 2.0, 46.8)


@pytest.mark.parametrize('mode', MODES)
def test_edges_span_the_range_and_have_whole_coordinates(mode):
    edges = bin_edges(mode, 120, 2.0, 46.8)
    assert edges.shape == (121,)
    assert edges.dtype == np.float64
    np.testing.assert_allclose(edges[[0, -1]], [2.0, 46.8], rtol=1e-14)
    coordinates = depth_to_bin(torch.from_numpy(edges), mode, 120, 2.0, 46.8)
    np.testing.assert_allclose(coordinates, np.arange(121), atol=1e-10)


def test_widths_of_the_kinds():
    lid, ud, sid = (bin_edges(mode, 80, 1.0, 41.0) for mode in MODES)
    np.testing.assert_allclose(np.diff(lid), np.arange(1, 81) * 2 * 40 / (80 * 81), rtol=1e-9)
    np.testing.assert_allclose(np.diff(ud), 0.5)
    np.testing.assert_allclose((1 + sid[1:]) / (1 + sid[:-1]), 21 ** (1 / 80))


def test_official_bins_by_hand():
    # delta = 2 * 44.8 / (120 * 121); bin i begins at 2 + delta i (i + 1) / 2.
    delta = 0.0061707989
    np.testing.assert_allclose(bin_edges(*OFFICIAL)[[1, 10]], [2 + delta, 2 + 55 * delta])
    inside = depth_to_bin(torch.tensor([2 + 1.01 * delta, 2 + 2.99 * delta]), *OFFICIAL)
    assert inside.floor().tolist() == [1, 1]


@pytest.mark.parametrize('mode', MODES)
def test_depth_survives_the_bins(mode):
    depth = torch.linspace(2.0, 60.0, 200, dtype=torch.float64)
    back = bin_to_depth(depth_to_bin(depth, mode, 120, 2.0, 46.8), mode, 120, 2.0, 46.8)
    torch.testing.assert_close(back, depth, rtol=1e-12, atol=0)


def test_beyond_the_range():
    near, far = depth_to_bin(torch.tensor([1.0, 50.0]), *OFFICIAL)
    assert near.isnan()
    assert far > 120
    assert depth_to_bin(torch.tensor(1.0), 'UD', 120, 2.0, 46.8) < 0


def test_float32_stays_float32():
    assert depth_to_bin(torch.tensor([5.0]), *OFFICIAL).dtype == torch.float32
    assert bin_to_depth(torch.tensor([5.0]), *OFFICIAL).dtype == torch.float32


def test_official_frustum_grid(shared_dir):
    golden = np.load(shared_dir / 'goldens' / 'student_scd_R50_V2_000002.npz')
    P_px_34 = golden['trans_cam_to_img'][0].astype(np.float64)
    low, high = np.array([2, -30.08, -3]), np.array([46.8, 30.08, 1])
    cells = np.stack(np.meshgrid(*map(np.arange, (140, 188, 10)), indexing='ij'), axis=-1)
    centers = low + (cells[::10, ::10, ::3] + 0.5) * (high - low) / (140, 188, 10)
    cam = transform_points(golden['trans_lidar_to_cam'][0], centers)
    u, v, w = np.moveaxis(cam @ P_px_34[:, :3].T + P_px_34[:, 3], -1, 0)
    kappa = depth_to_bin(torch.from_numpy(w - P_px_34[2, 3]), *OFFICIAL).numpy()
    height, width = golden['image_shape'][0]
    grid = np.stack([2 * u / w / (width - 1), 2 * v / w / (height - 1), 2 * kappa / 119], -1) - 1
    expected = golden['grid.strided_10_10_3'][0]
    known = expected[..., 2] != -2
    assert known.sum() > 900
    np.testing.assert_array_equal(np.isfinite(grid[..., 2]), known)
    np.testing.assert_allclose(grid[known], expected[known], atol=2e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('LOG', 120, 2.0, 46.8), "expected mode LID, UD or SID, found 'LOG'"),
        (('LID', 0, 2.0, 46.8), 'at least one bin, found 0'),
        (('UD', 10, 5.0, 5.0), 'found 5.0 and 5.0'),
        (('SID', 10, -2.0, 5.0), 'found -2.0 and 5.0'),
        (('SID', 10, 2.0, float('inf')), 'found 2.0 and inf'),
    ],
)
def test_bad_input_is_named(arguments, message):
    for call in (
        lambda: bin_edges(*arguments),
        lambda: depth_to_bin(torch.ones(1), *arguments),
        lambda: bin_to_depth(torch.ones(1), *arguments),
    ):
        with pytest.raises(ValueError, match=message):
            call()
