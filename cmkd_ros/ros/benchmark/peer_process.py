"""A process of the measurement and the pipe to it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import Any

from cmkd_ros.errors import FailedError


class PeerProcess:
    """Runs a function in a fresh interpreter while the context is open."""

    def __init__(self, name: str, run: Callable[..., None], *arguments: Any) -> None:
        """Prepare.

        Args:
            name: for errors.
            run: a function of a module; called with the arguments and its end of the pipe.
            arguments: that can be pickled.
        """
        self._name = name
        spawn = multiprocessing.get_context('spawn')
        self._link, self._theirs = spawn.Pipe()
        self._process = spawn.Process(target=run, args=(*arguments, self._theirs), daemon=True)

    def __enter__(self) -> PeerProcess:
        self._process.start()
        self._theirs.close()  # else its end would not be seen here
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.terminate()
        self._process.join(10.0)
        if self._process.is_alive():
            self._process.kill()
        self._link.close()

    def has_spoken(self) -> bool:
        """Whether something waits to be heard."""
        return self._link.poll()

    def hear(self, timeout_s: float) -> Any:
        """What it sent next.

        Raises:
            FailedError: it ended without.
            TimeoutError: it said nothing.
        """
        if not self._link.poll(timeout_s):
            raise TimeoutError(f'the {self._name} process said nothing within {timeout_s:.0f} s')
        try:
            return self._link.recv()
        except (EOFError, ConnectionError):
            raise self._ended() from None

    def tell(self, what: Any) -> None:
        """Send something to it.

        Raises:
            FailedError: it ended before.
        """
        try:
            self._link.send(what)
        except ConnectionError:
            raise self._ended() from None

    def _ended(self) -> FailedError:
        self._process.join(10.0)
        code = self._process.exitcode
        return FailedError(
            f'the {self._name} process ended with exit code {code}; its log above says why'
        )
