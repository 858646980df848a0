"""What operators ask of a scheduler, and what one that stands by answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from forebay.clock import SystemClock
from forebay.errors import Unavailable
from forebay.rpc import open_peer
from forebay.wire.v1 import scheduler_pb2, scheduler_pb2_grpc
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.events import BusChanged

House = Any
Until = Callable[..., Awaitable[None]]
Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("leader", "said"),
    [("10.0.0.7:8093", "the one at 10.0.0.7:8093 leads"), ("", "it is not known yet which one leads")],
    ids=["known", "unknown"],
)
async def test_one_that_stands_by_refuses_and_says_who_leads(leader: str, said: str) -> None:
    doorway = Doorway(SystemClock(), lambda: leader)
    doorway.apply([BusChanged(is_away=True)])  # nobody to tell it to
    assert doorway.leading == []
    asked: list[Awaitable[Any]] = [
        doorway.ShowQueue(scheduler_pb2.ShowQueueRequest(), None),
        doorway.Explain(scheduler_pb2.ExplainRequest(request_id="x"), None),
        doorway.Drain(scheduler_pb2.DrainRequest(backend_id="gpu1"), None),
        doorway.Dump(scheduler_pb2.DumpRequest(), None),
    ]
    for one in asked:
        with pytest.raises(Unavailable, match=said):
            await one


async def _ask(address: str, method: str, request: Any) -> Any:
    async with open_peer(address, token="token-of-admin") as peer:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
        return await getattr(stub, method)(request, metadata=peer.metadata, timeout=30)


async def test_an_operator_empties_a_backend_and_takes_it_back(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (running,) = await gateway.submit()
        await gateway.granted(running)
        drained = await _ask(address, "Drain", scheduler_pb2.DrainRequest(backend_id="gpu1"))
        assert (drained.running, drained.drained) == (1, False)
        (waiting,) = await gateway.submit()
        await gateway.say(settles=[gateway.settle_of(running)])
        await until(lambda: running in gateway.settled)
        assert waiting not in gateway.grants
        drained = await _ask(address, "Drain", scheduler_pb2.DrainRequest(backend_id="gpu1"))
        assert (drained.running, drained.drained) == (0, True)
        shown = await house.show(address)
        assert (shown.held[0].draining, shown.held[0].closed_because) == (True, "it is draining")
        assert shown.waiting[0].blocked_by
        await _ask(address, "Drain", scheduler_pb2.DrainRequest(backend_id="gpu1", undo=True))
        await gateway.granted(waiting)


async def test_a_backend_that_there_is_not_cannot_be_emptied(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address:
        with pytest.raises(grpc.aio.AioRpcError, match="There is no backend gpu9") as refused:
            await _ask(address, "Drain", scheduler_pb2.DrainRequest(backend_id="gpu9"))
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_request_is_explained_by_its_own_name_or_by_the_ledgers(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (asked,) = await gateway.submit(request_id="mine")
        await gateway.granted(asked)
        for request in (
            scheduler_pb2.ExplainRequest(request_id="mine"),
            scheduler_pb2.ExplainRequest(request_id=asked.hex()),
            scheduler_pb2.ExplainRequest(ledger_id=asked),
        ):
            (told,) = (await _ask(address, "Explain", request)).explanations
            assert (told.ledger_id, told.state, told.attempts[0].backend_id) == (asked, "running", "gpu1")
        with pytest.raises(grpc.aio.AioRpcError, match="Nothing is known here of request other") as unknown:
            await _ask(address, "Explain", scheduler_pb2.ExplainRequest(request_id="other"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_dump_has_the_queue_the_state_and_the_last_stories(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        asked, waiting = await gateway.submit(count=2)
        await gateway.granted(asked)
        dump = await _ask(address, "Dump", scheduler_pb2.DumpRequest())
    assert [(held.backend_id, held.held) for held in dump.queue.held] == [("gpu1", 1)]
    assert [(one.ledger_id, one.state) for one in dump.recent] == [(asked, "running"), (waiting, "waiting")]
    assert dump.state.stored_at_us > 0
