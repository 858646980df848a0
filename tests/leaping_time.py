"""Time that leaps: a loop on which a wait costs nothing and ends when it should, however busy the machine is. For tests of
what waits for timers only; a test that waits for sockets, processes or threads needs the real time."""

from __future__ import annotations

import asyncio
import functools
import inspect
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._leaps = _Leaps()
        super().__init__(self._leaps)

    def time(self) -> float:
        return self._leaps.now


class _Leaps(selectors.DefaultSelector):
    """Where nothing is ready, what would have been waited for has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("Everybody waits, and for no timer: in leaping time nothing else can come.")
        self.now += max(timeout, 0.0)
        return ready


class LoopClock:
    """A clock that goes as the running loop's time does."""

    def now(self) -> float:
        return 1_800_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def in_leaping_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Decorates a test that is a coroutine, and asks for no fixture that is one."""
    assert inspect.iscoroutinefunction(test)

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=LeapingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
