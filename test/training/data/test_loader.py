"""Loaders: the same draws for every number of workers, after a resume, and over processes."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from cmkd_ros.training.data.augment import RandomFlip, TeacherAugmentation
from cmkd_ros.training.data.frames import ConcatFrames
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.loader import EpochSampler, make_loader

RANGE = (2, -30, -3, 46.8, 30, 1)


@pytest.fixture()
def frames(made_kitti):
    return KittiFrames(made_kitti.root, made_kitti.frames, ('Car',), range_m=RANGE, with_depth=True)


def one_epoch(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first, second) -> bool:
    return first.frame_ids == second.frame_ids and all(
        torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for a, b in zip(
            (first.image_B3HW, first.depth_Bhw, *first.points, *first.boxes),
            (second.image_B3HW, second.depth_Bhw, *second.points, *second.boxes),
            strict=True,
        )
    )


@pytest.mark.parametrize('augment', (RandomFlip(), TeacherAugmentation()))
def test_workers_do_not_change_the_draws(frames, augment):
    here = make_loader(frames, 2, 7, augment=augment)
    apart = make_loader(frames, 2, 7, augment=augment, workers=2)
    for epoch in (0, 1, 5):
        for first, second in zip(one_epoch(here, epoch), one_epoch(apart, epoch), strict=True):
            assert same(first, second)


def test_epochs_and_seeds_differ_but_repeat(frames):
    loader = make_loader(frames, 2, 7, augment=RandomFlip())
    first = one_epoch(loader, 0)
    orders = {tuple(chain(*(b.frame_ids for b in one_epoch(loader, e)))) for e in range(8)}
    assert len(orders) >= 6
    assert all(sorted(order) == sorted(frames.frame_ids) for order in orders)
    assert all(same(a, b) for a, b in zip(first, one_epoch(loader, 0), strict=True))
    other = one_epoch(make_loader(frames, 2, 8, augment=RandomFlip()), 0)
    assert not all(same(a, b) for a, b in zip(first, other, strict=True))


def test_a_frame_gets_another_draw_every_epoch(frames):
    loader = make_loader(frames, 1, 3, shuffle=False, augment=RandomFlip())
    flipped = [
        [not np.array_equal(b.image_B3HW, a.image_B3HW) for a, b in zip(plain, drawn, strict=True)]
        for plain in [one_epoch(make_loader(frames, 1, 3, shuffle=False), 0)]
        for drawn in (one_epoch(loader, epoch) for epoch in range(12))
    ]
    share = np.mean(flipped)
    assert 0.25 < share < 0.75
    assert len({tuple(row) for row in flipped}) > 6


def test_order_and_frames_use_unrelated_streams(frames):
    """Seed sequences pad with zeros: without streams (seed, epoch) would equal (seed, epoch, 0)."""
    loader = make_loader(frames, 1, 3, augment=_marked)
    drawn = {b.frame_ids[0]: float(b.points[0][0, 0]) for b in one_epoch(loader, 2)}
    order_draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence((3, 2)))).random()
    assert drawn['000000'] != pytest.approx(2 + order_draw)
    assert len(set(drawn.values())) == len(drawn)


def _marked(sample, generator):
    points_N4 = sample.points_N4[:1].copy()
    points_N4[0] = [2 + generator.random(), 0, 0, 0]
    return replace(sample, points_N4=points_N4)


def test_resume_in_the_middle_of_an_epoch(frames):
    whole = one_epoch(make_loader(frames, 2, 7, augment=RandomFlip()), 4)
    resumed = make_loader(frames, 2, 7, augment=RandomFlip())
    resumed.sampler.skip_once(4)
    rest = one_epoch(resumed, 4)
    assert len(rest) == 1
    assert same(rest[0], whole[2])
    assert len(one_epoch(resumed, 5)) == 3, 'the next epoch is whole again'
    with pytest.raises(ValueError, match='0 to 6'):
        resumed.sampler.skip_once(7)


@pytest.mark.parametrize('workers', (0, 1))
def test_a_loader_goes_on_where_another_one_stood(frames, workers):
    """Frames that workers have read ahead are not lost."""
    first = make_loader(frames, 2, 7, augment=RandomFlip(), workers=workers)
    first.sampler.set_epoch(4)
    whole = []
    for batch in first:
        whole.append(batch)
        if len(whole) == 1:
            state = first.state_dict()
    assert state == {'epoch': 4, 'batches': 1, 'batch_size': 2, 'world_size': 1}
    second = make_loader(frames, 2, 7, augment=RandomFlip(), workers=workers)
    second.load_state_dict(state)
    rest = list(second)
    assert len(rest) == 2
    assert all(same(one, other) for one, other in zip(rest, whole[1:], strict=True))
    assert second.state_dict() == first.state_dict() == state | {'batches': 3}
    second.load_state_dict(first.state_dict())  # a whole epoch: nothing to leave out
    assert len(one_epoch(second, 5)) == 3
    with pytest.raises(ValueError, match='expected batch_size 2 as before, found 3'):
        make_loader(frames, 3, 7).load_state_dict(state)


@pytest.mark.parametrize('drop_last', (True, False))
def test_processes_share_one_order(drop_last):
    shares = [
        EpochSampler(11, 0, rank=rank, world_size=4, drop_last=drop_last) for rank in range(4)
    ]
    assert {len(share) for share in shares} == ({2} if drop_last else {3})
    found = [index for share in shares for _, index in share]
    assert len(set(found)) == (8 if drop_last else 11)
    assert len(found) == (8 if drop_last else 12)


def test_global_generators_stay_untouched(frames):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one_epoch(make_loader(frames, 2, 7, augment=TeacherAugmentation()), 0)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_frames_without_a_box_are_replaced(frames):
    plain = one_epoch(make_loader(frames, 1, 7), 0)
    assert {b.frame_ids[0] for b in plain if len(b.boxes[0]) == 0} == {'000002', '000004'}
    loader = make_loader(frames, 1, 7, redraw_empty=True)
    replaced = set()
    for epoch in range(20):
        drawn = [batch.frame_ids[0] for batch in one_epoch(loader, epoch)]
        assert '000002' not in drawn
        assert '000004' not in drawn
        assert drawn == [batch.frame_ids[0] for batch in one_epoch(loader, epoch)]
        replaced |= {name for name in drawn if drawn.count(name) > 1}
    assert replaced == {'000000', '000001', '000003', '000005'}


def test_unlabelled_frames_are_not_replaced(made_kitti, frames):
    unlabelled = KittiFrames(
        made_kitti.root, ['000002'], ('Car',), range_m=RANGE, labelled=False, with_depth=True
    )
    loader = make_loader(ConcatFrames([frames, unlabelled]), 1, 7, redraw_empty=True)
    drawn = [b.frame_ids[0] for b in one_epoch(loader, 0) if not b.labelled_B[0]]
    assert drawn == ['000002']


def test_a_set_without_any_box_is_an_error(made_kitti):
    frames = KittiFrames(made_kitti.root, ['000002', '000004'], ('Car',), range_m=RANGE)
    with pytest.raises(ValueError, match='no labelled box in range, and none in 100'):
        one_epoch(make_loader(frames, 1, 7, redraw_empty=True), 0)


def test_last_frames(frames):
    assert len(one_epoch(make_loader(frames, 4, 7), 0)) == 1
    batches = one_epoch(make_loader(frames, 4, 7, drop_last=False), 0)
    assert [len(batch) for batch in batches] == [4, 2]
    with pytest.raises(ValueError, match='batch_size 7: expected 1 to 6'):
        make_loader(frames, 7, 0)


def test_a_replaced_sampler_is_an_error(frames):
    loader = make_loader(frames, 2, 7)
    with pytest.raises(TypeError, match='use_distributed_sampler=False'):
        loader.dataset[0]
