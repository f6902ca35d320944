"""The one thread that loads, warms up and runs the network.

torch keeps thread pools and caches per calling thread: a network warmed up in one thread is cold
in another. So everything that touches it is done here, and nothing else is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar('T')


class Worker:
    """Runs single jobs on request, and between them one step again and again."""

    def __init__(self, name: str) -> None:
        """Start the thread; debuggers and `top -H` show it by `name`."""
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._step: Callable[[], None] | None = None
        self._stopped = False
        # A daemon, so that a network stuck in native code cannot keep a stopped node alive.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread, after the step in progress, and return what it returns.

        Raises:
            RuntimeError: the worker was stopped.
            Exception: whatever `job` raises.
        """
        if self._stopped:
            raise RuntimeError('the worker was stopped')
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except Exception as error:  # noqa: BLE001  handed on to the caller
                future.set_exception(error)

        self._jobs.put(run)
        return future.result()

    def repeat(self, step: Callable[[], None]) -> None:
        """Run `step` again and again. It must wait a little by itself when there is nothing to do,
        and handle its own errors."""
        self.call(lambda: self._set_step(step))

    def pause(self) -> None:
        """Cease to repeat; returns after the step in progress."""
        if not self._stopped:
            self.call(lambda: self._set_step(None))

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after the step or job in progress.

        Returns:
            False when it is still busy after `timeout_s`.
        """
        self._stopped = True
        self._jobs.put(lambda: None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _set_step(self, step: Callable[[], None] | None) -> None:
        self._step = step

    def _run(self) -> None:
        while not self._stopped:
            if self._step is not None and self._jobs.empty():
                self._step()
            else:
                self._jobs.get()()
