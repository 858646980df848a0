"""The scheduler as a service: what is opened in which order, and how it drains. Everything else has a file of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forebay.follow import Followed, Follower
from forebay.ops import Ops
from forebay.registries import open_registries
from forebay.rpc import ServiceTokens, open_peer, open_server
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground, Service
from forebay.wire.v1 import scheduler_pb2_grpc
from forebay_scheduler import term
from forebay_scheduler.config import SchedulerSettings
from forebay_scheduler.doorway import Doorway
from forebay_scheduler.events import BusChanged
from forebay_scheduler.fleet_watch import FleetWatch
from forebay_scheduler.leadership import Leadership
from forebay_scheduler.meters import add_meters, make_queue_histogram
from forebay_scheduler.policy_watch import PolicyWatch
from forebay_scheduler.term import Means

RIGHTS = {
    "/forebay.wire.v1.Scheduler/Session": frozenset({"gateway"}),
    "/forebay.wire.v1.Scheduler/ShowQueue": frozenset({"admin"}),
    "/forebay.wire.v1.Scheduler/Explain": frozenset({"admin"}),
    "/forebay.wire.v1.Scheduler/Drain": frozenset({"admin"}),
    "/forebay.wire.v1.Scheduler/Dump": frozenset({"admin"}),
}
_FAREWELL_S = 0.2


@asynccontextmanager
async def open_scheduler(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[None]:
    """Entered, it answers: it leads, or knows that it stands by."""
    async with serving_scheduler(settings, ground):
        yield


@asynccontextmanager
async def serving_scheduler(settings: SchedulerSettings, ground: Ground) -> AsyncIterator[str]:
    """The same, and gives the address at which it listens (with `listen` on port 0 it is known only then)."""
    clock, ops = ground.clock, ground.ops
    tokens = ServiceTokens(settings.callers_file, RIGHTS)
    bus_at = ground.open_bus(
        settings.nats_url,
        settings.nats_user,
        seed_file=settings.nats_seed_file,
        ca_file=settings.nats_ca_file,
        cert_file=settings.nats_cert_file,
        key_file=settings.nats_key_file,
        replicas=settings.nats_replicas,
    )
    async with (
        bus_at as bus,
        open_registries(
            settings.registry_address,
            token_file=settings.token_file,
            setting="[scheduler] registry_address",
            tls=settings.internal_tls,
        ) as registries,
        open_peer(settings.admin_address, token_file=settings.token_file, tls=settings.internal_tls) as admin,
    ):
        doorway = Doorway(clock, lambda: leadership.leader_address)
        fleet = FleetWatch(registries.peers, clock, doorway.apply)
        policy = PolicyWatch(admin, doorway.apply)
        queue_seconds = make_queue_histogram(ops.metrics)
        add_meters(ops.metrics, doorway, bus)
        followers = [Follower(followed, _snapshot_file(settings, followed), clock, ops) for followed in (fleet, policy)]
        for follower in followers:
            await follower.start()
        async with (
            open_server(
                settings.listen,
                lambda server: scheduler_pb2_grpc.add_SchedulerServicer_to_server(doorway, server),
                tokens,
                grace_s=_FAREWELL_S,
                tls=settings.internal_tls,
            ) as address,
            Leadership(
                bus,
                clock,
                ops,
                address=settings.advertise or address,
                tell_away=lambda is_away: doorway.apply((BusChanged(is_away),)),
            ) as leadership,
            asyncio.TaskGroup() as tasks,
        ):
            means = Means(
                settings, clock, bus, doorway, queue_seconds, lambda: [*fleet.known(), *policy.known()], _FAREWELL_S
            )
            following = [
                *(tasks.create_task(f.follow(), name="follow") for f in followers),
                *(tasks.create_task(f.keep(), name="keep") for f in followers),
            ]
            leads = asyncio.Event()
            leading = tasks.create_task(_lead_for_ever(means, leadership, ops, leads), name="lead")
            try:
                await _first_of(leads, leadership.stands_by)
                yield address
            finally:
                leading.cancel()
                await asyncio.wait([leading])
                for task in following:
                    task.cancel()


async def _lead_for_ever(means: Means, leadership: Leadership, ops: Ops, leads: asyncio.Event) -> None:
    def begin() -> None:
        ops.ready("lead")
        leads.set()

    while True:
        ops.not_ready("lead", "another scheduler leads; this one stands by")
        await term.serve(means, leadership, begin)


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


service = Service("scheduler", SchedulerSettings, open_scheduler, needs=("admin", "registry"))


def _snapshot_file(settings: SchedulerSettings, followed: Followed) -> SnapshotFile:
    seal = Seal.from_file(settings.snapshot_key_file, f"scheduler-{followed.name}")
    return SnapshotFile(settings.snapshot_dir / f"{followed.name}.snapshot", seal, settings.snapshot_max_age_s)
