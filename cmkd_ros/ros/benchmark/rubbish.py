"""Random rubbish as from broken drivers: wrong sizes, encodings, numbers, stamps and frames."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from cmkd_ros.image_pixels import ENCODINGS
from cmkd_ros.ros.benchmark.camera import noise_image, plain_info, time_of

FRAMES = ('camera', 'left', '')
STRANGE_ENCODINGS = ('32FC1', 'jpeg', '', 'bayer_rggb16')
ODD_NUMBERS = (0.0, -1.0, 1e-300, 1e-3, 1.0, 1e300, float('nan'), float('inf'), -float('inf'), 1e9)


class Rubbish:
    """Makes pairs of messages around those of a small camera; reproducible by its seed."""

    def __init__(self, seed: int, width: int = 320, height: int = 96, fx_px: float = 190.0) -> None:
        """Take the camera that the good part of the messages comes from."""
        self._rng = np.random.default_rng(seed)
        self._size = (width, height)
        self._fx_px = fx_px
        self._good = noise_image(width, height, 'rgb8')

    def stamp_ns(self) -> int:
        """Some whole second of 68 years: time goes back and forth."""
        return int(self._rng.integers(0, 2**31)) * 10**9

    def image(self, stamp_ns: int) -> Image:
        """An image, in about one case of six without any fault in its shape."""
        rng = self._rng
        width, height = self._size
        encoding = str(rng.choice([*ENCODINGS, *STRANGE_ENCODINGS]))
        message = Image(height=height, width=width, encoding=encoding, step=self._good.step)
        message.data = self._good.data
        message.header.frame_id = str(rng.choice(FRAMES))
        message.header.stamp = time_of(stamp_ns)
        match rng.integers(0, 6):
            case 0:
                message.data = bytes(rng.integers(0, len(message.data) + 100))
            case 1:
                message.step = int(rng.integers(0, 2**32))
            case 2:
                message.width = int(rng.integers(0, 2**32))
            case 3:
                message.height = int(rng.choice([0, 1, 2, 2**31, 2**32 - 1]))
            case 4:
                message.is_bigendian = int(rng.integers(0, 256))
            case _:
                message.encoding = 'rgb8'
        return message

    def info(self, stamp_ns: int) -> CameraInfo:
        """A camera_info; about one in four is sound."""
        rng = self._rng
        message = plain_info(*self._size, self._fx_px)
        message.header.frame_id = str(rng.choice(FRAMES))
        message.header.stamp = time_of(stamp_ns)
        for name in ('k', 'p', 'r', 'd'):
            values = np.array(getattr(message, name))
            if rng.random() < 0.3:
                values[rng.integers(0, len(values))] = rng.choice(ODD_NUMBERS)
            elif rng.random() < 0.1:
                values[:] = 0.0
            setattr(message, name, values.tolist())
        if rng.random() < 0.2:
            message.d = rng.choice(ODD_NUMBERS, rng.integers(0, 20)).tolist()
            message.distortion_model = str(rng.choice(['', 'plumb_bob', 'equidistant', 'magic']))
        if rng.random() < 0.2:
            message.width, message.height = (int(v) for v in rng.choice([0, 1, 320, 2**32 - 1], 2))
        if rng.random() < 0.1:
            binning = rng.choice([0, 2, 2**32 - 1], 2)
            message.binning_x, message.binning_y = (int(v) for v in binning)
        if rng.random() < 0.1:
            message.roi.x_offset, message.roi.width = (int(v) for v in rng.integers(0, 2**32, 2))
        return message
