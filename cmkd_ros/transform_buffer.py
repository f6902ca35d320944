"""A small reader of transforms: who is whose parent, and how one frame lies in another.

Stands in for tf2_ros, which no package index carries, and reads bags without a ROS graph.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from cmkd_ros.geometry import invert_se3, make_se3, quaternion_to_matrix

_KEPT = 1000  # moving transforms per child frame: 10 s at 100 Hz
_TIME_JUMP_NS = 2_000_000_000  # transforms of one frame arrive in order, but for network delays


class TransformBuffer:
    """Static and moving transforms of a tree of frames; may be filled and asked by two threads."""

    def __init__(self, keep_all: bool = False) -> None:
        """Start empty.

        Args:
            keep_all: for a bag that is read whole before anybody asks; else the last thousand of
                a frame are kept, and none once its time runs backwards.
        """
        self._keep_all = keep_all
        self._lock = threading.Lock()
        # child -> (parent, stamps in ascending order, T_parent_child of each); static: one stamp.
        self._tree: dict[str, tuple[str, list[int], list[np.ndarray]]] = {}

    def put(self, transforms: Iterable[Any], static: bool) -> None:
        """Store the `geometry_msgs/TransformStamped` of a TFMessage.

        Raises:
            ValueError: a transform that is not finite or has no rotation, or no frame names; says
                which and why. The others of the message are stored.
        """
        faults: list[str] = []
        for message in transforms:
            parent = message.header.frame_id.lstrip('/')
            child = message.child_frame_id.lstrip('/')
            if not parent or not child or parent == child:
                faults.append(f"transform from '{parent}' to '{child}': two names are needed")
                continue
            t, q = message.transform.translation, message.transform.rotation
            try:
                T_parent_child = make_se3(
                    quaternion_to_matrix([q.x, q.y, q.z, q.w]), np.array([t.x, t.y, t.z])
                )
            except ValueError as error:
                faults.append(f"transform from '{parent}' to '{child}': {error}")
                continue
            stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
            with self._lock:
                self._store(parent, child, 0 if static else stamp, T_parent_child, static)
        if faults:
            raise ValueError('; '.join(faults))

    def _store(
        self, parent: str, child: str, stamp_ns: int, T_parent_child: np.ndarray, static: bool
    ) -> None:
        known = self._tree.get(child)
        if static or known is None or known[0] != parent:
            self._tree[child] = (parent, [stamp_ns], [T_parent_child])
            return
        _, stamps, transforms = known
        jumped = stamp_ns < stamps[-1] - _TIME_JUMP_NS
        if not self._keep_all and (jumped or (len(stamps) == _KEPT and stamp_ns < stamps[0])):
            # Time ran backwards, as when a bag starts over: what is known belongs to the future.
            stamps.clear()
            transforms.clear()
        place = bisect.bisect_left(stamps, stamp_ns)
        if place < len(stamps) and stamps[place] == stamp_ns:
            transforms[place] = T_parent_child
        else:
            stamps.insert(place, stamp_ns)
            transforms.insert(place, T_parent_child)
            if not self._keep_all:
                del stamps[:-_KEPT], transforms[:-_KEPT]

    def frames(self) -> list[str]:
        """Return the names of all frames, sorted."""
        with self._lock:
            return sorted({*self._tree, *(parent for parent, _, _ in self._tree.values())})

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Return the transform that maps points of `source` to `target`.

        Args:
            target: frame of the result.
            source: frame of the points.
            stamp_ns: of moving transforms the one nearest in time is taken.

        Returns:
            T_target_source (4, 4) float64.

        Raises:
            LookupError: no chain connects the two; names the frames that are known.
        """
        target, source = target.lstrip('/'), source.lstrip('/')
        with self._lock:
            roots_target = self._to_root(target, stamp_ns)
            roots_source = self._to_root(source, stamp_ns)
        for ancestor, T_ancestor_target in roots_target.items():
            if ancestor in roots_source:
                return invert_se3(T_ancestor_target) @ roots_source[ancestor]
        raise LookupError(
            f"no transforms connect '{source}' and '{target}'; known frames: "
            f'{", ".join(self.frames()) or "none"}'
        )

    def _to_root(self, frame: str, stamp_ns: int) -> dict[str, np.ndarray]:
        """Every ancestor of `frame`, itself first, with T_ancestor_frame."""
        ancestors = {frame: np.eye(4)}
        while frame in self._tree:
            parent, stamps, transforms = self._tree[frame]
            if parent in ancestors:
                raise LookupError(f"the transforms of '{parent}' and '{frame}' form a loop")
            place = bisect.bisect_left(stamps, stamp_ns)
            nearest = min(
                range(max(0, place - 1), min(len(stamps), place + 1)),
                key=lambda i: abs(stamps[i] - stamp_ns),
            )
            ancestors[parent] = transforms[nearest] @ ancestors[frame]
            frame = parent
        return ancestors
