"""Pictures without content are noticed; real ones are not accused."""

import numpy as np
import pytest

from cmkd_ros.ros.picture_check import FROZEN_AFTER, PictureCheck

RNG = np.random.default_rng(0)


def noise(low, high, shape=(120, 200, 3)):
    return RNG.integers(low, high, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ('picture', 'word'),
    [
        (noise(0, 5), 'black'),
        (np.zeros((4, 4, 3), np.uint8), 'black'),
        (noise(252, 255), 'over-exposed: 100%'),
        (noise(0, 255), ''),
        (noise(0, 30), ''),  # night
        (noise(0, 255, (7, 9, 3)), ''),
    ],
)
def test_what_is_wrong_is_said(picture, word):
    doubt = PictureCheck().doubt(picture)
    assert (word in doubt) if word else doubt == ''


def test_a_white_sky_is_no_fault_and_a_white_picture_with_a_dark_edge_is():
    picture = noise(20, 200)
    picture[:60] = 255
    assert PictureCheck().doubt(picture) == ''
    picture[:100] = 255
    assert 'over-exposed' in PictureCheck().doubt(picture)


def test_the_same_picture_again_and_again_is_frozen_until_another_one_comes():
    check, picture = PictureCheck(), noise(0, 255)
    doubts = [check.doubt(picture.copy()) for _ in range(FROZEN_AFTER + 1)]
    assert doubts[:-1] == [''] * FROZEN_AFTER
    assert f'the last {FROZEN_AFTER + 1} are equal' in doubts[-1]
    assert check.doubt(noise(0, 255)) == ''
    assert check.doubt(picture) == ''
