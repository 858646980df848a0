"""One look at the node after the other, on the beat, and the samples that are told of them. What blocks does so on threads
of its own, so that a driver or a disk that hangs delays nothing but its own part of a look."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from forebay.clock import Clock
from forebay_gpu_agent.facts import Gpus, GpuState, Host, Reading, Sample
from forebay_gpu_agent.pace import Pace, Reason, Told, decide, telling

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = 0.9
"""The share of the interval for which a look waits for its parts."""

SILENT_DRIVER = Gpus(GpuState.FAILED, "The NVIDIA driver does not answer.")
NOT_READ = Gpus(GpuState.FAILED, "This agent fails at reading the GPUs; its log says more.")


@dataclass(frozen=True, slots=True)
class Look:
    """The node as it was seen, and what is to be told of it."""

    reading: Reading
    sample: Sample | None
    """None when nothing is told."""
    reason: Reason | None


class Sampler:
    def __init__(
        self,
        node: str,
        *,
        read_host: Callable[[], Host],
        read_gpus: Callable[[], Gpus],
        clock: Clock,
        pace: Pace,
    ) -> None:
        """`read_host` and `read_gpus` may block."""
        self._node = node
        self._host = Patient(read_host)
        self._gpus = Patient(read_gpus)
        self._clock = clock
        self._pace = pace
        self._started_at = clock.now()
        self._sequence = 0
        self._told: Told | None = None
        self._is_asked = asyncio.Event()
        self._failing: set[str] = set()

    def ask(self) -> None:
        """Look at once, and tell what is seen. From the loop."""
        self._is_asked.set()

    async def looks(self) -> AsyncIterator[Look]:
        """One at once and then one every `busy_s`, for ever. A beat that was missed is left out, not made up for."""
        started = due = self._clock.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due - self._clock.monotonic())):
                    await self._is_asked.wait()
            yield await self.look()
            due = next_beat(started, self._pace.busy_s, self._clock.monotonic())

    async def look(self) -> Look:
        is_asked = self._is_asked.is_set()
        self._is_asked.clear()
        at = self._clock.now()
        host, gpus = await asyncio.gather(
            self._ask("host", self._host.answer, None), self._ask("gpus", self._gpus.answer, NOT_READ)
        )
        reading = Reading(at, host, gpus or SILENT_DRIVER)
        told = telling(reading, self._clock.monotonic())
        reason = decide(self._told, told, self._pace, is_asked=is_asked)
        if reason is None:
            return Look(reading, None, None)
        self._told = told
        self._sequence += 1
        sample = Sample(
            node=self._node,
            sequence=self._sequence,
            agent_started_at=self._started_at,
            sampled_at=at,
            host=reading.host,
            gpus=reading.gpus,
            busy=told.is_busy,
            interval_s=self._pace.within_s(told.is_busy),
        )
        return Look(reading, sample, reason)

    async def _ask(self, what: str, answer: Callable[[float], Awaitable[T | None]], failed: T | None) -> T | None:
        """A mistake of ours, or a host like no other, must not keep the rest of the node from being told of."""
        try:
            answered = await answer(PATIENCE * self._pace.busy_s)
        except Exception:
            if what not in self._failing:
                log.exception("a part of the node cannot be read", extra={"action": "internal", "what": what})
            self._failing.add(what)
            return failed
        self._failing.discard(what)
        return answered


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
