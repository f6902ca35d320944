"""A slot for one item: the newest. The opposite of a queue, so that results are never late."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class LatestSlot(Generic[T]):
    """Hands the newest item from any thread to one consumer; an item not yet taken is replaced."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._woken = False

    def put(self, item: T) -> bool:
        """Store `item`.

        Returns:
            True when it replaced an item that nobody had taken, which is lost now.
        """
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify_all()
        return replaced

    def take(self, timeout_s: float) -> T | None:
        """Remove and return the item, waiting up to `timeout_s` for one; None when none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._woken, timeout_s)
            item, self._item, self._woken = self._item, None, False
        return item

    def wake(self) -> None:
        """End the wait of `take`, the present one or the next, as if its time were over."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()
