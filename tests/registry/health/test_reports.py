"""What is heard on the bus: a gateway's failure leads to a look at once, and a liar to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from forebay import subjects
from forebay.bus import Message
from forebay.memory_bus import MemoryBus
from forebay.wire.v1 import lifecycle_pb2, registry_pb2
from forebay_registry.backend import BackendId, Condition, Desired, EngineKind, Model, Observed, Seen
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Answered, Failed, Target
from forebay_registry.health.attempts import Fault
from forebay_registry.health.conditions import Rhythm
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.patrol import Beat, Patrol
from forebay_registry.health.reports import Reports
from tests.leaping_time import LoopClock, in_leaping_time

ONE = BackendId("be-1")
GPU = Desired(ONE, "gpu", "http://gpu", None, "default", 4, None, "ada", 0.0)
SELDOM = Beat(rhythm=Rhythm(60.0, 60.0, 60.0))
"""Nobody looks by himself while a test runs."""


class Place:
    """A patrol, a lifecycle and a bus, as the roster joins them."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.bus = MemoryBus(self.clock.now)
        self.lifecycle = Lifecycle(self.clock)
        self.answer: Answered | Failed = Answered(Seen(EngineKind.VLLM, 4, (Model("m"),)), None)
        self.looks: list[float] = []
        self.patrol = Patrol(self, self.clock, SELDOM)
        self.reports = Reports(self.bus, self.clock, self.lifecycle, self.patrol)
        self.condition = Condition.UNKNOWN
        self.sequence = 0

    async def look(self, target: Target, found: EngineKind | None = None) -> Answered | Failed:
        self.looks.append(self.clock.monotonic())
        return self.answer

    def observe(self, backend_id: BackendId, observed: Observed) -> None:
        self.condition = self.lifecycle.verdict(GPU, observed).condition

    async def tell(self, gateway: str = "gw-1", subject: str = "gw-1", **counts: int) -> None:
        self.sequence += 1
        report = lifecycle_pb2.AttemptsReport(
            gateway=gateway,
            started_us=1,
            sequence=self.sequence,
            backends=[lifecycle_pb2.BackendAttempts(backend_id=ONE, **counts)],
        )
        await self.bus.publish(subjects.attempts(subject), report.SerializeToString())


@asynccontextmanager
async def open_place() -> AsyncIterator[Place]:
    place = Place()
    place.patrol.watch(ONE, Target("http://gpu", None), Seen(), place.observe)
    async with asyncio.TaskGroup() as tasks:
        work = (place.patrol.run(), place.reports.hear_attempts(), place.reports.hear_draining(), place.reports.tell())
        running = [tasks.create_task(one) for one in work]
        yield place
        for task in running:
            task.cancel()


@in_leaping_time
async def test_a_dead_backend_is_looked_at_and_marked_at_the_first_failed_attempt(
    eventually: Callable[..., Any],
) -> None:
    async with open_place() as place, place.bus.subscribe("forebay.events.health.*") as events:
        await eventually(lambda: place.condition is Condition.HEALTHY)
        place.answer = Failed(Outcome.REFUSED, "Nothing listens at gpu.")
        await place.tell(refused=1)
        await eventually(lambda: place.condition is Condition.UNHEALTHY)
        assert len(place.looks) == 2
        told = [lifecycle_pb2.HealthChange.FromString((await anext(events)).payload) for _ in range(2)]
        assert [(c.backend, c.after, c.cause) for c in told] == [
            ("gpu", registry_pb2.BACKEND_HEALTH_HEALTHY, "answered"),
            ("gpu", registry_pb2.BACKEND_HEALTH_UNHEALTHY, "refused"),
        ]
        assert told[1].reason == "Nothing listens at gpu."


@in_leaping_time
async def test_a_gateway_that_lies_makes_it_degraded_and_no_storm_of_looks(eventually: Callable[..., Any]) -> None:
    async with open_place() as place:
        await eventually(lambda: place.condition is Condition.HEALTHY)
        for _ in range(50):
            await place.tell(refused=20)
        await eventually(lambda: place.condition is Condition.DEGRADED)
        began = place.clock.monotonic()
        while place.clock.monotonic() - began < 0.6:
            await place.tell(failed=20)
            await asyncio.sleep(0.01)
        assert place.condition is Condition.DEGRADED
        gaps = [after - before for before, after in zip(place.looks, place.looks[1:], strict=False)]
        assert min(gaps) > 0.2, "at most four looks a second"


@in_leaping_time
async def test_what_is_malformed_or_speaks_for_another_is_dropped_and_counted(eventually: Callable[..., Any]) -> None:
    async with open_place() as place:
        await eventually(lambda: place.looks)

        def fault(payload: bytes, subject: str = "forebay.events.attempts.gw-1") -> Fault | None:
            return place.reports.take_attempts(Message(subject, payload))

        good = lifecycle_pb2.AttemptsReport(gateway="gw-1", started_us=1, sequence=1)
        assert fault(b"\xff\xff") is Fault.MALFORMED
        assert fault(lifecycle_pb2.AttemptsReport(gateway="gw-1").SerializeToString()) is Fault.MALFORMED
        assert fault(good.SerializeToString(), "forebay.events.attempts.gw-2") is Fault.FOREIGN_SUBJECT
        assert fault(good.SerializeToString()) is None
        assert fault(good.SerializeToString()) is Fault.OUT_OF_ORDER
        await place.bus.publish(subjects.attempts("gw-1"), b"\xff\xff")
        await place.bus.publish(subjects.DRAINING, b"\xff\xff")
        good.backends.add(backend_id="be-unknown", refused=1)
        good.sequence = 2
        assert fault(good.SerializeToString()) is None, "of a backend that is not known nothing is kept"
        assert place.lifecycle.attempts.failing("be-unknown", 0.0) is None
