"""How attempts end is told to the registry, in small reports; and an answer on a backend that is emptied by force ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

from forebay.clock import ManualClock
from forebay.memory_bus import MemoryBus
from forebay.wire.v1 import lifecycle_pb2, registry_pb2, scheduler_pb2
from forebay_gateway.attempt_news import AttemptNews, How
from forebay_gateway.fleet import Backend, Fleet, ModelOnBackend
from forebay_gateway.fleet_watch import _backend
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import House, ask, eventually, open_house
from tests.gateway.sse_text import stream, text_of
from tests.leaping_time import in_leaping_time

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)


@in_leaping_time
async def test_a_first_failure_is_told_at_once_and_what_follows_with_the_next_report() -> None:
    clock = ManualClock(5.0)
    bus = MemoryBus(clock.now)
    news = AttemptNews(bus, "gw-1", clock)
    running = asyncio.create_task(news.run())
    async with bus.subscribe("forebay.events.attempts.*") as messages:
        await asyncio.sleep(0)
        news.note("b1", How.SERVED)
        news.note("b1", How.REFUSED)
        async with asyncio.timeout(0.9):  # sooner than the usual second
            first = await anext(messages)
        news.note("b1", How.BROKEN)
        news.note("b2", How.SERVED)
        news.note("b2", How.SERVED)
        async with asyncio.timeout(30):
            second = await anext(messages)
    running.cancel()
    assert first.subject == "forebay.events.attempts.gw-1"
    told = [lifecycle_pb2.AttemptsReport.FromString(message.payload) for message in (first, second)]
    assert [(report.gateway, report.sequence, report.started_us) for report in told] == [
        ("gw-1", 1, 5_000_000),
        ("gw-1", 2, 5_000_000),
    ]
    assert [(b.backend_id, b.served, b.refused, b.broken) for b in told[0].backends] == [("b1", 1, 1, 0)]
    assert [(b.backend_id, b.served, b.refused, b.broken) for b in told[1].backends] == [
        ("b1", 0, 0, 1),
        ("b2", 2, 0, 0),
    ]


async def test_what_engines_do_is_told_by_how_it_went(tmp_path: Path) -> None:
    broken, failing, gone = FakeEngine(pace=QUICK), FakeEngine(pace=QUICK), FakeEngine(pace=QUICK)
    broken.faults.add(Fault(FaultKind.CLOSE_BEFORE_HEADERS, reset=True, times=None))
    failing.faults.add(Fault(FaultKind.STATUS, status=500, times=None))
    async with open_house(tmp_path, broken, failing, gone, FakeEngine(pace=QUICK)) as house:
        await house.put("b3", "http://127.0.0.1:9")  # the discard port, where nobody listens
        async with house.bus.subscribe("forebay.events.attempts.gateway-1") as messages:
            assert "word3" in text_of(await stream(house))
            counts: dict[str, dict[str, int]] = {}
            async with asyncio.timeout(10):
                while len(counts) < 4:
                    report = lifecycle_pb2.AttemptsReport.FromString((await anext(messages)).payload)
                    for one in report.backends:
                        told = counts.setdefault(one.backend_id, {})
                        for how in How:
                            if getattr(one, how):
                                told[how] = told.get(how, 0) + getattr(one, how)
    assert counts == {"b1": {"broken": 1}, "b2": {"failed": 1}, "b3": {"refused": 1}, "b4": {"served": 1}}


async def test_an_answer_on_a_backend_that_is_emptied_by_force_ends_with_an_error_and_others_move(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, answer_tokens=400))
    async with open_house(tmp_path, engine, FakeEngine(pace=QUICK)) as house:
        streaming = asyncio.create_task(stream(house, max_tokens=400, ignore_eos=True))
        await eventually(lambda: house.scheduler.first_tokens)
        (ledger_id,) = house.scheduler.held
        house.scheduler.revokes.append(scheduler_pb2.Revoke(ledger_id=ledger_id, reason="draining", force=True))
        told = await asyncio.wait_for(streaming, 30)
        assert told[-1]["error"]["code"] == "draining"
        await eventually(lambda: engine.slots.running == 0 and not house.scheduler.held)
        engine.faults.add(Fault(FaultKind.SLOW_HEADERS, seconds=60))
        waiting = asyncio.create_task(status_of(house))
        await eventually(lambda: house.scheduler.held)
        (ledger_id,) = house.scheduler.held
        house.scheduler.revokes.append(scheduler_pb2.Revoke(ledger_id=ledger_id, reason="draining", force=True))
        assert await asyncio.wait_for(waiting, 30) == 200


async def status_of(house: House) -> int:
    async with house.post(ask()) as answer:
        await answer.read()
        status: int = answer.status
        return status


def test_each_state_says_whether_something_may_be_begun_and_what_is_silent_is_lost() -> None:
    fleet = Fleet()
    told = {}
    for name, number in registry_pb2.BackendHealth.items():
        backend = _backend(registry_pb2.Backend(id="b1", name="b1", url="http://x", enabled=True, health=number))
        fleet.replace_all([backend])
        told[name.removeprefix("BACKEND_HEALTH_").lower()] = fleet.may_begin("b1"), fleet.is_lost("b1")
    assert told == {
        "unspecified": (True, False),
        "unknown": (True, False),
        "starting": (False, False),
        "healthy": (True, False),
        "degraded": (True, False),
        "saturated": (True, False),
        "draining": (False, False),
        "drained": (False, True),
        "unhealthy": (False, True),
        "offline": (False, True),
    }
    assert not fleet.may_begin("gone")
    barred = Backend("b1", "b1", "http://x", is_barred=True, models={"m": ModelOnBackend("m")})
    fleet.replace_all([barred])
    assert (fleet.has("m", "default"), fleet.is_well("m", "default")) == (True, False)
