"""The centre head on labelled frames: targets that decode to the labels, losses by formula."""

import math

import numpy as np
import pytest
import torch

from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.training.distill.center_label_loss import (
    center_label_loss,
    center_targets,
    gaussian_radius,
)

RANGE_M = (2.0, -6.0, -3.0, 18.0, 6.0, 1.0)
SIZE_YX = (60, 80)  # cells of 0.2 m
CHANNELS = {'hm': 3, 'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}
BOXES_M7 = torch.tensor(
    [
        [8.13, -1.27, -0.8, 3.9, 1.6, 1.5, 0.4],
        [8.55, -0.9, -0.7, 4.1, 1.7, 1.6, -2.9],
        [15.01, 3.3, -0.6, 0.8, 0.6, 1.7, 2.0],
    ]
)
IDS_M = torch.tensor([1, 1, 2])


def targets_of(boxes_M7, ids_M, **options):
    return center_targets(boxes_M7, ids_M, 3, RANGE_M, SIZE_YX, **options)


def random_maps(seed: int) -> CenterHeadOutput:
    generator = torch.Generator().manual_seed(seed)
    maps = {name: torch.randn(2, n, *SIZE_YX, generator=generator) for name, n in CHANNELS.items()}
    return CenterHeadOutput(**{name: map_.requires_grad_() for name, map_ in maps.items()})


def test_a_head_that_says_the_targets_finds_the_boxes():
    targets = targets_of(BOXES_M7, IDS_M)
    maps = {name: torch.zeros(1, n, *SIZE_YX) for name, n in CHANNELS.items()}
    maps['hm'][0] = torch.where(targets.heat_KYX == 1, 9.0, -9.0)
    start = 0
    for name in ('center', 'center_z', 'dim', 'rot'):
        codes = targets.codes_M8[:, start : start + CHANNELS[name]]
        maps[name][0, :, targets.rows_M, targets.columns_M] = codes.T
        start += CHANNELS[name]
    head = CenterHead(8, 3, 8, RANGE_M, (0, -40, -3, 70.4, 40, 1), 500)
    found = head.decode(CenterHeadOutput(**maps), 0, 0.5, 50)
    order = found.boxes_K7[:, 0].argsort()
    torch.testing.assert_close(found.boxes_K7[order], BOXES_M7, rtol=1e-4, atol=1e-4)
    assert (found.labels_K[order] + 1).tolist() == IDS_M.tolist()


def test_heat_is_a_gaussian_around_every_centre_merged_by_maximum():
    heat = targets_of(BOXES_M7, IDS_M).heat_KYX.numpy()
    expected = np.zeros_like(heat)
    for box, k in zip(BOXES_M7.tolist(), IDS_M.tolist(), strict=True):
        column, row = int((box[0] - 2.0) / 0.2), int((box[1] + 6.0) / 0.2)
        radius = max(2, int(gaussian_radius(box[3] / 0.2, box[4] / 0.2, 0.1)))
        sigma = (2 * radius + 1) / 6
        for y, x in np.ndindex(*SIZE_YX):
            dy, dx = y - row, x - column
            if max(abs(dy), abs(dx)) <= radius:
                value = math.exp(-(dx * dx + dy * dy) / (2 * sigma**2))
                expected[k - 1, y, x] = max(expected[k - 1, y, x], value)
    np.testing.assert_allclose(heat, expected, atol=1e-6)
    assert (heat == 1).sum((1, 2)).tolist() == [2, 1, 0]


def test_the_radius_keeps_the_undivided_roots():
    # A car of 19.5 x 8 cells, by hand: the roots are 21.6, 41.5 and 5.2; the least of them.
    area, total = 19.5 * 8, 27.5
    roots = [
        (total + math.sqrt(total**2 - 4 * area * 0.9 / 1.1)) / 2,
        (2 * total + math.sqrt(4 * total**2 - 16 * 0.9 * area)) / 2,
        (-0.2 * total + math.sqrt(0.04 * total**2 + 4 * 0.4 * 0.9 * area)) / 2,
    ]
    assert roots == pytest.approx([21.587, 41.452, 5.233], abs=1e-3)
    assert gaussian_radius(19.5, 8, 0.1) == pytest.approx(min(roots))


def test_boxes_beyond_the_map_or_the_cap():
    outside = torch.tensor([[30.0, 9.0, -1, 4, 2, 1.5, 0], [-5.0, -9.0, -1, 4, 2, 1.5, 0]])
    targets = targets_of(outside, torch.tensor([1, 1]))
    assert targets.columns_M.tolist() == [79, 0]
    assert targets.rows_M.tolist() == [59, 0]
    assert targets.codes_M8[:, :2].tolist() == [[0.5, 0.5], [0.0, 0.0]]
    assert len(targets_of(BOXES_M7, IDS_M, max_objects=2).codes_M8) == 2
    no_size = torch.tensor([[8.0, 0, -1, 0, 2, 1.5, 0]])
    assert not targets_of(no_size, torch.tensor([1])).heat_KYX.any()


def test_terms_equal_their_formulas_over_the_labelled_frames_only():
    student = random_maps(1)
    targets = targets_of(BOXES_M7, IDS_M)
    loss = center_label_loss(student, [None, targets])
    p = 1 / (1 + np.exp(-student.hm[1].detach().double().numpy()))
    p, y = np.clip(p, 1e-4, 1 - 1e-4), targets.heat_KYX.double().numpy()
    hm = -np.where(
        y == 1, np.log(p + 1e-8) * (1 - p) ** 2, np.log(1 - p + 1e-8) * p**2 * (1 - y) ** 4
    ).sum()
    assert loss.label_hm.item() == pytest.approx(hm / 3, rel=1e-5)
    box = 0.0
    for m in range(3):
        own = [
            getattr(student, name)[1, :, targets.rows_M[m], targets.columns_M[m]].tolist()
            for name in ('center', 'center_z', 'dim', 'rot')
        ]
        box += np.abs(np.array(sum(own, [])) - targets.codes_M8[m].numpy()).sum()
    assert loss.label_box.item() == pytest.approx(2 * box / 3, rel=1e-5)
    loss.total.backward()
    for name, map_ in vars(student).items():
        assert not map_.grad[0].any(), name
        assert map_.grad[1].any(), name


def test_without_a_box_only_the_background_is_taught():
    student = random_maps(2)
    empty = targets_of(BOXES_M7[:0], IDS_M[:0])
    loss = center_label_loss(student, [empty, None])
    p = student.hm[0].detach().double().sigmoid()
    expected = -(torch.log(1 - p + 1e-8) * p**2).sum()
    assert loss.label_hm.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.label_box.item() == 0
    loss.total.backward()


def test_a_batch_without_labelled_frames_costs_nothing():
    student = random_maps(3)
    loss = center_label_loss(student, [None, None])
    assert loss.total.item() == 0
    loss.total.backward()
