"""The scheduler as a service: what is opened in which order, and how it drains. Everything else has a file of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.follow import Followed, Follower
from forebay.ops import Ops
from forebay.rpc import ServiceTokens, open_peer, open_server
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground, Service
from forebay.wire.v1 import scheduler_pb2_grpc
from forebay_scheduler import orphans
from forebay_scheduler.config import SchedulerSettings
from forebay_scheduler.fleet_watch import FleetWatch
from forebay_scheduler.introductions import Introductions
from forebay_scheduler.leadership import Leadership
from forebay_scheduler.meters import add_meters, make_queue_histogram
from forebay_scheduler.policy import Policy
from forebay_scheduler.policy_watch import PolicyWatch
from forebay_scheduler.sessions import Sessions
from forebay_scheduler.snapshot import read_holdings, store_holdings

log = logging.getLogger(__name__)

RIGHTS = {
    "/forebay.wire.v1.Scheduler/Session": frozenset({"gateway"}),
    "/forebay.wire.v1.Scheduler/ShowQueue": frozenset({"admin"}),
}
_FAREWELL_S = 0.2


@asynccontextmanager
async def open_scheduler(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[None]:
    async with serving_scheduler(settings, ground):
        yield


@asynccontextmanager
async def serving_scheduler(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[str]:
    """The same, and gives the address at which it listens (with `listen` on port 0 it is known only then)."""
    clock, ops = ground.clock, ground.ops
    tokens = ServiceTokens(settings.callers_file, RIGHTS)
    bus_at = ground.open_bus(
        settings.nats_url, settings.nats_user, seed_file=settings.nats_seed_file, ca_file=settings.nats_ca_file
    )
    async with (
        bus_at as bus,
        open_peer(settings.registry_address, token_file=settings.token_file) as registry,
        open_peer(settings.admin_address, token_file=settings.token_file) as admin,
    ):
        leadership = Leadership(bus, clock, ops, settings.heartbeat_s)
        epoch = await leadership.take()
        recovered = await read_holdings(bus, clock)
        policy = Policy(settings.rules(), epoch, clock.monotonic(), recovered=recovered)
        introductions = Introductions()
        sessions = Sessions(
            policy,
            clock,
            heartbeat_s=settings.heartbeat_s,
            fence_s=settings.fence_s,
            renewed_ago_s=lambda: leadership.renewed_ago_s,
            queue_seconds=make_queue_histogram(ops.metrics),
            introductions=introductions,
        )
        add_meters(ops.metrics, policy)
        followers = [
            Follower(followed, _snapshot_file(settings, followed), clock, ops)
            for followed in (FleetWatch(registry, clock, sessions.apply), PolicyWatch(admin, sessions.apply))
        ]
        for follower in followers:
            await follower.start()
        leads = _Leads()
        async with (
            open_server(
                settings.listen,
                lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(sessions, server),
                tokens,
                grace_s=_FAREWELL_S,
            ) as address,
            asyncio.TaskGroup() as tasks,
        ):
            background = [
                tasks.create_task(sessions.tick(), name="tick"),
                tasks.create_task(_lead(leadership, sessions, leads, ops), name="lead"),
                tasks.create_task(store_holdings(bus, policy, clock, leads.is_true, introductions), name="snapshot"),
                tasks.create_task(orphans.publish(sessions.orphans, bus), name="orphans"),
                *(tasks.create_task(f.follow(), name="follow") for f in followers),
                *(tasks.create_task(f.keep(), name="keep") for f in followers),
            ]
            try:
                yield address
            finally:
                sessions.drain()
                await asyncio.sleep(_FAREWELL_S)  # so that gateways hear it and look for another leader at once
                for task in background:
                    task.cancel()


service = Service("scheduler", SchedulerSettings, open_scheduler, needs=("admin", "registry"))


class _Leads:
    def __init__(self) -> None:
        self._still = True

    def is_true(self) -> bool:
        return self._still

    def end(self) -> None:
        self._still = False


async def _lead(leadership: Leadership, sessions: Sessions, leads: _Leads, ops: Ops) -> None:
    await leadership.renew()
    leads.end()
    log.error("another scheduler has taken the lead; granting nothing more", extra={"action": "lead_lost"})
    ops.not_ready("lead", "another scheduler has taken the lead; stop one of the two")
    sessions.drain()


def _snapshot_file(settings: SchedulerSettings, followed: Followed) -> SnapshotFile:
    seal = Seal.from_file(settings.snapshot_key_file, f"scheduler-{followed.name}")
    return SnapshotFile(settings.snapshot_dir / f"{followed.name}.snapshot", seal, settings.snapshot_max_age_s)
