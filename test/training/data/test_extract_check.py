"""A scan over its picture: every point where the calibration says, near ones in front."""

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import CALIBRATION, FX, HEIGHT, WIDTH, simple_bag

from cmkd_ros.training.data.extract import extract_frames
from cmkd_ros.training.data.extract_check import draw_scan
from cmkd_ros.training.data.extract_plan import plan_extraction
from cmkd_ros.training.data.png import read_png_rgb

GREY_HW3 = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)


def drawn(*points):
    picture_HW3 = draw_scan(GREY_HW3, np.array(points, np.float32), CALIBRATION)
    return picture_HW3, np.argwhere((picture_HW3 != 128).any(axis=2))


def test_a_point_lies_where_it_is_seen():
    _, places = drawn([10.2, -1.0, -0.58, 0.3])  # 10 m before the camera, 1 m right, 0.5 m below
    np.testing.assert_allclose(places.mean(axis=0), [24 + FX * 0.05, 80 + FX * 0.1])
    assert len(places) == 5


def test_near_points_are_red_and_cover_far_blue_ones():
    near, far = [3.2, 0, -0.08, 0], [50.2, 0, -0.08, 0]
    for points in ([near, far], [far, near]):
        picture_HW3, _ = drawn(*points)
        red, _, blue = picture_HW3[24, 80].astype(int)
        assert red > blue + 50
    picture_HW3, _ = drawn(far)
    red, _, blue = picture_HW3[24, 80].astype(int)
    assert blue > red + 50


def test_points_beside_and_behind_the_picture_are_left_out():
    assert not len(drawn([-10, 0, 0, 0], [10, 30, 0, 0])[1])


def test_each_bag_has_a_picture(tmp_path):
    bags = [simple_bag(tmp_path / name, 3, 10**9 * second) for name, second in (('a', 1), ('b', 9))]
    extract_frames(plan_extraction(bags), tmp_path / 'out')
    pictures = sorted(path.name for path in (tmp_path / 'out' / 'check').iterdir())
    assert pictures == ['a.png', 'b.png']
    assert read_png_rgb(tmp_path / 'out' / 'check' / 'a.png').shape == (HEIGHT, WIDTH, 3)
