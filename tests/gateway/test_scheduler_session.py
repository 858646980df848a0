"""What the gateway says on its stream to the scheduler, when much happens in one moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from forebay.rpc import open_peer, open_server
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from forebay_gateway.accounting import NOTHING_USED, Outcome
from tests.gateway.doubles import TOKEN, authorize
from tests.gateway.house import eventually, open_house
from tests.gateway.line import MODEL, make_ask, make_line


class SchedulerThatSendsAway(scheduler_pb2_grpc.SchedulerServicer):
    """Another leads, or a later start of this gateway is known."""

    def __init__(self) -> None:
        self.sessions = 0

    async def Session(self, frames: Any, context: Any) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        self.sessions += 1
        yield scheduler_pb2.SchedulerFrame(seq=1, welcome=scheduler_pb2.Welcome(heartbeat_ms=50), draining=True)


async def test_a_scheduler_that_sends_it_away_is_not_asked_over_and_over() -> None:
    scheduler = SchedulerThatSendsAway()  # type: ignore[abstract]  # a gateway calls nothing else of it
    serving = open_server(
        "127.0.0.1:0",
        lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(scheduler, server),
        authorize,
        grace_s=0,
    )
    async with serving as address, open_peer(address, token=TOKEN) as peer:
        running = asyncio.create_task(make_line({address: peer}).session.run())
        await asyncio.sleep(1.5)
        running.cancel()
        await asyncio.wait([running])
    assert 2 <= scheduler.sessions <= 9


async def test_what_is_given_up_before_it_was_asked_is_never_asked(tmp_path: Path) -> None:
    """A scheduler reads a frame's cancels before its submits, so one frame with both would leave the request queued."""
    async with (
        open_house(tmp_path) as house,
        open_peer(house.settings.scheduler_address, token=TOKEN) as peer,
    ):
        house.scheduler.slots["b1"] = 0
        line = make_line({house.settings.scheduler_address: peer})
        session = line.places
        running = asyncio.create_task(line.session.run())
        await eventually(lambda: line.session.is_connected)
        given_up, kept = make_ask(), make_ask()
        asking = [asyncio.create_task(session.ask(ask)) for ask in (given_up, kept)]
        await asyncio.sleep(0)
        session.end(given_up.ledger_id, Outcome.CANCELLED, NOTHING_USED)
        await eventually(lambda: house.scheduler.submits)
        assert [submit.ledger_id for submit in house.scheduler.submits] == [kept.ledger_id]
        assert house.scheduler.cancels == []
        session.end(kept.ledger_id, Outcome.CANCELLED, NOTHING_USED)
        await eventually(lambda: house.scheduler.cancels == [kept.ledger_id])
        for task in (*asking, running):
            task.cancel()
        await asyncio.wait([*asking, running])


class SchedulerThatLends(scheduler_pb2_grpc.SchedulerServicer):
    """One slot on `b1`, and it remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[scheduler_pb2.GatewayFrame] = []

    async def Session(self, frames: Any, context: Any) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        async for frame in frames:
            self.heard.append(frame)
            answer = scheduler_pb2.SchedulerFrame(seq=len(self.heard), ack_seq=frame.seq)
            if len(self.heard) == 1:
                answer.welcome.heartbeat_ms = 60_000
                answer.ceilings.add(backend_id="b1", pool="default", slots=4, version=1)
                yield answer
            elif frame.heartbeat:
                answer.credits.add(
                    id=1,
                    backend_id="b1",
                    pool="default",
                    model=MODEL,
                    slots=1,
                    valid_ms=600_000,
                    heartbeat_seq=frame.seq,
                    first_lease=100,
                    leases=9,
                )
                yield answer


async def test_what_may_wait_is_said_soon_and_all_of_it_before_goodbye() -> None:
    scheduler = SchedulerThatLends()  # type: ignore[abstract]  # a gateway calls nothing else of it
    serving = open_server(
        "127.0.0.1:0",
        lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(scheduler, server),
        authorize,
        grace_s=0,
    )
    async with serving as address, open_peer(address, token=TOKEN) as peer:
        line = make_line({address: peer})
        line.places._allotments.note("k", is_limited=False)
        running = asyncio.create_task(line.session.run())
        await eventually(lambda: line.places.credit_slots)
        first, *others = [make_ask() for _ in range(4)]
        await line.places.ask(first)
        line.places.first_token(first.ledger_id, 5)
        await eventually(lambda: any(frame.first_tokens for frame in scheduler.heard))
        (frame,) = [frame for frame in scheduler.heard if frame.credit_starts]
        assert [one.ledger_id for one in frame.first_tokens] == [first.ledger_id], "they went together"
        line.places.end(first.ledger_id, Outcome.FINISHED, NOTHING_USED)
        for ask in others:
            await line.places.ask(ask)
            line.places.end(ask.ledger_id, Outcome.FINISHED, NOTHING_USED)
        await line.session.leave()
        await asyncio.wait([running])
    ids = [ask.ledger_id for ask in (first, *others)]
    started = [start.request.ledger_id for frame in scheduler.heard for start in frame.credit_starts]
    settled = [settle.ledger_id for frame in scheduler.heard for settle in frame.settles]
    assert (started, settled) == (ids, ids)
    assert [frame.bye for frame in scheduler.heard] == [False] * (len(scheduler.heard) - 1) + [True]
