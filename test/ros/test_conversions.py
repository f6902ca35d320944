"""Camera messages: every encoding against known colours, and every way to be wrong."""

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmkd_ros.camera_info import camera_from_info, check_size
from cmkd_ros.image_pixels import ENCODINGS, decode_compressed, decode_image
from cmkd_ros.ros.conversions import image_to_rgb, info_key

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (6, 8, 3), dtype=np.uint8)
ALPHA = np.full((6, 8, 1), 9, np.uint8)
GREY = RNG.integers(0, 255, (6, 8), dtype=np.uint8)
GREY_RGB = np.repeat(GREY[..., None], 3, axis=2)
GREY16 = GREY.astype(np.uint16) << 8 | 0x33

EXACT = {
    'rgb8': (RGB, RGB),
    'bgr8': (RGB[..., ::-1], RGB),
    '8UC3': (RGB[..., ::-1], RGB),
    'rgba8': (np.concatenate([RGB, ALPHA], axis=2), RGB),
    'bgra8': (np.concatenate([RGB[..., ::-1], ALPHA], axis=2), RGB),
    '8UC4': (np.concatenate([RGB[..., ::-1], ALPHA], axis=2), RGB),
    'mono8': (GREY, GREY_RGB),
    '8UC1': (GREY, GREY_RGB),
    'mono16': (GREY16, GREY_RGB),
    '16UC1': (GREY16, GREY_RGB),
}


def mosaic(name: str, colour: tuple[int, int, int], height=8, width=10) -> np.ndarray:
    """What a sensor of pattern `name` (the first two pixels of the first two rows) sees."""
    pattern = [colour['rgb'.index(letter)] for letter in name[len('bayer_') : -1]]
    tile = np.array(pattern, np.uint8).reshape(2, 2)
    return np.tile(tile, (height // 2, width // 2))


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('name', EXACT)
def test_pixels_arrive_unchanged_with_and_without_padded_rows(name, padding, messages):
    pixels, expected = EXACT[name]
    message = messages.image(pixels, encoding=name, padding=padding)
    np.testing.assert_array_equal(image_to_rgb(message), expected)


def test_sixteen_bits_of_either_byte_order(messages):
    message = messages.image(GREY16.byteswap(), encoding='mono16', padding=2)
    message.is_bigendian = 1
    np.testing.assert_array_equal(image_to_rgb(message), GREY_RGB)


@pytest.mark.parametrize('name', [name for name in ENCODINGS if name.startswith('bayer')])
def test_bayer_patterns_are_not_swapped(name, messages):
    message = messages.image(mosaic(name, (200, 100, 30)), encoding=name)
    seen = image_to_rgb(message)[2:-2, 2:-2].reshape(-1, 3)
    np.testing.assert_array_equal(seen, np.tile([200, 100, 30], (len(seen), 1)))


@pytest.mark.parametrize(
    ('names', 'order'), [(('yuv422', 'uyvy'), 'uyvy'), (('yuv422_yuy2', 'yuyv'), 'yuyv')]
)
def test_yuv_is_decoded_in_its_byte_order(names, order, messages):
    """A red area: luma 81, u 90, v 240 (BT.601, studio swing)."""
    value = {'y': 81, 'u': 90, 'v': 240}
    pixels = np.tile(np.array([value[c] for c in order], np.uint8).reshape(1, 2, 2), (4, 3, 1))
    for name in names:
        seen = image_to_rgb(messages.image(pixels, encoding=name)).astype(int)
        assert seen.shape == (4, 6, 3)
        assert np.abs(seen - [254, 0, 0]).max() <= 2


def test_every_encoding_is_covered_here():
    others = [name for name in ENCODINGS if name.startswith(('bayer', 'yuv'))]
    assert set(ENCODINGS) == {*EXACT, *others, 'uyvy', 'yuyv'}


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', '8UC3'])
@pytest.mark.parametrize('padding', [0, 5])
def test_three_channels_are_a_view_of_the_message(messages, encoding, padding):
    message = messages.image(RGB, encoding=encoding, padding=padding)
    found = image_to_rgb(message)
    assert np.shares_memory(found, np.frombuffer(message.data, np.uint8))
    if encoding != 'rgb8':
        np.testing.assert_array_equal(found, RGB[..., ::-1])
        apart = decode_image(message)  # for those who do not take such a view
        np.testing.assert_array_equal(apart, RGB[..., ::-1])
        assert apart.flags.c_contiguous


def test_assume_encoding_overrules_the_claim(messages):
    message = messages.image(RGB, encoding='8UC3')
    np.testing.assert_array_equal(image_to_rgb(message, 'rgb8'), RGB)


def image(**changes) -> Image:
    message = Image(height=4, width=4, encoding='rgb8', step=12, data=bytes(48))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (image(encoding='jpeg'), "encoding 'jpeg'(: cv_bridge| is not supported; supported: rgb8)"),
        (image(encoding=''), "encoding ''(: cv_bridge| is not supported)"),
        (image(data=bytes(47)), r'holds 47 bytes, expected height \* step = 4 \* 12 = 48'),
        (image(data=b''), 'holds 0 bytes'),
        (image(step=11), 'step is 11 bytes, but a row of 4 pixels rgb8 has 12'),
        (image(height=0, data=b''), 'empty: 4x0'),
        (image(width=0), 'empty: 0x4'),
        (image(width=2**32 - 1), 'step is 12 bytes'),
        (image(height=2**32 - 1, step=2**32 - 1), 'holds 48 bytes'),
        (image(encoding='yuyv', width=5, step=12), '5 pixels wide, but yuyv holds pairs'),
        (image(encoding='bayer_rggb8', width=2, step=12), 'too small for bayer_rggb8'),
    ],
)
def test_wrong_images_are_refused_in_one_sentence(message, words):
    with pytest.raises(ValueError, match=words) as caught:
        image_to_rgb(message)
    assert '\n' not in str(caught.value)


