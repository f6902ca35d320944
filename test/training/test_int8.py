"""Which frames give the scales of int8 and which are evaluated."""

import pytest

from cmkd_ros.training.int8 import divide


@pytest.mark.parametrize(
    ('count', 'calibration', 'frames', 'expected'),
    [
        (500, 200, 300, (200, 300)),
        (500, 400, 300, (250, 250)),
        (5, 200, 300, (2, 3)),
        (9, 2, 3, (2, 3)),
    ],
)
def test_no_frame_is_both_and_both_are_spread(count, calibration, frames, expected):
    names = [f'{index:06d}' for index in range(count)]
    fitted, judged = divide(names, calibration, frames)
    assert (len(fitted), len(judged)) == expected
    assert not set(fitted) & set(judged)
    assert set(fitted) | set(judged) <= set(names)
    for part in (fitted, judged):
        assert part == sorted(set(part))
        assert int(part[0]) < 0.3 * count
        assert int(part[-1]) >= 0.5 * (count - 1)


@pytest.mark.parametrize(('calibration', 'frames'), [(0, 1), (1, 0), (-1, 5)])
def test_counts_must_be_positive(calibration, frames):
    with pytest.raises(ValueError, match='expected 1 or more of each'):
        divide(['000000', '000001'], calibration, frames)


def test_one_frame_is_too_few():
    with pytest.raises(ValueError, match='one frame: expected another one to evaluate'):
        divide(['000000'], 1, 1)
