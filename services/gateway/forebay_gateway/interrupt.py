"""Ends what a task is waiting for with an error of our choosing: a revoked key, a lost backend, a deadline, a drain.

The same dance as `asyncio.timeout`: cancel, then turn that one cancellation into the error. A cancellation from elsewhere
(the client went) passes untouched."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Interruptible:
    """Around the waits of one task: `with interruptible: …` raises the error given to `interrupt`."""

    _task: asyncio.Task[object] | None = None
    _cancelling = 0
    _error: Exception | None = None
    outer: Interruptible | None = None
    """Within which this one is, always."""

    def interrupt(self, error: Exception) -> None:
        """The first error counts. Nothing happens when the waits are over."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def __enter__(self) -> Interruptible:
        outer = self.outer
        task = self._task = asyncio.current_task() if outer is None else outer._task
        assert task is not None
        self._cancelling = task.cancelling()
        self._error = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        if self._error is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error from error
