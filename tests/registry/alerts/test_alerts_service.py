"""Alerts in the registry whole: an agent's samples and a dead engine, over real NATS, Postgres and HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from forebay import subjects
from forebay.errors import NotAllowed
from forebay.local.nats import public_key
from forebay.nats_bus import open_nats_bus
from forebay.nats_rights import render_agents
from forebay.rpc import open_peer, translated
from forebay.wire.v1 import alerts_pb2 as wire
from forebay.wire.v1 import registry_pb2, status_pb2
from forebay.wire.v1.alerts_pb2_grpc import AlertsStub
from forebay.wire.v1.status_pb2_grpc import StandingStub
from forebay.wire.v1.telemetry_pb2 import GPU_STATE_OK, GpuSample, HostSample, TelemetrySample
from tests.fakes.engine import FakeEngine
from tests.registry.alerts.test_watch import receiving
from tests.registry.test_service import Place, calling, place, running

__all__ = ["place"]  # the fixture

FAST = {"for_s": 0, "clear_s": 0}


async def call(place: Place, stub: Any, method: str, request: Any, name: str = "admin") -> Any:
    async with open_peer(place.listen, token=place.tokens[name]) as peer:
        with translated():
            return await getattr(stub(peer.channel), method)(
                request, metadata=peer.metadata, timeout=10, wait_for_ready=True
            )


async def open_rules(place: Place) -> dict[str, wire.Alert]:
    return {a.rule: a for a in (await call(place, AlertsStub, "ListAlerts", wire.ListAlertsRequest())).alerts}


async def test_what_goes_wrong_in_the_fleet_is_told_kept_and_over_when_it_is(
    place: Place, eventually: Callable[..., Any]
) -> None:
    secret = place.folder / "hook.secret"
    secret.write_text("x" * 32)
    rules = {"gpu_hot": FAST, "backend_unhealthy": FAST, "models_unserved": FAST, "disk_full": FAST, "gpu_xid": FAST}
    async with receiving() as receiver, AsyncExitStack() as stack:
        hook = {"name": "ops", "url": receiver.url, "secret_file": str(secret), "severities": ["warning", "critical"]}
        settings = place.settings(alerts=rules, alerts_every_s=0.05, webhooks=(hook,))
        await stack.enter_async_context(running(settings))
        admin = await stack.enter_async_context(calling(place))
        watch = await stack.enter_async_context(admin.watching())
        async with FakeEngine(models=("m",)) as engine:
            await admin.add("gpu", engine.url)
            await eventually(lambda: watch.health("gpu") == registry_pb2.BACKEND_HEALTH_HEALTHY)
        await eventually(lambda: {"backend_unhealthy", "models_unserved"} <= {b["data"]["rule"] for b in receiver.got})
        await admin("EnrolNode", registry_pb2.EnrolNodeRequest(actor="ada", name="box"))
        seed = place.folder / "box.nk"
        place.nats.agents_file.write_text(render_agents([("box", public_key(seed))]))
        agent = await stack.enter_async_context(open_nats_bus(place.nats.url, "box", seed_file=seed))
        await asyncio.wait_for(agent.wait_connected(), 10)
        gpu = GpuSample(
            index=0, name="H100", temperature_c=96, memory_total_bytes=80, memory_used_bytes=40, last_xid=79
        )
        host = HostSample(disk_total_bytes=1000, disk_free_bytes=1)

        async def tell(gpu: GpuSample, sequence: int) -> None:
            sample = TelemetrySample(
                node="box", sequence=sequence, agent_started_us=7, gpu_state=GPU_STATE_OK, gpus=[gpu], host=host
            )
            sample.sampled_at_us = round(time.time() * 1e6)
            if gpu.HasField("last_xid"):
                sample.gpus[0].last_xid_at_us = sample.sampled_at_us - 1_000_000
            await agent.publish(subjects.telemetry("box"), sample.SerializeToString())

        sequence = 0
        async with asyncio.timeout(10):
            while not {"gpu_hot", "gpu_xid", "disk_full"} <= set(found := await open_rules(place)):
                sequence += 1
                await tell(gpu, sequence)
                await asyncio.sleep(0.05)
        assert (found["gpu_hot"].subject, found["gpu_hot"].severity) == ("gpu/box/0", wire.ALERT_SEVERITY_CRITICAL)
        assert found["gpu_xid"].severity == wire.ALERT_SEVERITY_CRITICAL
        assert found["disk_full"].subject == "disk/box/"
        await tell(GpuSample(index=0, name="H100", temperature_c=40), sequence + 1)
        await eventually(
            lambda: (
                {"alert.opened", "alert.closed"} <= {b["type"] for b in receiver.got if b["data"]["rule"] == "gpu_hot"}
            )
        )
        standing = await call(place, StandingStub, "ShowStanding", status_pb2.ShowStandingRequest())
        assert (standing.standing, standing.postgres, standing.nats, standing.fleet_known) == (
            "leading",
            True,
            True,
            True,
        )
        with pytest.raises(NotAllowed):
            await call(place, AlertsStub, "ListAlerts", wire.ListAlertsRequest(), name="gateway")
        before = {rule: alert.id for rule, alert in (await open_rules(place)).items()}
    async with running(place.settings(alerts=rules, alerts_every_s=0.05)):
        async with asyncio.timeout(10):
            while not (after := await open_rules(place)):
                await asyncio.sleep(0.05)
        assert {rule: alert.id for rule, alert in after.items()} == before, "a restart opens and closes nothing"
