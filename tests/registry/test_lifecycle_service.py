"""Drains, maintenance and gateways' word in the registry whole: real gRPC, Postgres and NATS with its rights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from forebay import subjects
from forebay.errors import BadInput, NotFound
from forebay.nats_bus import open_nats_bus
from forebay.rpc import open_peer, translated
from forebay.wire.v1 import lifecycle_pb2 as wire
from forebay.wire.v1 import registry_pb2
from forebay.wire.v1.lifecycle_pb2_grpc import LifecycleStub
from tests.fakes.engine import FakeEngine
from tests.registry.test_service import Place, calling, place, running

__all__ = ["place"]  # the fixture

BACKEND, POOL = wire.LIFECYCLE_SCOPE_BACKEND, wire.LIFECYCLE_SCOPE_POOL
HEALTHY, UNHEALTHY = registry_pb2.BACKEND_HEALTH_HEALTHY, registry_pb2.BACKEND_HEALTH_UNHEALTHY
DRAINING, DRAINED = registry_pb2.BACKEND_HEALTH_DRAINING, registry_pb2.BACKEND_HEALTH_DRAINED


class Orders:
    """Admin's calls about drains and maintenance."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __call__(self, method: str, request: Any) -> Any:
        async with open_peer(self._place.listen, token=self._place.tokens["admin"]) as peer:
            with translated():
                call = getattr(LifecycleStub(peer.channel), method)
                return await call(request, metadata=peer.metadata, timeout=10, wait_for_ready=True)


async def test_a_drain_outlives_a_restart_and_is_over_when_the_scheduler_holds_nothing(
    place: Place, eventually: Callable[..., Any]
) -> None:
    orders = Orders(place)
    async with FakeEngine(slots=2) as engine, AsyncExitStack() as buses:
        scheduler, admin_bus = [
            await buses.enter_async_context(
                open_nats_bus(place.nats.url, user, seed_file=place.nats.seed_file(user), ca_file=None)
            )
            for user in ("scheduler", "admin")
        ]
        async with (
            running(place.settings()),
            calling(place) as admin,
            admin.watching() as watch,
            admin_bus.subscribe("forebay.events.health.*") as events,
        ):
            backend_id = (await admin.add("gpu", engine.url)).backend.id
            await eventually(lambda: watch.health("gpu") == HEALTHY)
            ordered = await orders(
                "OrderDrain",
                wire.OrderDrainRequest(
                    actor="ada", scope=BACKEND, name="gpu", deadline_s=600, force=True, reason="new driver"
                ),
            )
            assert (ordered.order.by, ordered.order.force, ordered.HasField("before")) == ("ada", True, False)
            assert [(b.name, b.health) for b in ordered.backends] == [("gpu", DRAINING)]
            await eventually(lambda: watch.health("gpu") == DRAINING)
            told = watch.fleet["gpu"]
            assert (told.draining, told.drain_forced) == (True, True)
            assert told.drain_reason == "It is drained by ada: new driver."
            assert abs(told.drain_deadline_us / 1e6 - time.time() - 600) < 30
            async with asyncio.timeout(10):
                change = wire.HealthChange.FromString((await anext(events)).payload)
                while change.after != DRAINING:
                    change = wire.HealthChange.FromString((await anext(events)).payload)
            assert (change.backend_id, change.cause, change.in_maintenance) == (backend_id, "order", False)

        async with running(place.settings()), calling(place) as admin, admin.watching() as watch:
            await eventually(lambda: watch.health("gpu") == DRAINING)
            assert watch.fleet["gpu"].drain_forced
            report = wire.DrainingReport(backends=[wire.DrainingBackend(backend_id=backend_id, held=0)])
            async with asyncio.timeout(10):
                while watch.health("gpu") != DRAINED:
                    await scheduler.publish(subjects.DRAINING, report.SerializeToString())
                    await asyncio.sleep(0.05)
            lifted = await orders("LiftDrain", wire.LiftDrainRequest(actor="ada", scope=BACKEND, name="gpu"))
            assert lifted.before.reason == "new driver"
            await eventually(lambda: watch.health("gpu") == HEALTHY)
            history = await orders("ShowHealth", wire.ShowHealthRequest(name="gpu"))
            after = [change.after for change in reversed(history.changes)]
            assert after[-4:] == [HEALTHY, DRAINING, DRAINED, HEALTHY], "as before the restart, so after it"
            assert history.backend.health == HEALTHY


