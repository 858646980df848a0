"""The registry, wired: it knows the fleet, looks at every backend, and tells whoever watches.

Ready means that the wanted fleet is known, from Postgres or from the last snapshot; what else may be away (Postgres later
on, the bus, admin) costs changes, telemetry or new credentials, and is told in the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import grpc.aio

from forebay.bus import Bus
from forebay.database import read_database_url
from forebay.follow import Follower
from forebay.metrics import Metrics, Number
from forebay.rpc import ServiceTokens, open_peer, open_server
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground, Service
from forebay.wire.v1.alerts_pb2_grpc import add_AlertsServicer_to_server
from forebay.wire.v1.commands_pb2_grpc import add_NodeCommandsServicer_to_server
from forebay.wire.v1.discovery_pb2_grpc import add_DiscoveryServicer_to_server
from forebay.wire.v1.library_pb2_grpc import add_ModelLibraryServicer_to_server
from forebay.wire.v1.lifecycle_pb2_grpc import add_LifecycleServicer_to_server
from forebay.wire.v1.registry_pb2_grpc import add_RegistryServicer_to_server
from forebay.wire.v1.status_pb2_grpc import add_StandingServicer_to_server
from forebay_registry import lifecycle_calls, standing_calls
from forebay_registry.alerts import opening as alerts_opening
from forebay_registry.backend import Condition, Node
from forebay_registry.calls import RIGHTS, Calls, only_of_the_leader
from forebay_registry.commands import calls as command_calls
from forebay_registry.config import RegistrySettings
from forebay_registry.credentials import Credentials
from forebay_registry.discovery import opening as discovery_opening
from forebay.engine_sockets import socket_factory
from forebay_registry.engines.probe import Probe
from forebay_registry.engines.telemetry import Scraped, Telemetry
from forebay_registry.fleet.fleet import Fleet
from forebay_registry.fleet.watch import Watchers
from forebay_registry.fleet_calls import FleetCalls
from forebay_registry.health.conditions import Outcome
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.patrol import Patrol
from forebay_registry.history.opening import History
from forebay_registry.keeping.keeper import Keeper
from forebay_registry.keeping.store import Store
from forebay_registry.keeping.tables import SCHEMA
from forebay_registry.keeping.wanted_store import WantedStore
from forebay_registry.leadership.fence import open_fenced_database
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Standing
from forebay_registry.library import calls as library_calls
from forebay_registry.library.opening import Library
from forebay_registry.lifecycle_opening import LifecyclePart
from forebay_registry.nodes.ingest import Ingest, Tally
from forebay_registry.nodes.samples import Dropped
from forebay_registry.roster import Roster


@asynccontextmanager
async def open_registry(settings: RegistrySettings, ground: Ground) -> AsyncIterator[None]:
    """Listens when entered; ready when the fleet is known, which `ops` tells. Raises CannotStart."""
    clock, metrics = ground.clock, ground.ops.metrics
    rights = RIGHTS | library_calls.RIGHTS | lifecycle_calls.RIGHTS | discovery_opening.RIGHTS | command_calls.RIGHTS
    rights |= alerts_opening.RIGHTS | standing_calls.RIGHTS
    tokens = ServiceTokens(settings.callers_file, rights)
    url = read_database_url(settings.database_url, settings.database_url_file)
    seed, ca = settings.nats_seed_file, settings.nats_ca_file
    lead = Lead(url, clock, address=settings.advertise or settings.listen)
    async with (
        open_fenced_database(url, SCHEMA, lead) as database,
        ground.open_bus(settings.nats_url, settings.nats_user, seed_file=seed, ca_file=ca) as bus,
        open_peer(settings.admin_address, token_file=settings.token_file) as admin,
        open_session(allow_link_local=settings.allow_link_local) as session,
        alerts_opening.open_webhook_session(allow_link_local=settings.allow_link_local) as webhook_session,
        lead.held(),
    ):
        telemetry = Telemetry(clock, settings.scrape_rhythm, outcomes=_count_scrapes(metrics))
        probe = Probe(session, clock, timeout_s=settings.probe_timeout_s, telemetry=telemetry)
        lifecycle = Lifecycle(clock, settings.limits)
        patrol = Patrol(probe, clock, settings.beat, outcomes=_count_probes(metrics), recall=lifecycle.recall)
        fleet = Fleet()
        watchers = Watchers(fleet)
        store = Store(database)
        wanted = WantedStore(database)
        roster = Roster(
            fleet=fleet,
            watchers=watchers,
            patrol=patrol,
            store=wanted,
            clock=clock,
            allow_link_local=settings.allow_link_local,
            lifecycle=lifecycle,
        )
        credentials = Follower(
            Credentials(admin, roster.take_credentials),
            _snapshot_file(settings, "credentials"),
            clock,
            ground.ops,
            is_needed=False,  # backends whose engines want no key are served without admin, and probes tell which do
        )
        keeper = Keeper(
            roster=roster,
            database=database,
            store=store,
            lead=lead,
            file=_snapshot_file(settings, "fleet"),
            file_fleet=settings.fleet,
            ops=ground.ops,
            clock=clock,
            reload_s=settings.reload_s,
            load_first=lambda: health.keeper.load(),
        )
        ingest = Ingest(
            lambda: roster.agents,
            store,
            clock,
            flush_s=settings.telemetry_flush_s,
            tally=_count_samples(metrics),
        )
        health = LifecyclePart(
            lifecycle,
            roster=roster,
            patrol=patrol,
            ingest=ingest,
            bus=bus,
            database=database,
            lead=lead,
            file=_snapshot_file(settings, "orders"),
            clock=clock,
            metrics=metrics,
        )
        metrics.gauge("forebay_registry_node_problems", "Nodes in trouble.", ("problem",), ingest.troubled)
        _measure(metrics, fleet, watchers, keeper, credentials, bus, lead)
        await credentials.start()
        await health.keeper.start_from_snapshot()
        await keeper.start_from_snapshot()
        history = History(
            database,
            clock,
            metrics,
            views=roster.views,
            last_samples=store.last_samples,
            minutes_s=settings.history_minutes_s,
            hours_s=settings.history_hours_s,
            max_series=settings.history_max_series,
        )
        ingest.on_sample.append(history.recorder.on_sample)
        roster.on_look.append(history.recorder.on_look)
        library = Library(
            roster,
            session,
            database,
            clock,
            nodes=roster.nodes,
            pools=lambda: {pool.name: pool for pool in roster.pools()},
            heard_of=ingest.heard_of,
            pulls_per_node=settings.pulls_per_node,
            reserve_bytes=settings.pull_reserve_bytes,
            upkeep_s=settings.upkeep_s,
        )

        finding = discovery_opening.Finding(roster, database, clock, metrics, settings.finding, ready=roster.stored)
        ingest.on_sample.append(finding.hear)
        commands = command_calls.open_commands(
            settings.command_key_file, bus, clock, metrics, nodes=lambda: roster.agents, heard_of=ingest.heard_of
        )

        alerts = alerts_opening.AlertsPart(
            settings.alerting,
            settings.told,
            webhook_session,
            bus=bus,
            database=database,
            tables=lead.tables,
            clock=clock,
            metrics=metrics,
            lifecycle=lifecycle,
            views=roster.views,
            nodes=roster.nodes,
            troubles_of=ingest.troubles_of,
            has_postgres=lambda: keeper.is_in_step,
            flap_window_s=settings.flap_window_s,
            round_s=settings.alerts_every_s,
        )
        ingest.on_sample.append(alerts.reader.hear)
        commands.commander.on_refused = alerts.reader.hear_refusal
        standing = standing_calls.StandingCalls(
            clock,
            lambda: lead.stance,
            {
                "postgres": lambda: keeper.is_in_step,
                "nats": lambda: bus.is_connected,
                "admin": lambda: credentials.is_live,
                "fleet": roster.known.is_set,
            },
        )

        async def welcome(node: Node, joined_from: str) -> str:
            await finding.discovery.note_joined(node.id, joined_from)
            return commands.public_line

        calls = Calls(roster, watchers, ingest, FleetCalls(roster, wanted), history.calls, welcome)

        def add(server: grpc.aio.Server) -> None:
            add_RegistryServicer_to_server(calls, server)
            add_ModelLibraryServicer_to_server(library.calls, server)
            add_LifecycleServicer_to_server(health.calls, server)
            add_DiscoveryServicer_to_server(finding, server)
            add_NodeCommandsServicer_to_server(commands.calls, server)
            add_AlertsServicer_to_server(alerts.calls, server)
            add_StandingServicer_to_server(standing, server)

        async with open_server(
            settings.listen,
            add,
            only_of_the_leader(tokens, lead),
            grace_s=0.1,
        ):
            work = {
                "look-at-backends": lead.acting.during(patrol.run),
                "keep-fleet": keeper.run(),
                "hold-lead": lead.fault(),
                "take-over": lead.leading.during(keeper.take_over),
                "follow-credentials": credentials.follow(),
                "keep-credentials": credentials.keep(),
                "hear-samples": ingest.listen(bus),
                "keep-samples": lead.leading.during(lambda: _keep_samples(roster, ingest)),
                "keep-history": lead.acting.during(lambda: _keep_history(roster, history)),
                "keep-library": lead.leading.during(lambda: _keep_library(roster, library)),
                **health.work(),
                "find-engines": lead.leading.during(finding.run),
                "hear-answers": commands.listen(),
                "alerts": lead.acting.during(alerts.run),
                "note-standing": standing.watch(),
                "settle": _tell_watchers(lead, roster, watchers, settings.settle_s),
            }
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(todo, name=name) for name, todo in work.items()]
                yield
                for task in running:
                    task.cancel()
        await keeper.drain()
        await ingest.drain()
        await history.recorder.drain()
        await alerts.drain()


@asynccontextmanager
async def open_session(*, allow_link_local: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    """One for all probes: no limit that a hung engine could use up, no cookies, no proxy from the environment, and no
    timeout of its own, since what a whole look may take is `Probe`'s to say."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=socket_factory(allow_link_local=allow_link_local)),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": "forebay-registry"},
    ) as session:
        yield session


