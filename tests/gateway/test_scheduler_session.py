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
from tests.gateway.line import make_ask, make_line


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
