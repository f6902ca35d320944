"""CameraModel from camera_info fields; resize, crop and undistortion that keep the camera true."""

import functools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.geometry import (
    CameraModel,
    Rectifier,
    crop_with_camera,
    resize_with_camera,
    undistort_with_camera,
)

WIDTH, HEIGHT = 320, 200
K_PX_33 = np.array([[180.0, 0, 152], [0, 190, 107], [0, 0, 1]])
P_PX_34 = np.array([[150.0, 0, 160, -30], [0, 155, 100, 0.5], [0, 0, 1, 0.003]])
R_33 = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
DISTORTIONS = {
    'plumb_bob': (-0.15, 0.03, 0.001, -0.002, -0.002),
    'rational_polynomial': (0.3, 0.05, 0.001, -0.0005, 0.01, 0.6, 0.1, 0.02),
    'equidistant': (-0.02, 0.01, -0.004, 0.001),
}
POINTS_K3 = np.random.default_rng(1).uniform([-3, -2, 4], [3, 2, 30], (50, 3))


def camera(model: str = 'plumb_bob', **changes) -> CameraModel:
    fields = {
        'width': WIDTH,
        'height': HEIGHT,
        'K_px_33': K_PX_33,
        'P_px_34': P_PX_34,
        'R_33': R_33,
        'D': DISTORTIONS.get(model, ()),
        'distortion_model': model,
    }
    return CameraModel(**(fields | changes))


def info(**changes) -> CameraModel:
    fields = {
        'width': WIDTH,
        'height': HEIGHT,
        'K9': K_PX_33.ravel(),
        'P12': P_PX_34.ravel(),
        'R9': R_33.ravel(),
        'D': DISTORTIONS['plumb_bob'],
        'distortion_model': 'plumb_bob',
    }
    return CameraModel.from_camera_info(**(fields | changes))


def project(P_px_34: np.ndarray, points_K3: np.ndarray) -> np.ndarray:
    pixels_K3 = points_K3 @ P_px_34[:, :3].T + P_px_34[:, 3]
    return pixels_K3[:, :2] / pixels_K3[:, 2:]


@functools.cache
def rays_of_raw_pixels(source: CameraModel) -> np.ndarray:
    """Directions (x / z, y / z) in the rectified frame of all raw pixels, (H, W, 2).

    Solved for by iterating on OpenCV's forward model, so that the maps are judged by another path.
    """
    v, u = np.mgrid[: source.height, : source.width]
    zero, D = np.zeros(3), np.array(source.D)
    wanted_K2 = np.stack([u, v], axis=-1).reshape(-1, 2) - source.K_px_33[:2, 2]
    wanted_K2 = wanted_K2 / np.diag(source.K_px_33)[:2]
    rays_K2 = wanted_K2.copy()
    project_points = cv2.projectPoints
    if source.distortion_model == 'equidistant':
        project_points = cv2.fisheye.projectPoints
    for _ in range(60):
        points_K13 = np.column_stack([rays_K2, np.ones(len(rays_K2))])[:, None]
        found, _ = project_points(points_K13, zero, zero, np.eye(3), D)
        rays_K2 += wanted_K2 - found.reshape(-1, 2)
    assert np.abs(wanted_K2 - found.reshape(-1, 2)).max() < 1e-5
    turned_K3 = np.column_stack([rays_K2, np.ones(len(rays_K2))]) @ source.R_33.T
    return (turned_K3[:, :2] / turned_K3[:, 2:]).reshape(source.height, source.width, 2)


def scene(rays: np.ndarray) -> np.ndarray:
    """A smooth picture of the world as a function of the viewing direction, float32 (H, W, 3)."""
    x, y = rays[..., 0], rays[..., 1]
    channels = [100 + 50 * np.sin(6 * x), 100 + 50 * np.cos(5 * y), 100 + 40 * np.sin(4 * (x + y))]
    return np.stack(channels, axis=-1).astype(np.float32)


def rays_of_rectified_pixels(target: CameraModel) -> np.ndarray:
    v, u = np.mgrid[: target.height, : target.width]
    P = target.P_px_34
    return np.stack([(u - P[0, 2]) / P[0, 0], (v - P[1, 2]) / P[1, 1]], axis=-1)


def test_from_projection():
    model = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
    assert np.array_equal(model.K_px_33, P_PX_34[:, :3])
    assert np.array_equal(model.projection_px_34, P_PX_34)
    assert np.array_equal(model.R_33, np.eye(3))
    assert model.D == ()
    assert model.is_rectified
    assert model.fx_px == 150


