"""Every kind of teacher learns from labels, all its parts, by the loss that is its own."""

import pytest
import torch

from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.centerpoint import CenterPoint
from cmkd_ros.training.teacher.pointpillars import PointPillars
from cmkd_ros.training.teacher.second import Second
from cmkd_ros.training.teacher.spec import TeacherSpec, load_teacher_spec

RANGE_M = [0.0, -6.4, -3.0, 12.8, 6.4, 1.0]
SPARSE = {'kind': 'sparse', 'widths': [8, 8, 16, 16]}
PILLARS = {'kind': 'pillars', 'channels': 16, 'conv_strides': [2, 2]}
BEV = {'layers': [1], 'strides': [1], 'filters': [16], 'up_strides': [2], 'up_filters': [16]}
KINDS = {
    'pointpillars': (PointPillars, PILLARS, [0.2, 0.2, 4.0]),
    'second': (Second, SPARSE, [0.1, 0.1, 0.1]),
    'centerpoint': (CenterPoint, SPARSE, [0.1, 0.1, 0.1]),
}
WEIGHTS = {
    'pointpillars': (1.0, 2.0, 0.2),
    'second': (8.0, 2.0, 0.2),
    'centerpoint': (1.0, 2.0, 0.0),
}


def small_spec(name: str) -> TeacherSpec:
    """The named teacher in small: 12.8 m, few channels."""
    _, encoder, voxel_m = KINDS[name]
    small = {'grid': {'range_m': RANGE_M, 'voxel_m': voxel_m}, 'encoder': encoder, 'bev': BEV}
    return TeacherSpec.model_validate(load_teacher_spec(name).model_dump() | small)


@pytest.fixture
def frames():
    """Two scans of ground and boxes full of points, and these boxes."""
    generator = torch.Generator().manual_seed(3)
    boxes = [
        torch.tensor([[4.1, 2.3, -0.8, 3.9, 1.6, 1.5, 0.1], [8.2, -3.1, -0.8, 4.2, 1.7, 1.6, 1.5]]),
        torch.tensor([[6.7, 1.2, -0.7, 0.8, 0.7, 1.7, 0.4]]),
    ]
    scans = []
    for boxes_M7 in boxes:
        ground = torch.rand(150, 3, generator=generator) * torch.tensor([12.8, 12.8, 0.1])
        parts = [ground + torch.tensor([0.0, -6.4, -1.7])]
        for box in boxes_M7:
            inside = (torch.rand(60, 3, generator=generator) - 0.5) * box[3:6]
            cos, sin = box[6].cos(), box[6].sin()
            turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            parts.append(inside @ turn.T + box[:3])
        points = torch.cat(parts)
        scans.append(torch.cat([points, torch.rand(len(points), 1, generator=generator)], dim=1))
    return scans, boxes, [torch.tensor([1, 1]), torch.tensor([2])]


@pytest.mark.parametrize('name', KINDS)
def test_all_parts_of_a_teacher_learn(name, frames):
    pytest.importorskip('spconv', reason='needs spconv')
    scans, boxes, class_ids = frames
    torch.manual_seed(0)
    spec = small_spec(name)
    teacher = build_teacher(spec).train()
    assert type(teacher) is KINDS[name][0]
    optimiser = torch.optim.Adam(teacher.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        terms = teacher.loss(teacher(scans).head, boxes, class_ids, *WEIGHTS[name])
        terms.total.backward()
        if not losses:
            idle = [n for n, p in teacher.named_parameters() if p.grad is None or not p.grad.any()]
            # A bias before a batch norm cancels out, but for rounding.
            assert [n for n in idle if not n.endswith('conv.bias')] == []
        optimiser.step()
        losses.append(terms.total.item())
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.parametrize('name', KINDS)
def test_a_teacher_without_head_cannot_learn(name, frames):
    pytest.importorskip('spconv', reason='needs spconv')
    _, boxes, class_ids = frames
    teacher = build_teacher(small_spec(name), with_head=False)
    with pytest.raises(ValueError, match='a teacher without head cannot learn'):
        teacher.loss(None, boxes, class_ids, 1.0, 1.0, 1.0)


def test_pillars_take_no_centre_head():
    spec = load_teacher_spec('pointpillars_r18').model_copy(
        update={'head': load_teacher_spec('centerpoint').head}
    )
    with pytest.raises(ValueError, match='pillars take an anchor head'):
        build_teacher(spec)
