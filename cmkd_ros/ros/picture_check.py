"""Notices pictures that no network can see anything in: black, over-exposed, or always the same.

A camera with its cap on, a driver that repeats its last buffer or an exposure that ran away gives
messages that are perfectly well-formed, and empty arrays. Letters: H, W image rows, columns.
"""

from __future__ import annotations

import numpy as np

STRIDE_PX = 16  # every 16th pixel either way: 0.1 ms at 1920x1080
BLACK_LEVEL = 8  # of 255; sensor noise and a colour conversion leave a few levels
WHITE_LEVEL = 250
WHITE_SHARE = 0.6
FROZEN_AFTER = 10  # equal pictures in a row; a real sensor's noise makes even two unlikely


class PictureCheck:
    """Judges the stream of pictures, one after the other; keeps the last one's samples."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._equal = 0

    def doubt(self, image_HW3: np.ndarray) -> str:
        """Look at the next picture.

        Args:
            image_HW3: uint8 RGB.

        Returns:
            One sentence about what is wrong, empty when nothing is.
        """
        samples = image_HW3[STRIDE_PX // 2 :: STRIDE_PX, STRIDE_PX // 2 :: STRIDE_PX]
        if not samples.size:
            samples = image_HW3
        content = samples.tobytes()
        self._equal = self._equal + 1 if content == self._last else 0
        self._last = content
        if samples.max() < BLACK_LEVEL:
            return 'the image is black: is the lens covered, or the exposure too short?'
        white = float((samples.min(axis=2) >= WHITE_LEVEL).mean())
        if white >= WHITE_SHARE:
            return f'the image is over-exposed: {white:.0%} of it is white'
        if self._equal >= FROZEN_AFTER:
            return f'the image is frozen: the last {self._equal + 1} are equal but for their stamps'
        return ''