def has_cv_bridge() -> bool:
    try:
        import cv_bridge  # noqa: F401
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.skipif(has_cv_bridge(), reason='cv_bridge is installed, so that it is not missed')
def test_an_encoding_for_cv_bridge_names_the_package_where_it_is_missing():
    with pytest.raises(ValueError, match="'bgr16' is not .* package cv_bridge knows.*No mod"):
        image_to_rgb(image(encoding='bgr16'))


@pytest.mark.skipif(not has_cv_bridge(), reason='needs cv_bridge, which only ROS brings')
def test_rarer_encodings_go_through_cv_bridge(messages):
    wide = RGB[..., ::-1].astype(np.uint16) * 256
    np.testing.assert_allclose(image_to_rgb(messages.image(wide, encoding='bgr16')), RGB, atol=1)


def compressed(suffix: str) -> bytes:
    return cv2.imencode(suffix, RGB[..., ::-1])[1].tobytes()


def test_compressed_png_is_exact_and_jpeg_has_the_right_colours():
    seen = decode_compressed(CompressedImage(format='png', data=compressed('.png')))
    np.testing.assert_array_equal(seen, RGB)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 2] = 255
    jpeg = cv2.imencode('.jpg', red)[1].tobytes()
    seen = decode_compressed(CompressedImage(format='rgb8; jpeg compressed bgr8', data=jpeg))
    assert np.abs(seen.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize('data', [b'', b'no picture', compressed('.png')[:20]])
def test_compressed_rubbish_is_refused(data):
    with pytest.raises(ValueError, match=f"{len(data)} bytes, format 'jpeg', cannot be decoded"):
        decode_compressed(CompressedImage(format='jpeg', data=data))


def test_camera_info_becomes_a_camera(messages, small_P_px_34):
    camera = camera_from_info(messages.info())
    assert (camera.width, camera.height) == (320, 96)
    np.testing.assert_array_equal(camera.projection_px_34, small_P_px_34)
    assert camera.is_rectified


def test_distortion_makes_it_raw_unless_the_pixels_are_said_to_be_rectified(messages):
    message = messages.info()
    message.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    assert not camera_from_info(message).is_rectified
    assert not camera_from_info(message, 'false').is_rectified
    assert camera_from_info(message, 'true').is_rectified


def test_an_uncalibrated_camera_is_refused_by_name():
    message = CameraInfo(width=4, height=4)
    message.header.frame_id = 'left'
    with pytest.raises(ValueError, match="frame 'left': .*K and P are both zero"):
        camera_from_info(message)


def test_a_calibration_for_another_size_is_refused(messages):
    camera = camera_from_info(messages.info(size=(640, 192)))
    with pytest.raises(ValueError, match='8x6 pixels, but camera_info describes 640x192'):
        check_size(RGB, camera)


def test_the_cache_key_sees_every_change_but_the_stamp(messages):
    def changed(**values):
        message = messages.info()
        for name, value in values.items():
            setattr(message, name, value)
        return info_key(message)

    keys = [
        info_key(messages.info()),
        changed(width=1),
        changed(height=1),
        changed(d=[0.1, 0.0, 0.0, 0.0, 0.0]),
        changed(k=[1.0] * 9),
        changed(p=[1.0] * 12),
        changed(r=[1.0] * 9),
        changed(binning_x=2),
        changed(distortion_model='equidistant'),
    ]
    assert len(set(keys)) == len(keys)
    assert info_key(messages.info(stamp_ns=5)) == keys[0]