async def _keep_samples(roster: Roster, ingest: Ingest) -> None:
    await roster.stored.wait()
    await ingest.keep()


async def _keep_history(roster: Roster, history: History) -> None:
    await roster.stored.wait()
    await history.recorder.run()


async def _keep_library(roster: Roster, library: Library) -> None:
    await roster.stored.wait()
    await library.run()


async def _tell_watchers(lead: Lead, roster: Roster, watchers: Watchers, settle_s: float) -> None:
    """Under each epoch of ours anew; while another one leads, that it does."""
    while True:
        turn = lead.turn
        if lead.stance.standing is Standing.STANDBY:
            watchers.stand_by(lead.stance.epoch, lead.stance.leader)
        elif lead.stance.acts:
            await _settle(roster, settle_s)
            if lead.stance.acts:
                watchers.open(lead.stance.epoch)
        await lead.beyond(turn)


async def _settle(roster: Roster, settle_s: float) -> None:
    """Returns when the fleet is known: from Postgres and looked at, or for long enough. A snapshot may be a moment older
    than the last change, and a restart of the registry alone should not show it."""
    await roster.known.wait()
    with suppress(TimeoutError):  # the rest is told as unknown, and as healthy as soon as it answers
        async with asyncio.timeout(settle_s):
            await roster.stored.wait()
            await roster.looked_at_all.wait()


