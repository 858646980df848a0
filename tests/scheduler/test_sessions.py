"""Gateways and the scheduler over a real gRPC channel: what one asks, what the other answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from forebay.rpc import open_peer
from forebay.wire.v1 import admin_pb2, registry_pb2, scheduler_pb2, scheduler_pb2_grpc, types_pb2

House = Any
"""`conftest.House`, which cannot be imported from there."""
Until = Callable[..., Awaitable[None]]
Make = Callable[..., Any]


async def test_a_session_begins_with_what_a_gateway_has_to_know(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        first = gateway.frames[0]
        assert (first.welcome.heartbeat_ms, first.welcome.fence_ms) == (100, 90_000)
        assert first.epoch.term_us > 0
        assert first.epoch.revision == 1
        assert first.HasField("renewed_ago_ms")
        assert first.seq == 1


async def test_a_request_is_granted_settled_and_confirmed_and_its_slot_serves_the_next(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        first, second = await gateway.submit(count=2)
        (grant,) = await gateway.granted(first)
        assert (grant.backend_id, grant.attempt, grant.width) == ("gpu1", 1, 1)
        assert grant.lease > 0
        assert second not in gateway.grants
        await gateway.say(settles=[gateway.settle_of(first)])
        await gateway.granted(second)
        await until(lambda: first in gateway.settled)


async def test_what_comes_in_one_frame_is_answered_in_one_frame(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1", slots=20), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        asked = await gateway.submit(count=20)
        await gateway.granted(*asked)
        assert [len(frame.grants) for frame in gateway.frames if frame.grants] == [20]


async def test_a_heartbeat_is_answered_with_the_frame_acted_upon(house: House, until: Until) -> None:
    async with house.scheduler() as address, house.gateway(address) as gateway:
        await gateway.say(heartbeat=True)
        await until(lambda: gateway.frames[-1].ack_seq == 2)
        assert [frame.seq for frame in gateway.frames] == list(range(1, len(gateway.frames) + 1))


async def test_two_gateways_never_hold_more_than_the_slots_and_all_are_served(
    house: House, make_backend: Make, make_submit: Make
) -> None:
    house.registry.tell(make_backend("gpu1", slots=4), make_backend("gpu2", slots=2), snapshot=True)
    caps, held, peak = {"gpu1": 4, "gpu2": 2}, Counter[str](), Counter[str]()

    async def run(gateway: Any, user: str) -> None:
        widths = {s.ledger_id: s for s in (make_submit(user, width=(1, 1, 2, 3)[n % 4]) for n in range(32))}
        await gateway.say(submits=widths.values())
        left, running = set(widths), dict[bytes, str]()
        while left or running:
            for ledger_id in [one for one in left if one in gateway.grants]:
                left.discard(ledger_id)
                running[ledger_id] = gateway.grants[ledger_id].backend_id
                held[running[ledger_id]] += widths[ledger_id].width
            for name in caps:
                peak[name] = max(peak[name], held[name])
            await asyncio.sleep(0.005)
            ended = list(running)[:2]
            for ledger_id in ended:
                held[running.pop(ledger_id)] -= widths[ledger_id].width
            if ended:
                await gateway.say(settles=[gateway.settle_of(ledger_id) for ledger_id in ended])

    async with house.scheduler() as address, house.gateway(address, "g1") as g1, house.gateway(address, "g2") as g2:
        await asyncio.wait_for(asyncio.gather(run(g1, "alice"), run(g2, "bob")), 20)
        assert not g1.rejects
        assert not g2.rejects
    assert peak == caps


async def test_a_cancelled_request_leaves_the_queue_and_a_cancelled_grant_its_slot(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        first, second, third = await gateway.submit(count=3)
        await gateway.granted(first)
        await gateway.say(cancels=[scheduler_pb2.Cancel(ledger_id=one) for one in (first, second)])
        await gateway.granted(third)
        assert second not in gateway.grants


async def test_a_nack_moves_a_request_to_another_backend(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), make_backend("gpu2"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (asked,) = await gateway.submit()
        (first,) = await gateway.granted(asked)
        assert first.backend_id == "gpu1"
        nack = scheduler_pb2.Nack(
            ledger_id=asked,
            lease=first.lease,
            backend_id="gpu1",
            nack_class=scheduler_pb2.NACK_CLASS_UNREACHABLE,
        )
        await gateway.say(nacks=[nack])
        await until(lambda: gateway.grants[asked].attempt == 2)
        assert gateway.grants[asked].backend_id == "gpu2"


async def test_a_request_too_wide_for_every_backend_is_told_so_at_once(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (asked,) = await gateway.submit(width=3)
        await until(lambda: asked in gateway.rejects)
        reject = gateway.rejects[asked]
        assert (reject.reason, reject.retry_after_ms) == ("width_too_large", 0)
        assert "3 slots" in reject.message


async def test_the_limits_of_admin_hold_and_the_refusal_says_when_to_return(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    limits = admin_pb2.UserPolicy(user_id="alice", weight_milli=1000, max_queued=1)
    house.admin.begin_with(limits)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        await until(lambda: "policy" not in house.ops.missing)
        asked = await gateway.submit(count=3)
        await until(lambda: asked[2] in gateway.rejects)
        reject = gateway.rejects[asked[2]]
        assert reject.reason == "queue_full"
        assert 1_000 <= reject.retry_after_ms <= 120_000


async def test_the_waiting_requests_of_a_removed_user_are_taken_back(
    house: House, make_backend: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        running, waiting = await gateway.submit(count=2)
        await gateway.granted(running)
        house.admin.tell(admin_pb2.PolicyUpdate(version=2, removed_user_ids=["alice"]))
        await until(lambda: gateway.revokes == {waiting: "key_revoked"})


async def test_a_gateway_that_returns_keeps_what_it_holds_and_its_place(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler() as address:
        async with house.gateway(address) as before:
            (running,) = await before.submit()
            await before.granted(running)
            waiting = make_submit(age_ms=5_000)
        async with house.gateway(address, held=[before.held(running)], queued=[waiting]) as after:
            shown = await house.show(address)
            assert [(h.backend_id, h.held, h.cap) for h in shown.held] == [("gpu1", 1, 1)]
            assert [(w.user_id, w.requests) for w in shown.waiting] == [("alice", 1)]
            assert shown.waiting[0].oldest_ms >= 5_000
            await after.say(settles=[before.settle_of(running)])
            (grant,) = await after.granted(waiting.ledger_id)
            assert grant.queue_ms >= 5_000
            await until(lambda: running in after.settled)


async def test_a_successor_ends_the_session_before_it_and_inherits_no_slots(
    house: House, make_backend: Make, until: Until
) -> None:
    load = registry_pb2.EngineLoad(running=1, measured_at_us=round(house.clock.now() * 1e6))
    house.registry.tell(make_backend("gpu1", load=load), snapshot=True)
    async with house.scheduler() as address, house.gateway(address, generation=1) as old:
        (running,) = await old.submit()
        await old.granted(running)
        async with house.gateway(address, generation=2) as new:
            await until(lambda: old.is_over)
            (waiting,) = await new.submit()
            await asyncio.sleep(0.2)
            assert waiting not in new.grants
            shown = await house.show(address)
            assert (shown.held[0].held, shown.held[0].quarantined) == (0, 1)
            # The engine itself says that it is done.
            load = registry_pb2.EngineLoad(running=0, measured_at_us=round(house.clock.now() * 1e6))
            house.registry.tell(make_backend("gpu1", load=load))
            await new.granted(waiting)


async def test_an_older_process_is_sent_away(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with (
        house.scheduler() as address,
        house.gateway(address, generation=2) as new,
        house.gateway(address, generation=1) as old,
    ):
        await until(lambda: old.is_over)
        (asked,) = await new.submit()
        await new.granted(asked)


async def test_a_frame_that_makes_no_sense_costs_only_its_own_session(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with (
        house.scheduler() as address,
        house.gateway(address, "good") as good,
        house.gateway(address, "bad") as bad,
    ):
        await bad.say(submits=[make_submit(), make_submit(ledger_id=b"short")])
        await until(lambda: bad.is_over)
        assert bad.error is not None
        assert bad.error.code() == grpc.StatusCode.INVALID_ARGUMENT
        (asked,) = await good.submit()
        await good.granted(asked)


async def test_a_stream_that_does_not_open_with_hello_is_refused(house: House, until: Until) -> None:
    async with house.scheduler() as address, open_peer(address, token="token-of-gateway") as peer:
        stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
        call = stub.Session(metadata=peer.metadata)
        await call.write(scheduler_pb2.GatewayFrame(seq=1, heartbeat=True))
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_without_the_right_credential_there_is_no_session_and_no_queue(house: House) -> None:
    async with house.scheduler() as address:
        for token, code in (
            ("nonsense", grpc.StatusCode.UNAUTHENTICATED),
            ("admin", grpc.StatusCode.PERMISSION_DENIED),
        ):
            async with house.gateway(address, token=token) as gateway:
                assert gateway.error is not None
                assert gateway.error.code() == code
        async with open_peer(address, token="token-of-gateway") as peer:
            stub: Any = scheduler_pb2_grpc.SchedulerStub(peer.channel)
            call = stub.ShowQueue(scheduler_pb2.ShowQueueRequest(), metadata=peer.metadata)
            assert await call.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_gateway_that_says_bye_gives_everything_back(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with (
        house.scheduler() as address,
        house.gateway(address, "g1") as leaving,
        house.gateway(address, "g2") as other,
    ):
        (running,) = await leaving.submit()
        await leaving.granted(running)
        (waiting,) = await other.submit("bob")
        await leaving.say(bye=True)
        await other.granted(waiting)
        shown = await house.show(address)
        assert [gateway.gateway for gateway in shown.gateways] == ["g2"]


async def test_a_drained_backend_gets_nothing_more(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), make_backend("gpu2", enabled=False), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        first, second = await gateway.submit(count=2)
        await gateway.granted(first)
        assert gateway.grants[first].backend_id == "gpu1"
        await asyncio.sleep(0.1)
        assert second not in gateway.grants
        house.registry.tell(make_backend("gpu2"))
        (grant,) = await gateway.granted(second)
        assert grant.backend_id == "gpu2"


async def test_bands_have_their_own_patience(house: House, make_backend: Make, until: Until) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    async with house.scheduler(queue_timeout_interactive_s=0.2) as address, house.gateway(address) as gateway:
        (running,) = await gateway.submit()
        await gateway.granted(running)
        (hasty,) = await gateway.submit("bob", band=types_pb2.BAND_INTERACTIVE)
        (patient,) = await gateway.submit("carol", band=types_pb2.BAND_BATCH)
        await until(lambda: hasty in gateway.rejects)
        assert gateway.rejects[hasty].reason == "queue_timeout"
        assert patient not in gateway.rejects


async def test_a_ceiling_is_told_before_the_first_grant_within_it(house: House, make_backend: Make) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (asked,) = await gateway.submit()
        await gateway.granted(asked)
        kinds = ["ceiling" if frame.ceilings else "grant" for frame in gateway.frames if frame.ceilings or frame.grants]
        assert kinds[0] == "ceiling"
        assert gateway.ceilings == {"gpu1": 2}


async def test_slots_are_lent_with_a_heartbeat_and_what_began_on_them_is_held(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1", slots=2), snapshot=True)
    async with house.scheduler() as address, house.gateway(address) as gateway:
        (first,) = await gateway.submit()
        await gateway.granted(first)
        await gateway.say(settles=[gateway.settle_of(first)])
        await gateway.say(heartbeat=True)
        await until(lambda: bool(gateway.credits))
        credit = gateway.credits[-1]
        assert (credit.backend_id, credit.slots) == ("gpu1", 1)
        started = make_submit()
        start = scheduler_pb2.CreditStart(
            credit_id=credit.id, lease=credit.first_lease, request=started, backend_id=credit.backend_id
        )
        await gateway.say(credit_starts=[start])
        await until(lambda: "forebay_scheduler_credit_starts_total 1.0" in house.ops.metrics.exposition().decode())
        shown = await house.show(address)
        assert (shown.held[0].held, shown.gateways[0].running) == (1, 1)


async def test_an_answer_that_outgrows_its_budget_is_cut_off(
    house: House, make_backend: Make, make_submit: Make, until: Until
) -> None:
    house.registry.tell(make_backend("gpu1"), snapshot=True)
    budget = admin_pb2.Budget(id="b1", amount=1000, unit=admin_pb2.BUDGET_UNIT_TOKENS)
    limits = admin_pb2.Limits(budgets=[budget])
    house.admin.begin_with(admin_pb2.UserPolicy(user_id="alice", weight_milli=1000, limits=limits))
    async with house.scheduler() as address, house.gateway(address) as gateway:
        await until(lambda: "policy" not in house.ops.missing)
        (asked,) = await gateway.submit(prompt_tokens=100)
        await gateway.granted(asked)
        for tokens in (800, 901):
            assert not gateway.cutoffs
            await gateway.say(progress=[scheduler_pb2.Progress(ledger_id=asked, completion_tokens=tokens)])
            await asyncio.sleep(0.05)
        await until(lambda: gateway.cutoffs == {asked: "quota_spent"})
