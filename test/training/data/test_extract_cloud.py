"""PointCloud2 messages of any layout become KITTI's x, y, z, intensity.

Letters: N points.
"""

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import cloud_message, street

from cmkd_ros.training.data.extract_cloud import IntensityScale, cloud_to_points, scale_intensity

XYZ = [('x', '<f4'), ('y', '<f4'), ('z', '<f4')]


def structured(points_N4, fields, padding: int = 0) -> np.ndarray:
    """Points as an array of these fields, with unused bytes behind each."""
    plain = np.dtype(fields)
    layout = {
        'names': plain.names,
        'formats': [plain.fields[name][0] for name in plain.names],
        'offsets': [plain.fields[name][1] for name in plain.names],
        'itemsize': plain.itemsize + padding,
    }
    cloud = np.zeros(len(points_N4), layout)
    for column, name in enumerate('xyz'):
        cloud[name] = points_N4[:, column]
    return cloud


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('real', ['f4', 'f8'])
@pytest.mark.parametrize('padding', [0, 5])
def test_either_byte_order_and_precision(order, real, padding):
    fields = [
        ('ring', f'{order}u2'), ('z', order + real), ('intensity', f'{order}f4'),
        ('x', order + real), ('y', order + real),
    ]  # fmt: skip
    cloud = structured(street(), fields, padding)
    cloud['intensity'] = street()[:, 3]
    points_N4 = cloud_to_points(cloud_message(cloud))
    assert points_N4.dtype == np.float32
    np.testing.assert_array_equal(points_N4, street())


def test_an_organised_cloud_with_padded_rows_and_points_without_return():
    cloud = structured(street(), XYZ).reshape(20, 50)
    cloud['x'][3, 7] = np.nan
    for axis in 'xyz':
        cloud[axis][0, :5] = 0.0
    message = cloud_message(cloud)
    rows = [row.tobytes() + b'\xff' * 24 for row in cloud]
    message.row_step += 24
    message.data = np.frombuffer(b''.join(rows), np.uint8)
    real = np.ones(1000, bool)
    real[[0, 1, 2, 3, 4, 157]] = False
    np.testing.assert_array_equal(cloud_to_points(message)[:, :3], street()[real, :3])


@pytest.mark.parametrize('kind', ['u1', '<u2', '<i4', '<f4'])
@pytest.mark.parametrize('name', ['intensity', 'i', 'reflectivity'])
def test_intensity_of_any_number_and_usual_name(kind, name):
    cloud = structured(street(), [*XYZ, (name, kind)])
    cloud[name] = np.arange(1000) % 200
    np.testing.assert_array_equal(cloud_to_points(cloud_message(cloud))[:, 3], cloud[name])


def test_no_intensity_is_zero_and_one_that_is_no_number_too():
    assert not cloud_to_points(cloud_message(structured(street(), XYZ)))[:, 3].any()
    cloud = structured(street(), [*XYZ, ('intensity', '<f4')])
    cloud['intensity'] = np.inf
    assert not cloud_to_points(cloud_message(cloud))[:, 3].any()


def test_an_empty_cloud_has_no_points():
    assert cloud_to_points(cloud_message(structured(street()[:0], XYZ))).shape == (0, 4)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda m: setattr(m, 'fields', m.fields[:2]), "expected a field 'z', found x, y"),
        (lambda m: setattr(m, 'fields', []), "expected a field 'x', found none"),
        (lambda m: setattr(m.fields[1], 'datatype', 2), "field 'y' has the datatype 2, expected"),
        (lambda m: setattr(m, 'point_step', 11), 'end at byte 12, but point_step is 11'),
        (lambda m: setattr(m, 'data', m.data[:-1]), 'expected 12000 bytes of 1 x 1000 points'),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(change, words):
    message = cloud_message(structured(street(), XYZ))
    change(message)
    with pytest.raises(ValueError, match=words):
        cloud_to_points(message)


def full_brightness(kind: str, *scans: np.ndarray, scale: IntensityScale | None = None) -> float:
    scale = scale or IntensityScale()
    for values in scans:
        cloud = structured(np.ones((len(values), 4)), [*XYZ, ('intensity', kind)])
        cloud['intensity'] = values
        message = cloud_message(cloud)
        scale.see(message, cloud_to_points(message))
    return scale.full()


@pytest.mark.parametrize(
    ('kind', 'highest', 'full'),
    [('u1', 3, 255.0), ('<f4', 1.0, 1.0), ('<f4', 1.5, 255.0), ('<u2', 255, 255.0)],
)
def test_full_brightness_follows_the_kind_and_the_largest_number(kind, highest, full):
    assert full_brightness(kind, np.linspace(0, highest, 100), np.zeros(10)) == full


@pytest.mark.parametrize(('highest', 'full'), [(1.0, None), (200.0, 255.0), (4000.0, None)])
@pytest.mark.parametrize('bytes_first', [True, False])
def test_recordings_that_count_differently_are_refused(highest, full, bytes_first):
    scale, values = IntensityScale(), np.linspace(0, highest, 100)
    kinds = [('u1', np.full(10, 40)), ('<f4', values)]
    first, last = kinds if bytes_first else kinds[::-1]
    full_brightness(first[0], first[1], scale=scale)
    if full is None:
        with pytest.raises(ValueError, match=f'bytes in some, up to {highest:g} in others'):
            full_brightness(last[0], last[1], scale=scale)
    else:
        assert full_brightness(last[0], last[1], scale=scale) == full


def test_single_mirrors_do_not_make_the_rest_black():
    values = np.full(2000, 400.0)
    values[0] = 60000.0
    assert full_brightness('<u2', values, values, values) == pytest.approx(400, rel=0.01)


def test_brightness_ends_up_between_0_and_1():
    points_N4 = np.array([[1, 2, 3, -5], [1, 2, 3, 51], [1, 2, 3, 400]], np.float32)
    scaled_N4 = scale_intensity(points_N4, 255.0)
    np.testing.assert_allclose(scaled_N4[:, 3], [0, 0.2, 1])
    np.testing.assert_array_equal(scaled_N4[:, :3], points_N4[:, :3])
    np.testing.assert_array_equal(points_N4[:, 3], [-5, 51, 400])
