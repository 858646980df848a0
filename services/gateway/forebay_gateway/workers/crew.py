"""All workers of a gateway: started, started again when they die, told to end, and spoken for on the ops port."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace

from prometheus_client.core import Metric

from forebay.errors import CannotStart
from forebay.ops import STALLED_AFTER_S, Ops
from forebay_gateway.workers.crowd import Crowd
from forebay_gateway.workers.member import Member, start_member
from forebay_gateway.workers.orders import Orders
from forebay_gateway.workers.sums import Page, add_up, as_metrics, only_what_grows

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0
_PROVEN_S = 10.0
"""After running for so long a worker's death is no failure to start any more."""
_LOOK_S = 1.0
_ASK_S = 2.0
_SCRAPE_S = 3.0
_STARTING_S = 60.0


class Crew:
    def __init__(self, first: Orders, workers: int, crowd: Crowd, ops: Ops, stop_s: float) -> None:
        """`first`: the orders of the first one, and but for the number of all. `stop_s`: how long draining may take."""
        self._orders = [replace(first, number=number) for number in range(1, workers + 1)]
        self._crowd = crowd
        self._ops = ops
        self._stop_s = stop_s
        self._members: dict[int, Member] = {}
        self._passed: Page = {}
        """What the dead have counted."""
        self._stopping = asyncio.Event()
        self._came_up = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._burying = threading.Lock()
        self._restarts = ops.metrics.counter(
            "forebay_gateway_worker_restarts", "Workers that ended by themselves and were started again."
        ).child()
        ops.metrics.gauge("forebay_gateway_workers", "Workers that are ready.", (), lambda: [((), float(self.ready))])
        ops.metrics.gauge(
            "forebay_gateway_worker_connections",
            "Open connections of clients, by worker.",
            ("worker",),
            lambda: [((str(number),), float(count)) for number, count in crowd.counts().items()],
        )
        ops.metrics.add_source(self.metrics)
        ops.not_ready("workers", f"none of {workers} workers is ready")

    @property
    def ready(self) -> int:
        return sum(member.is_ready for member in self._members.values())

    def pid(self, number: int) -> int | None:
        """None: between two processes."""
        member = self._members.get(number)
        return None if member is None else member.process.pid

    async def come_up(self) -> None:
        """Until one of them has started well."""
        await self._came_up.wait()

    async def keep(self, number: int) -> None:
        """Worker `number`, until it is stopped. Raises CannotStart when it ends before any has come up."""
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            began = self._loop.time()
            member = await start_member(self._orders[number - 1])
            with self._burying:
                self._members[number] = member
            if self._stopping.is_set():
                member.send(signal.SIGTERM)
            reporting = asyncio.create_task(self._heed(member), name=f"worker {number}")
            try:
                status = await member.wait()
            finally:
                reporting.cancel()
            self._bury(member)
            if self._stopping.is_set():
                return
            if not self._came_up.is_set():
                raise CannotStart(
                    f"Worker {number} of the gateway ended at once (status {status}); its reason is above."
                )
            if self._loop.time() - began > _PROVEN_S:
                delay_s = FIRST_DELAY_S
            log.error(
                "worker ended, starting it again",
                extra={"action": "worker_ended", "worker": number, "status": status, "delay_s": delay_s},
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
            self._restarts.value += 1

    async def stop(self, keeping: Iterable[asyncio.Task[None]]) -> None:
        """They drain, all at once; who is too slow is ended. `keeping`: the tasks of `keep`."""
        self._stopping.set()
        for member in self._members.values():
            member.send(signal.SIGTERM)
        await asyncio.wait(keeping, timeout=self._stop_s)
        late = [member for member in self._members.values() if member.process.returncode is None]
        if late:
            log.error("workers that do not end are killed", extra={"action": "workers_killed", "workers": len(late)})
        for member in late:
            member.send(signal.SIGKILL)
            await member.process.wait()

    def metrics(self) -> Iterable[Metric]:
        """The sum of all. On the ops port's thread they are asked anew; on the loop's own there is no waiting for it."""
        if threading.get_ident() != self._thread and self._loop.is_running():
            asking: Future[None] = asyncio.run_coroutine_threadsafe(self._ask_all(), self._loop)
            try:
                asking.result(_SCRAPE_S)
            except TimeoutError:
                asking.cancel()
        with self._burying:
            return as_metrics(add_up([self._passed, *(member.page for member in self._members.values())]))

    async def _ask_all(self) -> None:
        await asyncio.gather(*(member.look(_ASK_S) for member in self._members.values()))

    def _bury(self, member: Member) -> None:
        with self._burying:  # so that no scrape finds its counts twice or not at all
            del self._members[member.number]
            self._passed = add_up([self._passed, only_what_grows(member.page)])
        self._crowd.leave(member.number)
        self._tell_readiness()

    async def _heed(self, member: Member) -> None:
        """What it tells of its readiness, and that it tells something at all."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    await member.news.wait()
                member.news.clear()
            except TimeoutError:
                silent_s = self._loop.time() - member.heard_at
                if silent_s > (STALLED_AFTER_S if member.has_come_up else _STARTING_S):
                    log.error(
                        "worker is stuck, ending it",
                        extra={"action": "worker_stuck", "worker": member.number, "silent_s": round(silent_s, 1)},
                    )
                    member.send(signal.SIGKILL)
                    return
            if member.has_come_up and not self._came_up.is_set():
                self._came_up.set()
            self._tell_readiness()

    def _tell_readiness(self) -> None:
        if self.ready:
            self._ops.ready("workers")
            return
        waiting = {what: why for member in self._members.values() for what, why in member.missing.items()}
        why = "; ".join(waiting.values()) or "none runs"
        self._ops.not_ready("workers", f"none of {len(self._orders)} workers is ready: {why}")
