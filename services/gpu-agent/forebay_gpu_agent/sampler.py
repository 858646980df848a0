"""One sample after the other, on the beat. What blocks does so on threads of its own, so that a driver or a disk that hangs
delays nothing but its own part of the sample."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from forebay.clock import Clock
from forebay_gpu_agent.facts import Gpus, GpuState, Host, Sample

T = TypeVar("T")

PATIENCE = 0.9
"""The share of the interval for which a sample waits for its parts."""

SILENT_DRIVER = Gpus(GpuState.FAILED, "The NVIDIA driver does not answer.")


class Sampler:
    def __init__(
        self,
        node: str,
        *,
        read_host: Callable[[], Host],
        read_gpus: Callable[[], Gpus],
        clock: Clock,
        interval_s: float,
    ) -> None:
        """`read_host` and `read_gpus` may block."""
        self._node = node
        self._host = Patient(read_host)
        self._gpus = Patient(read_gpus)
        self._clock = clock
        self._interval_s = interval_s
        self._started_at = clock.now()
        self._sequence = 0

    async def samples(self) -> AsyncIterator[Sample]:
        """A sample at once and then one every interval, for ever. A beat that was missed is left out, not made up for."""
        started = due = self._clock.monotonic()
        while True:
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))
            yield await self.take()
            due = next_beat(started, self._interval_s, self._clock.monotonic())

    async def take(self) -> Sample:
        sampled_at = self._clock.now()
        patience_s = PATIENCE * self._interval_s
        host, gpus = await asyncio.gather(self._host.answer(patience_s), self._gpus.answer(patience_s))
        self._sequence += 1
        return Sample(
            node=self._node,
            sequence=self._sequence,
            agent_started_at=self._started_at,
            sampled_at=sampled_at,
            host=host,
            gpus=gpus or SILENT_DRIVER,
        )


def next_beat(started: float, interval_s: float, now: float) -> float:
    """The first moment after `now` that lies a whole number of intervals after `started`: the beat does not drift."""
    return started + (math.floor((now - started) / interval_s) + 1) * interval_s


class Patient(Generic[T]):
    """Asks a question that may block, and never again while the answer is out: nothing piles up behind a driver that
    hangs."""

    def __init__(self, question: Callable[[], T]) -> None:
        self._question = question
        self._asked: asyncio.Future[T] | None = None

    async def answer(self, wait_s: float) -> T | None:
        """The answer, or None when it is not there within `wait_s`. Raises what the question raises."""
        if self._asked is None:
            self._asked = ask_on_a_thread(self._question)
        await asyncio.wait([self._asked], timeout=wait_s)
        if not self._asked.done():
            return None
        answered, self._asked = self._asked, None
        return answered.result()


def ask_on_a_thread(question: Callable[[], T]) -> asyncio.Future[T]:
    """Not asyncio.to_thread: its threads keep the process from ending, and a call into a dead driver never returns."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # None only where T allows it

    def ask() -> None:
        result, error = None, None
        try:
            result = question()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=ask, name="sample", daemon=True).start()
    return answer
