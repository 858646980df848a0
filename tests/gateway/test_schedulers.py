"""Several schedulers: standbys, leaders that fall silent or are out of date, and the time when none leads. Real gRPC."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from forebay.wire.v1 import scheduler_pb2
from forebay_gateway.accounting import NOTHING_USED, Outcome
from tests.conftest import free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.doubles import SchedulerDouble
from tests.gateway.house import ask, eventually, open_house
from tests.gateway.line import make_ask, open_line, serving
from tests.gateway.sse_text import stream, text_of


async def test_a_standby_names_the_leader_and_the_session_goes_there_at_once() -> None:
    leader, far = SchedulerDouble({"b1": 1}), SchedulerDouble({"b1": 1}, leader="elsewhere:1")
    async with serving(leader) as at, serving(far) as far_at:
        standby = SchedulerDouble({"b1": 1}, leader=at)
        async with serving(standby) as standby_at, open_line(standby_at, far_at, at) as line:
            took = await eventually(lambda: line.session.is_connected)
            assert (standby.refused, far.refused, len(leader.hellos)) == (1, 0, 1)
            assert took < 10


async def test_when_the_leader_dies_the_standby_that_takes_over_is_found_at_once() -> None:
    new = SchedulerDouble({"b1": 2}, epoch=2, leader="nobody:1")
    dies_at = f"127.0.0.1:{free_port()}"
    async with serving(new) as new_at, open_line(dies_at, new_at) as line:
        async with serving(SchedulerDouble({"b1": 2}), dies_at):
            await eventually(lambda: line.session.is_connected)
            running = await line.places.ask(make_ask())
        await eventually(lambda: not line.session.is_connected)
        waiting = make_ask()
        asking = asyncio.create_task(line.places.ask(waiting))
        await asyncio.sleep(0.3)
        new.leader = None  # it has taken the lead
        took = await eventually(asking.done)
        assert took < 10
        (hello,) = new.hellos
        assert [held.request.ledger_id for held in hello.held] == [running.ledger_id]
        assert [queued.ledger_id for queued in hello.queued] == [waiting.ledger_id]
        assert hello.queued[0].age_ms >= 200


async def test_a_leader_that_drains_is_left_for_another() -> None:
    old, new = SchedulerDouble({"b1": 1}), SchedulerDouble({"b1": 1}, epoch=2)
    async with serving(old) as old_at, serving(new) as new_at, open_line(old_at, new_at) as line:
        await eventually(lambda: line.session.is_connected)
        old.leaves_next = True
        await eventually(lambda: new.hellos)
        await eventually(lambda: line.session.is_connected)


async def test_a_leader_that_falls_silent_is_left_and_one_that_never_answers_is_not_waited_for() -> None:
    old, new = SchedulerDouble({"b1": 1}), SchedulerDouble({"b1": 1}, epoch=2)
    async with serving(old) as old_at, serving(new) as new_at, open_line(old_at, new_at, local_after_s=0.3) as line:
        await eventually(lambda: line.session.is_connected)
        old.is_silent = True
        assert await eventually(lambda: new.hellos) < 10
        new.is_silent, old.is_silent = True, True
        await eventually(lambda: len(old.hellos) == 2)
        await eventually(lambda: len(new.hellos) == 2)


async def test_a_leader_that_speaks_and_does_not_hear_is_left() -> None:
    old, new = SchedulerDouble({"b1": 1}), SchedulerDouble({"b1": 1}, epoch=2)
    async with serving(old) as old_at, serving(new) as new_at, open_line(old_at, new_at, local_after_s=0.3) as line:
        await eventually(lambda: line.session.is_connected)
        old.is_deaf = True
        asking = asyncio.create_task(line.places.ask(make_ask()))
        assert await eventually(lambda: new.hellos) < 10
        assert (await asyncio.wait_for(asking, 30)).epoch.revision == 2


async def test_a_leader_that_cannot_renew_its_lead_is_left_for_its_successor_before_the_fence() -> None:
    old, new = SchedulerDouble({"b1": 1}), SchedulerDouble({"b1": 1}, epoch=2)
    async with serving(old) as old_at, serving(new) as new_at, open_line(old_at, new_at) as line:
        await eventually(lambda: line.session.is_connected)
        old.renewed_ago_ms = 44_000
        await line.places.ask(make_ask())
        assert not new.hellos, "half of the fence has not passed"
        old.renewed_ago_ms = 46_000
        await eventually(lambda: new.hellos)
        await eventually(lambda: line.session.is_connected)


async def test_a_leader_that_cannot_renew_its_lead_is_returned_to_where_nobody_else_leads() -> None:
    old = SchedulerDouble({"b1": 1})
    async with serving(old) as old_at:
        standby = SchedulerDouble({"b1": 1}, leader=old_at)
        async with serving(standby) as standby_at, open_line(old_at, standby_at) as line:
            await eventually(lambda: line.session.is_connected)
            old.renewed_ago_ms = 46_000
            await eventually(lambda: standby.refused == 1)
            await eventually(lambda: len(old.hellos) == 2)
            old.renewed_ago_ms = 60_000
            granted = await line.places.ask(make_ask())
            assert (granted.epoch.revision, standby.refused) == (1, 1), "the others are not asked at every heartbeat"


async def test_an_old_leaders_grants_are_handed_back_and_it_is_left() -> None:
    new, old = SchedulerDouble({"b1": 0}, epoch=5), SchedulerDouble({"b1": 1}, epoch=4)
    async with serving(new) as new_at, serving(old) as old_at, open_line(new_at, old_at) as line:
        await eventually(lambda: line.session.is_connected)
        waiting = make_ask()
        asking = asyncio.create_task(line.places.ask(waiting))
        await eventually(lambda: new.queue)
        new.leaves_next = True
        await eventually(lambda: old.settles)
        assert not asking.done()
        assert [(settle.ledger_id, settle.epoch.revision) for settle in old.settles] == [(waiting.ledger_id, 4)]
        new.leaves_next, new.slots = False, {"b1": 1}
        grant = await asyncio.wait_for(asking, 30)
        assert grant.epoch.revision == 5
        line.places.end(waiting.ledger_id, Outcome.FINISHED, NOTHING_USED)


async def test_a_busy_session_still_sends_a_heartbeat_each_time_and_credits_count_from_it() -> None:
    scheduler = SchedulerDouble({"b1": 1})
    async with serving(scheduler) as at, open_line(at) as line:
        await eventually(lambda: line.session.is_connected)
        scheduler.lend(1, "b1", 1)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            one = make_ask()
            await line.places.ask(one)
            line.places.end(one.ledger_id, Outcome.FINISHED, NOTHING_USED)
            await asyncio.sleep(0.001)
        assert scheduler.credit_starts, "it was lent in answer to a heartbeat"
        assert len({start.lease for start in scheduler.credit_starts}) == len(scheduler.credit_starts) <= 100
        await eventually(lambda: not scheduler.held)
        heartbeats = [frame for frame in scheduler.seen if frame.heartbeat]
        assert 4 <= len(heartbeats) <= 30
        await eventually(lambda: scheduler.credit_returns == [1])


# --- the whole gateway ----------------------------------------------------------------------------------------------


async def test_without_a_scheduler_the_gateway_goes_on_within_its_ceilings(tmp_path: Path) -> None:
    engine = FakeEngine(slots=2, pace=Pace(tokens_per_s=200, answer_tokens=20))
    async with open_house(tmp_path, engine, local_after_s=0.3) as house:
        await stream(house)
        await eventually(lambda: house.scheduler.ceiling_acks)
        await house.stop_server(house.scheduler)
        answers = await asyncio.gather(*(stream(house) for _ in range(6)))
        assert all("word19" in text_of(answer) for answer in answers)
        assert engine.slots.peak_width <= 2
        assert house.metric('forebay_gateway_starts_unasked_total{by="local"}') == 6
        assert house.metric("forebay_gateway_local") == 1
        new = SchedulerDouble({"b1": 2}, epoch=2)
        engine.pace = Pace(tokens_per_s=20, answer_tokens=40)
        running = asyncio.create_task(stream(house))
        await eventually(lambda: engine.slots.running == 1)
        await house.start_server(new)
        await eventually(lambda: new.hellos)
        (hello,) = new.hellos
        assert [(held.epoch.revision, held.epoch.term_us) for held in hello.held] == [(0, 0)]
        begun_alone = [settle for settle in hello.unconfirmed if not settle.epoch.revision]
        assert (
            len(begun_alone) == 6
        )  # the end of the first request may not have been confirmed either, before the first leader died
        assert {settle.request.user_id for settle in hello.unconfirmed} == {"u-1"}
        await running
        await eventually(
            lambda: house.metric("forebay_gateway_settles_unconfirmed") == len(hello.unconfirmed),
            lambda: f"{house.metric('forebay_gateway_settles_unconfirmed')} unconfirmed, told {len(hello.unconfirmed)}",
        )
        assert house.metric("forebay_gateway_local") == 0


async def test_a_lone_request_on_credit_is_answered_while_the_scheduler_says_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=4))) as house:
        await stream(house)
        house.scheduler.lend(1, "b1", 1, valid_ms=30_000)
        await eventually(lambda: house.metric("forebay_gateway_credit_slots") == 1)
        house.scheduler.is_silent = True
        async with house.post(ask()) as answer:
            assert answer.status == 200
            assert int(answer.headers["x-forebay-queue-ms"]) < 500
        await eventually(lambda: house.scheduler.credit_starts)
        await eventually(lambda: not house.scheduler.held)
        assert [submit.ledger_id for submit in house.scheduler.submits] != [
            start.request.ledger_id for start in house.scheduler.credit_starts
        ]


async def test_a_rates_standing_is_told_to_the_client(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=4))) as house:
        house.scheduler.rate = scheduler_pb2.RateStanding(
            limit_requests=60, remaining_requests=59, reset_requests_ms=1000, limit_tokens=0, reset_tokens_ms=360_000
        )
        async with house.post(ask()) as answer:
            assert answer.status == 200
            told = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit")}
        assert told == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "0",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0s",
        }
        for reason, retry, should in (("quota_spent", None, "false"), ("concurrency_limited", "3", None)):
            house.scheduler.reject_with = scheduler_pb2.Reject(
                reason=reason, retry_after_ms=2500, standing=house.scheduler.rate
            )
            async with house.post(ask()) as answer:
                assert (answer.status, answer.headers["x-forebay-reason"]) == (429, reason)
                assert answer.headers["x-ratelimit-remaining-requests"] == "59"
                assert answer.headers.get("retry-after") == retry
                assert answer.headers.get("x-should-retry") == should