def test_identity_and_immutability():
    source = P_PX_34.copy()
    model = CameraModel.from_projection(source, WIDTH, HEIGHT)
    source[:] = 0
    same = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
    assert model == same
    assert {model.key(): 1}[same.key()] == 1
    assert len({model, same, camera()}) == 2
    other_P_px_34 = P_PX_34 + [[1e-9, 0, 0, 0], [0] * 4, [0] * 4]
    assert model != CameraModel.from_projection(other_P_px_34, WIDTH, HEIGHT)
    assert model != CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT + 1)
    assert model != 'camera'
    with pytest.raises(ValueError, match='read-only'):
        model.K_px_33[0, 0] = 1


def test_rectified_means_nothing_left_to_do():
    plain = {'K_px_33': P_PX_34[:, :3], 'R_33': np.eye(3)}
    assert camera('plumb_bob', **plain, D=(0.0,) * 5).is_rectified
    assert camera('', **plain).is_rectified
    assert not camera('plumb_bob', **plain).is_rectified
    assert not camera('', R_33=np.eye(3)).is_rectified  # other pixels than those of P
    assert not camera('', K_px_33=P_PX_34[:, :3]).is_rectified  # turned


@pytest.mark.parametrize('size', [(320, 200), (160, 100), (500, 210), (123, 77), (321, 50)])
def test_resized_camera_projects_where_the_pixels_go(size):
    for model in (camera('equidistant'), CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)):
        image, resized = resize_with_camera(np.zeros((HEIGHT, WIDTH, 3), np.uint8), model, size)
        assert image.shape == (size[1], size[0], 3)
        assert (resized.width, resized.height) == size
        before = project(model.P_px_34, POINTS_K3)
        factor = np.array(size) / [WIDTH, HEIGHT]
        np.testing.assert_allclose(
            project(resized.P_px_34, POINTS_K3), (before + 0.5) * factor - 0.5, atol=1e-10
        )
        assert resized.D == model.D
        assert resized.is_rectified == model.is_rectified


@pytest.mark.parametrize('size', [(160, 100), (80, 40), (640, 400), (480, 210)])
def test_resized_picture_shows_what_the_resized_camera_sees(size):
    model = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
    picture, resized = resize_with_camera(scene(rays_of_rectified_pixels(model)), model, size)
    expected = scene(rays_of_rectified_pixels(resized))
    # The border of an enlarged picture repeats its last pixels; the mean of a block is not its
    # middle where the picture is curved.
    np.testing.assert_allclose(picture[3:-3, 3:-3], expected[3:-3, 3:-3], atol=0.6)


