"""Maps and decoding of the centre head."""

import math

import pytest
import torch

from cmkd_ros.model.center_head import CenterHead
from cmkd_ros.model.outputs import CenterHeadOutput

RANGE_M = (2.0, -30.0, -3.0, 46.8, 30.0, 1.0)
LIMIT_M = (0, -40, -3, 70.4, 40, 1)


def make_head(max_objects=500):
    torch.manual_seed(0)
    return CenterHead(8, 3, 4, RANGE_M, LIMIT_M, max_objects)


def quiet_maps(batch=1, n_y=300, n_x=224):
    def maps(channels, value=0.0):
        return torch.full((batch, channels, n_y, n_x), value)

    return CenterHeadOutput(maps(3, -9.0), maps(2), maps(1), maps(3), maps(2))


def test_every_branch_gives_its_map():
    output = make_head().eval()(torch.randn(2, 8, 6, 5))

    assert output.hm.shape == (2, 3, 6, 5)
    assert output.center.shape == output.rot.shape == (2, 2, 6, 5)
    assert output.center_z.shape == (2, 1, 6, 5)
    assert output.dim.shape == (2, 3, 6, 5)


def test_heat_starts_at_a_tenth():
    head = make_head()
    assert torch.equal(head.branches['hm'].out.bias, torch.full((3,), -2.19))
    assert all(not head.branches[name].out.bias.any() for name in ('center', 'dim', 'rot'))


def test_a_cell_decodes_to_its_box():
    output = quiet_maps()
    output.hm[0, 2, 150, 60] = 2.0
    output.center[0, :, 150, 60] = torch.tensor([0.25, 0.75])
    output.center_z[0, 0, 150, 60] = -0.8
    output.dim[0, :, 150, 60] = torch.tensor([3.9, 1.6, 1.5]).log()
    output.rot[0, :, 150, 60] = 3 * torch.tensor([math.cos(2.5), math.sin(2.5)])

    found = make_head().decode(output, 0, 0.1, 500)
    assert found.scores_K.tolist() == pytest.approx([1 / (1 + math.exp(-2))])
    assert found.labels_K.tolist() == [2]
    assert found.boxes_K7[0].tolist() == pytest.approx(
        [60.25 * 0.2 + 2, 150.75 * 0.2 - 30, -0.8, 3.9, 1.6, 1.5, 2.5], abs=1e-5
    )


def test_neighbours_of_a_peak_are_candidates_too():
    """Quirk of the official code: no search for local maxima."""
    output = quiet_maps()
    output.hm[0, 0, 10, 10:14] = torch.tensor([1.0, 3.0, 2.0, 0.5])

    found = make_head().decode(output, 0, 0.1, 500)
    xs = ((found.boxes_K7[:, 0] - 2) / 0.2).round().tolist()
    assert xs == [11, 12, 10, 13]
    assert len(make_head().decode(output, 0, 0.1, 2)) == 2


def test_the_best_are_taken_over_all_classes():
    output = quiet_maps(n_y=4, n_x=4)
    generator = torch.Generator().manual_seed(3)
    output.hm.copy_(torch.randn(1, 3, 4, 4, generator=generator))
    found = make_head(max_objects=5).decode(output, 0, 0.0, 500)

    best = output.hm.flatten().sort(descending=True)
    assert found.scores_K.tolist() == pytest.approx(best.values[:5].sigmoid().tolist())
    assert found.labels_K.tolist() == (best.indices[:5] // 16).tolist()


def test_scores_must_lie_above_the_threshold_and_centres_inside_the_limits():
    output = quiet_maps()
    output.hm[0, 0, 20, 20] = 0.0
    output.hm[0, 1, 30, 30] = 1.0
    output.center_z[0, 0, 30, 30] = 1.5

    assert len(make_head().decode(output, 0, 0.5, 500)) == 0
    assert len(make_head().decode(output, 0, 0.49, 500)) == 1
    output.center_z[0, 0, 30, 30] = 1.0
    assert len(make_head().decode(output, 0, 0.49, 500)) == 2
