"""The fleet, wired: engines are looked at, agents heard, orders kept; all of it meets in the roster, in step with Postgres
and admin, and watchers are told."""

from __future__ import annotations

from pathlib import Path

from forebay.database import measure_connections
from forebay.follow import Follower
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground
from forebay_registry.config import RegistrySettings
from forebay_registry.engines.probe import Probe
from forebay_registry.engines.telemetry import Telemetry
from forebay_registry.fleet.fleet import Fleet
from forebay_registry.fleet.watch import Watchers
from forebay_registry.health.lifecycle import Lifecycle
from forebay_registry.health.opening import LifecyclePart
from forebay_registry.health.patrol import Patrol
from forebay_registry.keeping.credentials import Credentials
from forebay_registry.keeping.keeper import Keeper
from forebay_registry.keeping.store import Store
from forebay_registry.keeping.wanted_store import WantedStore
from forebay_registry.links import Links
from forebay_registry.meters import count_probes, count_samples, count_scrapes, measure
from forebay_registry.nodes.ingest import Ingest
from forebay_registry.roster import Roster


class FleetPart:
    def __init__(self, settings: RegistrySettings, ground: Ground, links: Links) -> None:
        clock, metrics, database, lead = ground.clock, ground.ops.metrics, links.database, links.lead
        telemetry = Telemetry(clock, settings.scrape_rhythm, outcomes=count_scrapes(metrics))
        probe = Probe(links.engines, clock, timeout_s=settings.probe_timeout_s, telemetry=telemetry)
        fleet = Fleet()
        self.lifecycle = Lifecycle(clock, settings.limits)
        self.patrol = Patrol(probe, clock, settings.beat, outcomes=count_probes(metrics), recall=self.lifecycle.recall)
        self.watchers = Watchers(fleet)
        self.store = Store(database)
        self.wanted = WantedStore(database)
        self.roster = roster = Roster(
            fleet=fleet,
            watchers=self.watchers,
            patrol=self.patrol,
            store=self.wanted,
            clock=clock,
            allow_link_local=settings.allow_link_local,
            lifecycle=self.lifecycle,
        )
        self.credentials = Follower(
            Credentials(links.admin, roster.take_credentials),
            _snapshot_file(settings, "credentials"),
            clock,
            ground.ops,
            is_needed=False,  # backends whose engines want no key are served without admin, and probes tell which do
        )
        self.keeper = Keeper(
            roster=roster,
            database=database,
            store=self.store,
            lead=lead,
            file=_snapshot_file(settings, "fleet"),
            file_fleet=settings.fleet,
            ops=ground.ops,
            clock=clock,
            reload_s=settings.reload_s,
            load_first=lambda: self.health.keeper.load(),
        )
        self.ingest = Ingest(
            lambda: roster.agents,
            self.store,
            clock,
            flush_s=settings.telemetry_flush_s,
            tally=count_samples(metrics),
        )
        self.health = LifecyclePart(
            self.lifecycle,
            fleet=roster,
            patrol=self.patrol,
            ingest=self.ingest,
            bus=links.bus,
            database=database,
            lead=lead,
            file=_snapshot_file(settings, "orders"),
            clock=clock,
            metrics=metrics,
        )
        metrics.gauge("forebay_registry_node_problems", "Nodes in trouble.", ("problem",), self.ingest.troubled)
        measure(metrics, fleet, self.watchers, self.keeper, self.credentials, links.bus, lead)
        measure_connections(metrics, "forebay_registry", links.database)

    async def start(self) -> None:
        """With what the sealed files say, until Postgres and admin do."""
        await self.credentials.start()
        await self.health.keeper.start_from_snapshot()
        await self.keeper.start_from_snapshot()


def _snapshot_file(settings: RegistrySettings, what: str) -> SnapshotFile | None:
    if settings.snapshot_key_file is None or settings.snapshot_dir is None:
        return None
    seal = Seal.from_file(settings.snapshot_key_file, f"registry-{what}")
    path: Path = settings.snapshot_dir / f"registry-{what}.snapshot"
    return SnapshotFile(path, seal, settings.snapshot_max_age_s)
