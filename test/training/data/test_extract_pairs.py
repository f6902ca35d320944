"""Which scan goes with which image, and which pairs are kept."""

import numpy as np
import pytest

from cmkd_ros.training.data.extract_pairs import Pair, pair_scans, thin_out

MS = 1_000_000


def pairs_ms(images, scans, max_gap_ms=50):
    pairing = pair_scans([t * MS for t in images], [t * MS for t in scans], max_gap_ms * MS)
    return [(pair.image_ns // MS, pair.scan_ns // MS) for pair in pairing.pairs], pairing


def test_each_scan_has_the_nearest_image():
    found, pairing = pairs_ms(range(0, 400, 33), [10, 110, 210, 310])
    assert found == [(0, 10), (99, 110), (198, 210), (297, 310)]
    assert pairing.lonely_scans == 0
    assert [gap // MS for gap in pairing.gaps_ns] == [10, 11, 12, 13]


def test_two_scans_near_one_image_are_one_pair():
    found, pairing = pairs_ms([100], [70, 110, 140])
    assert found == [(100, 110)]
    assert pairing.lonely_scans == 2


@pytest.mark.parametrize(('max_gap_ms', 'pairs'), [(19, 0), (20, 1)])
def test_the_gap_is_the_largest_that_counts(max_gap_ms, pairs):
    found, pairing = pairs_ms([100], [120], max_gap_ms)
    assert len(found) == pairs
    assert pairing.lonely_scans == 1 - pairs


def test_order_and_stamps_that_occur_twice_do_not_matter():
    found, pairing = pairs_ms([200, 0, 100, 100], [101, 1, 201, 101])
    assert found == [(0, 1), (100, 101), (200, 201)]
    assert pairing.lonely_scans == 0


def test_without_images_every_scan_is_lonely():
    assert pairs_ms([], [1, 2])[1].lonely_scans == 2
    assert pairs_ms([1, 2], [])[0] == []


def test_random_stamps_pair_as_a_slow_search_does():
    rng = np.random.default_rng(0)
    for _ in range(50):
        images = sorted(set(rng.integers(0, 1000, rng.integers(1, 30)).tolist()))
        scans = sorted(set(rng.integers(0, 1000, rng.integers(1, 30)).tolist()))
        wanted = {}
        for scan in scans:
            gap, image = min((abs(image - scan), image) for image in images)
            if gap <= 40 and (image not in wanted or gap < abs(wanted[image] - image)):
                wanted[image] = scan
        assert pairs_ms(images, scans, 40)[0] == sorted(wanted.items())


def of_period(period_ms: float, count: int) -> list[Pair]:
    return [Pair(round(i * period_ms * MS), 0) for i in range(count)]


@pytest.mark.parametrize(
    ('every', 'rate_hz', 'kept'),
    [(1, 0.0, [*range(10)]), (3, 0.0, [0, 3, 6, 9]), (1, 2.0, [0, 5]), (3, 5.0, [0, 3, 6, 9])],
)
def test_every_and_rate(every, rate_hz, kept):
    pairs = of_period(100, 10)
    assert thin_out(pairs, every, rate_hz) == tuple(pairs[index] for index in kept)


def test_a_rate_holds_although_stamps_tremble():
    rng = np.random.default_rng(1)
    pairs = [Pair(round((i * 100 + t) * MS), 0) for i, t in enumerate(rng.uniform(-3, 3, 200))]
    assert len(thin_out(pairs, rate_hz=5.0)) == 100
