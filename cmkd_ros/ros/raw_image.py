"""`sensor_msgs/Image` read from its serialised form, so that no pixel is copied on the way.

rclpy would turn the bytes into a C structure and that into an array: 10 ms of a full-HD image, in
the thread that also answers services. The form is CDR as DDS carries it: four bytes that say the
byte order, then the fields in order, each aligned to its own size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header

_ENCAPSULATION = 4
_LONGEST_NAME = 4096  # frame_id and encoding; more is no name but damage


@dataclass(frozen=True)
class RawImage:
    """The fields of an Image by their own names; `data` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview

    def message(self) -> Image:
        """The same as an ordinary message, with a copy of the pixels."""
        return Image(
            header=self.header,
            height=self.height,
            width=self.width,
            encoding=self.encoding,
            is_bigendian=self.is_bigendian,
            step=self.step,
            data=bytes(self.data),
        )


def read_image(serialized: bytes) -> RawImage:
    """Read a serialised sensor_msgs/Image.

    Args:
        serialized: as a subscription with `raw=True` gets it; must outlive the result.

    Raises:
        ValueError: it is cut short, or not an Image.
    """
    reader = _Reader(serialized)
    stamp = Time(sec=reader.number('i'), nanosec=reader.number('I'))
    header = Header(stamp=stamp, frame_id=reader.text())
    height, width, encoding = reader.number('I'), reader.number('I'), reader.text()
    is_bigendian, step = reader.number('B'), reader.number('I')
    return RawImage(header, height, width, encoding, is_bigendian, step, reader.rest())


class _Reader:
    def __init__(self, serialized: bytes) -> None:
        if len(serialized) < _ENCAPSULATION or serialized[0] != 0 or serialized[1] > 1:
            raise ValueError(
                f'image message: expected plain CDR, found {len(serialized)} bytes that begin with '
                f'{serialized[:2].hex()}'
            )
        self._bytes = memoryview(serialized)
        self._order = '<' if serialized[1] == 1 else '>'
        self._at = _ENCAPSULATION

    def number(self, code: str) -> int:
        size = struct.calcsize(f'={code}')
        self._at += -(self._at - _ENCAPSULATION) % size
        self._expect(size)
        (value,) = struct.unpack_from(self._order + code, self._bytes, self._at)
        self._at += size
        return value

    def text(self) -> str:
        length = self.number('I')  # with the zero at its end
        if length > _LONGEST_NAME:
            raise ValueError(f'image message: a name of {length} bytes')
        self._expect(length)
        value = bytes(self._bytes[self._at : self._at + max(length - 1, 0)])
        self._at += length
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError(f'image message: {value[:40]!r} is no text in UTF-8') from None

    def rest(self) -> memoryview:
        length = self.number('I')
        self._expect(length)
        return self._bytes[self._at : self._at + length]

    def _expect(self, length: int) -> None:
        if self._at + length > len(self._bytes):
            raise ValueError(
                f'image message is cut short: expected {self._at + length} bytes, found '
                f'{len(self._bytes)}'
            )