async def test_a_gateways_first_failure_marks_a_dead_engine_long_before_the_next_look(
    place: Place, eventually: Callable[..., Any]
) -> None:
    settings = place.settings(probe_healthy_s=60.0, probe_doubt_s=60.0)
    async with (
        open_nats_bus(place.nats.url, "gateway-1", seed_file=place.nats.seed_file("gateway-1")) as gateway,
        running(settings) as ops,
        calling(place) as admin,
        admin.watching() as watch,
    ):
        async with FakeEngine(slots=2) as engine:
            backend_id = (await admin.add("gpu", engine.url)).backend.id
            await eventually(lambda: watch.health("gpu") == HEALTHY)
        await asyncio.wait_for(gateway.wait_connected(), 10)
        sequence = 0
        async with asyncio.timeout(10):
            while watch.health("gpu") != UNHEALTHY:
                sequence += 1
                report = wire.AttemptsReport(gateway="gateway-1", started_us=1, sequence=sequence)
                report.backends.add(backend_id=backend_id, refused=1)
                await gateway.publish(subjects.attempts("gateway-1"), report.SerializeToString())
                await asyncio.sleep(0.05)
        assert watch.fleet["gpu"].health_cause == "refused"
        assert 'forebay_registry_breakers{state="open"} 1.0' in ops.metrics.exposition().decode()


async def test_a_backend_is_looked_at_when_an_operator_asks_and_not_when_its_turn_comes(
    place: Place, eventually: Callable[..., Any]
) -> None:
    orders = Orders(place)
    settings = place.settings(probe_healthy_s=600.0, probe_doubt_s=600.0)
    async with running(settings), calling(place) as admin, admin.watching() as watch:
        async with FakeEngine(slots=2) as engine:
            await admin.add("gpu", engine.url)
            await eventually(lambda: watch.health("gpu") == HEALTHY)
            well = await orders("LookNow", wire.LookNowRequest(actor="ada", name="gpu"))
            assert (well.looked, well.backend.health) == (True, HEALTHY)
        told = [await orders("LookNow", wire.LookNowRequest(actor="ada", name="gpu")) for _ in range(2)]
        assert all(one.looked for one in told)
        assert told[-1].backend.health == UNHEALTHY, "two looks that were refused are enough"
        assert well.backend.checked_at_us < told[0].backend.checked_at_us < told[1].backend.checked_at_us
        with pytest.raises(NotFound):
            await orders("LookNow", wire.LookNowRequest(actor="ada", name="nobody"))


async def test_maintenance_is_kept_listed_and_refused_where_it_makes_no_sense(
    place: Place, eventually: Callable[..., Any]
) -> None:
    orders, now = Orders(place), time.time()

    def window(**more: Any) -> wire.AddMaintenanceRequest:
        usual = {"scope": POOL, "name": "default", "begins_at_us": round(now * 1e6)}
        end = {"ends_at_us": round((now + 3600) * 1e6)}
        return wire.AddMaintenanceRequest(actor="ada", window=wire.MaintenanceWindow(**{**usual, **end, **more}))

    async with (
        FakeEngine(slots=2) as engine,
        running(place.settings()),
        calling(place) as admin,
        admin.watching() as watch,
    ):
        await admin.add("gpu", engine.url)
        await eventually(lambda: watch.health("gpu") == HEALTHY)
        added = (await orders("AddMaintenance", window(reason="new racks"))).window
        await eventually(lambda: watch.health("gpu") in (DRAINING, DRAINED))
        assert watch.fleet["gpu"].maintenance_until_us == added.ends_at_us
        listed = (await orders("ListMaintenance", wire.ListMaintenanceRequest())).windows
        assert [(w.id, w.by, w.name, w.reason) for w in listed] == [(added.id, "ada", "default", "new racks")]
        await orders("RemoveMaintenance", wire.RemoveMaintenanceRequest(actor="ada", id=added.id))
        await eventually(lambda: watch.health("gpu") == HEALTHY)
        with pytest.raises(NotFound, match="There is no maintenance mw-none"):
            await orders("RemoveMaintenance", wire.RemoveMaintenanceRequest(actor="ada", id="mw-none"))
        with pytest.raises(NotFound, match="There is no pool elsewhere"):
            await orders("AddMaintenance", window(name="elsewhere"))
        with pytest.raises(BadInput, match="ends before it begins"):
            await orders("AddMaintenance", window(ends_at_us=1))
        with pytest.raises(BadInput, match="whether it is a backend or a node"):
            await orders("OrderDrain", wire.OrderDrainRequest(actor="ada", scope=POOL, name="default"))
        with pytest.raises(BadInput, match="needs a deadline"):
            await orders("OrderDrain", wire.OrderDrainRequest(actor="ada", scope=BACKEND, name="gpu", force=True))
        with pytest.raises(NotFound, match="There is no backend x"):
            await orders("ShowHealth", wire.ShowHealthRequest(name="x"))