def _snapshot_file(settings: RegistrySettings, what: str) -> SnapshotFile | None:
    if settings.snapshot_key_file is None or settings.snapshot_dir is None:
        return None
    seal = Seal.from_file(settings.snapshot_key_file, f"registry-{what}")
    path: Path = settings.snapshot_dir / f"registry-{what}.snapshot"
    return SnapshotFile(path, seal, settings.snapshot_max_age_s)


def _count_probes(metrics: Metrics) -> dict[Outcome, Number]:
    counter = metrics.counter("forebay_registry_probes", "Looks at backends, by how they ended.", ("outcome",))
    return {outcome: counter.child(outcome) for outcome in Outcome}


def _count_scrapes(metrics: Metrics) -> dict[Scraped, Number]:
    counter = metrics.counter(
        "forebay_registry_scrapes", "Readings of engines' gauges, by how they ended.", ("outcome",)
    )
    return {outcome: counter.child(outcome) for outcome in Scraped}


def _count_samples(metrics: Metrics) -> Tally:
    dropped = metrics.counter("forebay_registry_samples_dropped", "Samples of agents not taken.", ("reason",))
    return Tally(
        taken=metrics.counter("forebay_registry_samples", "Samples of agents taken.").child(),
        lost=metrics.counter("forebay_registry_samples_lost", "Samples of agents that never came.").child(),
        dropped={why: dropped.child(why) for why in Dropped},
    )


def _measure(
    metrics: Metrics, fleet: Fleet, watchers: Watchers, keeper: Keeper, credentials: Follower, bus: Bus, lead: Lead
) -> None:
    """What is so right now, read when scraped."""

    def by_condition() -> Iterable[tuple[tuple[str], float]]:
        views = fleet.views()
        return [((str(c),), sum(v.condition is c for v in views)) for c in Condition]

    def gauge(name: str, about: str, read: Callable[[], float]) -> None:
        metrics.gauge(f"forebay_registry_{name}", about, (), lambda: [((), float(read()))])

    metrics.gauge("forebay_registry_backends", "Backends by condition.", ("condition",), by_condition)

    def by_standing() -> Iterable[tuple[tuple[str], float]]:
        return [((str(s),), float(lead.stance.standing is s)) for s in Standing]

    metrics.gauge("forebay_registry_standing", "1 for how this registry stands to the others.", ("is",), by_standing)
    gauge("epoch", "Of this registry's lead, or of the newest that it knows.", lambda: lead.stance.epoch)
    gauge("fleet_version", "Changes of the fleet since the start.", lambda: fleet.version)
    gauge("watchers", "Open WatchFleet streams.", lambda: watchers.count)
    gauge("postgres_in_step", "1 while Postgres answers.", lambda: keeper.is_in_step)
    gauge("credentials_following", "1 while admin tells the engines' keys.", lambda: credentials.is_live)
    gauge("bus_connected", "1 while the bus is there.", lambda: bus.is_connected)


service = Service("registry", RegistrySettings, open_registry, needs=("admin",))