@given(st.integers(0, 300), st.integers(0, 190), st.integers(1, 320), st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_crop(x, y, width, height):
    width, height = min(width, WIDTH - x), min(height, HEIGHT - y)
    image = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    view, cropped = crop_with_camera(image, camera(), (x, y, width, height))
    assert view.shape == (height, width) == (cropped.height, cropped.width)
    assert view[0, 0] == image[y, x]
    np.testing.assert_allclose(
        project(cropped.P_px_34, POINTS_K3), project(P_PX_34, POINTS_K3) - [x, y], atol=1e-9
    )
    np.testing.assert_allclose(cropped.K_px_33, K_PX_33 - [[0, 0, x], [0, 0, y], [0, 0, 0]])


@pytest.mark.parametrize('model', DISTORTIONS)
@pytest.mark.parametrize('out_size', [None, (160, 100), (400, 300), (90, 60)])
def test_rectified_picture_shows_what_the_rectified_camera_sees(model, out_size):
    source = camera(model)
    rectifier = Rectifier(source, out_size)
    picture, rectified = rectifier(scene(rays_of_raw_pixels(source)))
    assert rectified == rectifier.camera
    assert rectified.is_rectified
    assert (rectified.width, rectified.height) == (out_size or (WIDTH, HEIGHT))
    assert picture.shape == (rectified.height, rectified.width, 3)
    scale = np.array([rectified.width / WIDTH, rectified.height / HEIGHT])
    np.testing.assert_allclose(
        project(rectified.P_px_34, POINTS_K3),
        (project(P_PX_34, POINTS_K3) + 0.5) * scale - 0.5,
        atol=1e-9,
    )
    expected = scene(rays_of_rectified_pixels(rectified))
    rows, columns = rectified.height // 5, rectified.width // 5
    inner = (slice(rows, -rows), slice(columns, -columns))
    assert picture[inner].min() > 0
    np.testing.assert_allclose(picture[inner], expected[inner], atol=0.5)


@pytest.mark.parametrize('count', [0, 3, 5, 17])
def test_zeros_are_no_distortion_however_many(count):
    plain = camera(D=(0.0,) * 4)  # its R alone makes the picture raw
    assert not plain.is_rectified
    raw = scene(rays_of_raw_pixels(plain))
    picture, _ = Rectifier(camera(D=(0.0,) * count))(raw)
    assert np.array_equal(picture, Rectifier(plain)(raw)[0])


@pytest.mark.parametrize('model', DISTORTIONS)
def test_undistortion_moves_points_as_opencv_says(model):
    """A blob drawn at the distorted place of a 3D point is found where P projects the point."""
    source = camera(model, R_33=np.eye(3), P_px_34=np.column_stack([K_PX_33, np.zeros(3)]))
    zero = np.zeros(3)
    points_K13 = POINTS_K3[:12, None] * [0.6, 0.6, 1]
    if model == 'equidistant':
        raw, _ = cv2.fisheye.projectPoints(points_K13, zero, zero, K_PX_33, np.array(source.D))
    else:
        raw, _ = cv2.projectPoints(points_K13, zero, zero, K_PX_33, np.array(source.D))
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    for (u_raw, v_raw), point_13 in zip(raw.reshape(-1, 2), points_K13, strict=True):
        blob = np.exp(-((u - u_raw) ** 2 + (v - v_raw) ** 2) / (2 * 2.5**2)).astype(np.float32)
        picture, rectified = undistort_with_camera(blob, source)
        found = np.array([(u * picture).sum(), (v * picture).sum()]) / picture.sum()
        np.testing.assert_allclose(found, project(rectified.P_px_34, point_13)[0], atol=0.1)


def test_strong_shrink_does_not_alias():
    source = camera('plumb_bob')
    stripes = np.zeros((HEIGHT, WIDTH), np.uint8)
    stripes[:, ::2] = 200
    picture, _ = Rectifier(source, (WIDTH // 4, HEIGHT // 4))(stripes)
    middle = picture[10:-10, 15:-15].astype(float)
    assert abs(middle.mean() - 100) < 5
    assert middle.std() < 15


def test_rectifier_of_a_rectified_camera():
    model = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
    image = np.random.default_rng(2).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    same, same_camera = Rectifier(model)(image)
    assert same is image
    assert same_camera == model
    small, small_camera = Rectifier(model, (160, 100))(image)
    expected, expected_camera = resize_with_camera(image, model, (160, 100))
    assert np.array_equal(small, expected)
    assert small_camera == expected_camera


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('channels', [(), (3,), (4,)])
def test_rectifier_keeps_dtype_and_channels(dtype, channels):
    image = np.ones((HEIGHT, WIDTH, *channels), dtype)
    picture, _ = Rectifier(camera(), (100, 80))(image)
    assert picture.dtype == dtype
    assert picture.shape == (80, 100, *channels)


def test_camera_info_of_the_full_raw_image():
    model = info()
    assert model == camera('plumb_bob')
    assert not model.is_rectified


def test_camera_info_that_leaves_fields_out():
    assert np.array_equal(info(R9=np.zeros(9)).R_33, np.eye(3))
    only_k = info(P12=np.zeros(12), R9=np.zeros(9), D=(), distortion_model='')
    assert np.array_equal(only_k.P_px_34, np.column_stack([K_PX_33, np.zeros(3)]))
    assert only_k.is_rectified
    only_p = info(K9=np.zeros(9))
    assert only_p == CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)


def test_camera_info_of_a_rectified_image_is_described_by_p():
    expected = CameraModel.from_projection(P_PX_34, WIDTH, HEIGHT)
    assert info(rectified=True) == expected
    assert info(rectified=True, distortion_model='home-made') == expected
    only_k = info(rectified=True, P12=np.zeros(12))
    assert np.array_equal(only_k.P_px_34[:, :3], K_PX_33)
    assert info(rectified=False) == camera()


@pytest.mark.parametrize(
    ('roi', 'binning', 'size'),
    [
        ((0, 0, 0, 0, False), (0, 0), (320, 200)),
        ((0, 0, 320, 200, False), (1, 1), (320, 200)),
        ((40, 30, 200, 100, True), (0, 0), (200, 100)),
        ((0, 0, 0, 0, False), (2, 2), (160, 100)),
        ((40, 30, 200, 99, False), (2, 4), (100, 24)),
        ((0, 0, 0, 0, False), (3, 0), (106, 200)),
    ],
)
@pytest.mark.parametrize('rectified', [True, False])
def test_camera_info_window_and_binning(roi, binning, size, rectified):
    model = info(roi=roi, binning=binning, rectified=rectified)
    assert (model.width, model.height) == size
    factor = np.maximum(binning, 1)
    full = project(P_PX_34, POINTS_K3)
    expected = (full - roi[:2] + 0.5) / factor - 0.5
    np.testing.assert_allclose(project(model.P_px_34, POINTS_K3), expected, atol=1e-10)
    # As image_geometry has it but for the half pixel: fx / b, (cx - x) / b, Tx / b.
    np.testing.assert_allclose(model.P_px_34[0, 0], P_PX_34[0, 0] / factor[0])
    assert abs(model.P_px_34[0, 2] - (P_PX_34[0, 2] - roi[0]) / factor[0]) < 0.5
    np.testing.assert_allclose(model.P_px_34[0, 3], P_PX_34[0, 3] / factor[0], atol=1)
    if not rectified:
        assert DISTORTIONS['plumb_bob'] == model.D
        np.testing.assert_allclose(
            model.K_px_33[1, 2], (K_PX_33[1, 2] - roi[1] + 0.5) / factor[1] - 0.5
        )


def test_binned_window_of_a_raw_picture_rectifies_to_the_same_view():
    """Cut and bin a raw picture as a camera does; its camera_info must describe what came out."""
    full = scene(rays_of_raw_pixels(camera()))
    x, y, width, height = 40, 30, 240, 140
    binned = full[y : y + height, x : x + width].reshape(height // 2, 2, width // 2, 2, 3)
    binned = binned.mean(axis=(1, 3))
    model = info(roi=(x, y, width, height, True), binning=(2, 2))
    picture, rectified = undistort_with_camera(binned, model)
    expected = scene(rays_of_rectified_pixels(rectified))
    np.testing.assert_allclose(picture[15:-15, 25:-25], expected[15:-15, 25:-25], atol=0.5)


IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
NAN_9 = np.full(9, np.nan)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: info(K9=np.zeros(9), P12=np.zeros(12)), 'K and P are both zero'),
        (lambda: info(K9=np.zeros(9), rectified=False), 'K is zero: a raw image needs K'),
        (lambda: info(K9=NAN_9), 'finite numbers in K'),
        (lambda: info(P12=np.full(12, np.inf)), 'finite numbers in P'),
        (lambda: info(R9=NAN_9), 'finite numbers in R'),
        (lambda: info(R9=np.ones(9)), 'R is not a rotation'),
        (lambda: info(R9=-np.eye(3).ravel()), 'R is not a rotation'),
        (lambda: info(K9=np.ones(8)), r'expected K of shape \(9,\), found \(8,\)'),
        (lambda: info(K9=-K_PX_33.ravel()), r'positive focal lengths in K, found -180, -190'),
        (lambda: info(P12=np.eye(3, 4).ravel() * [0] + 1), 'expected P as fx 0 cx'),
        (lambda: info(K9=(K_PX_33 + np.eye(3, k=1)).ravel()), 'expected K as fx 0 cx'),
        (lambda: info(width=0), 'width, height > 0, found 0 x 200'),
        (lambda: info(D=(0.1, np.nan, 0, 0, 0)), 'finite distortion coefficients'),
        (lambda: info(D=(0.1, 0, 0)), 'plumb_bob takes 4 or 5 coefficients, found 3'),
        (lambda: info(distortion_model='equidistant'), 'equidistant takes 4 coefficients, found 5'),
        (lambda: info(distortion_model='thin'), "'thin' is not known; known: plumb_bob"),
        (lambda: info(roi=(300, 0, 30, 200, False)), r'\(300, 0, 30, 200\) is no window'),
        (lambda: info(roi=(-1, 0, 30, 200, False)), 'is no window of the sensor of 320 x 200'),
        (lambda: info(roi=(10, 10, 0, 0, False)), 'is no window'),
        (lambda: info(binning=(-1, 1)), r'found \(-1, 1\)'),
        (lambda: info(binning=(1, 500)), r'found \(1, 500\)'),
        (lambda: camera(height=0), 'positive image size, found 320 x 0'),
        (lambda: CameraModel.from_projection(np.eye(3), 10, 10), r'P of shape \(3, 4\)'),
        (lambda: resize_with_camera(IMAGE[1:], camera(), (10, 10)), 'expected the 320 x 200'),
        (lambda: resize_with_camera(IMAGE, camera(), (10, 0)), r'found \(10, 0\)'),
        (lambda: crop_with_camera(IMAGE[:, 1:], camera(), (0, 0, 9, 9)), r'\(200, 319, 3\)'),
        (lambda: crop_with_camera(IMAGE, camera(), (0, 0, 321, 9)), '321, 9.* leaves the image'),
        (lambda: crop_with_camera(IMAGE, camera(), (5, 5, 0, 9)), 'leaves the image'),
        (lambda: crop_with_camera(IMAGE, camera(), (5, -1, 9, 9)), 'leaves the image'),
        (lambda: undistort_with_camera(IMAGE[None], camera()), r'\(1, 200, 320, 3\)'),
        (lambda: Rectifier(camera(), (0, 10)), r'found \(0, 10\)'),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
