"""Suppression in a fixed size against `nms_bev`, which is the oracle."""

import numpy as np
import pytest
import torch

from cmkd_ros.geometry.fixed_nms import PairwiseOverlaps, choose
from cmkd_ros.geometry.overlap import iou_bev, nms_bev


def crowd(count, area_m, seed):
    """Boxes of cars and pedestrians in a square, by descending score."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high):
        return torch.rand(count, generator=generator) * (high - low) + low

    columns = [uniform(0, area_m), uniform(0, area_m), uniform(-2, 0), uniform(0.5, 5)]
    columns += [uniform(0.5, 2), uniform(1, 2), uniform(-4, 4)]
    return torch.stack(columns, dim=1), torch.linspace(0.99, 0.1, count)


def kept_of(boxes, passes, threshold, device='cpu'):
    overlaps = PairwiseOverlaps(len(boxes), device)(boxes.double().to(device), threshold)
    assert overlaps.shape == (len(boxes), (len(boxes) + 7) // 8)
    return choose(overlaps.cpu().numpy(), passes.numpy())


@pytest.mark.parametrize('threshold', [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize('area_m', [5.0, 20.0, 100.0])
def test_keeps_what_nms_keeps(threshold, area_m):
    for seed in range(3):
        boxes, scores = crowd(117, area_m, seed)
        expected = nms_bev(boxes, scores, threshold, 4096, 500)
        everything = torch.ones(117, dtype=torch.bool)
        assert kept_of(boxes, everything, threshold) == expected.tolist()


def test_overlaps_are_those_of_every_pair():
    """Random boxes; the same box twice; boxes that share an edge, a corner, a centre; nested ones,
    empty ones, and sizes of an untrained network."""
    boxes = torch.cat([crowd(60, 15.0, 7)[0], crowd(20, 60.0, 8)[0]]).double()
    special = torch.tensor(
        [
            [0, 0, 0, 4, 2, 1, 0], [0, 0, 0, 4, 2, 1, 0], [4, 0, 0, 4, 2, 1, 0],
            [4, 2, 0, 4, 2, 1, 0], [0, 0, 0, 4, 2, 1, torch.pi / 2], [0, 0, 0, 2, 1, 1, torch.pi],
            [0, 0, 0, 4, 4, 1, torch.pi / 4], [1, 1, 0, 0, 0, 1, 0.3], [1, 1, 0, 3, 0, 1, 0.3],
            [5, -3, 0, 9e3, 1e5, 1, 1.1], [5, -3, 0, 1e-4, 1e-5, 1, 1.1],
        ],
        dtype=torch.float64,
    )  # fmt: skip
    boxes = torch.cat([boxes, special])
    first, second = torch.triu_indices(len(boxes), len(boxes), 1)
    found = PairwiseOverlaps(len(boxes))._iou(boxes).nan_to_num(0.0)
    expected = iou_bev(boxes, boxes)[first, second]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert ((found > 0) == (expected > 0)).float().mean() > 0.999  # but for edges that touch


def test_boxes_that_do_not_pass_count_for_nothing():
    boxes, scores = crowd(60, 10.0, 5)
    passes = torch.arange(60) % 3 > 0
    boxes[::3] = torch.tensor([torch.nan, torch.inf, 0, 1e30, -torch.inf, 1, 0])
    chosen = passes.nonzero()[:, 0]
    expected = chosen[nms_bev(boxes[chosen], scores[chosen], 0.05, 4096, 500)]
    found = kept_of(boxes, passes, torch.tensor(0.05, dtype=torch.float64))
    assert found == expected.tolist()


def test_a_chain_of_decisions_is_followed_to_its_end():
    """Each box of a row overlaps the next: every second one stays, decided one after the other."""
    boxes = torch.zeros(200, 7)
    boxes[:, 0] = 0.7 * torch.arange(200)
    boxes[:, 3:6] = 1.0
    assert kept_of(boxes, torch.ones(200, dtype=torch.bool), 0.01) == list(range(0, 200, 2))


def test_one_box_and_none_that_passes():
    box = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0]])
    assert kept_of(box, torch.tensor([True]), 0.01) == [0]
    assert kept_of(box, torch.tensor([False]), 0.01) == []
    assert choose(np.zeros((0, 0), np.uint8), np.zeros(0, bool)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_a_gpu_finds_the_same():
    boxes, scores = crowd(512, 60.0, 1)
    found = kept_of(boxes, torch.ones(512, dtype=torch.bool), 0.01, 'cuda')
    assert found == nms_bev(boxes, scores, 0.01, 4096, 500).tolist()
