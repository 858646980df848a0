"""The rest of the registry, wired upon its fleet: history, models on engines, engines that are found, commands, alerts; who
hears what of the fleet; and the calls of all of it."""

from __future__ import annotations

import grpc.aio

from forebay.service import Ground
from forebay.wire.v1.alerts_pb2_grpc import add_AlertsServicer_to_server
from forebay.wire.v1.commands_pb2_grpc import add_NodeCommandsServicer_to_server
from forebay.wire.v1.discovery_pb2_grpc import add_DiscoveryServicer_to_server
from forebay.wire.v1.library_pb2_grpc import add_ModelLibraryServicer_to_server
from forebay.wire.v1.lifecycle_pb2_grpc import add_LifecycleServicer_to_server
from forebay.wire.v1.registry_pb2_grpc import add_RegistryServicer_to_server
from forebay.wire.v1.status_pb2_grpc import add_StandingServicer_to_server
from forebay_registry import calls
from forebay_registry.alerts import opening as alerts_opening
from forebay_registry.backend import Node
from forebay_registry.commands import calls as command_calls
from forebay_registry.config import RegistrySettings
from forebay_registry.discovery import opening as discovery_opening
from forebay_registry.fleet_part import FleetPart
from forebay_registry.health import calls as health_calls
from forebay_registry.history.opening import History
from forebay_registry.leadership import calls as standing_calls
from forebay_registry.library import calls as library_calls
from forebay_registry.library.opening import Library
from forebay_registry.links import Links
from forebay_registry.wanted.calls import FleetCalls
from forebay_registry.wanted.specs import paths_in

RIGHTS = (
    calls.RIGHTS
    | library_calls.RIGHTS
    | health_calls.RIGHTS
    | discovery_opening.RIGHTS
    | command_calls.RIGHTS
    | alerts_opening.RIGHTS
    | standing_calls.RIGHTS
)


class Parts:
    def __init__(self, settings: RegistrySettings, ground: Ground, links: Links, fleet: FleetPart) -> None:
        """Raises CannotStart."""
        clock, metrics, database = ground.clock, ground.ops.metrics, links.database
        roster, ingest = fleet.roster, fleet.ingest
        self._fleet = fleet
        self._declared = paths_in(settings.fleet)
        self.history = History(
            database,
            clock,
            metrics,
            views=roster.views,
            last_samples=fleet.store.last_samples,
            minutes_s=settings.history_minutes_s,
            hours_s=settings.history_hours_s,
            max_series=settings.history_max_series,
        )
        self.library = Library(
            roster,
            links.engines,
            database,
            clock,
            nodes=roster.nodes,
            pools=lambda: {pool.name: pool for pool in roster.pools()},
            heard_of=ingest.heard_of,
            pulls_per_node=settings.pulls_per_node,
            reserve_bytes=settings.pull_reserve_bytes,
            upkeep_s=settings.upkeep_s,
        )
        self.finding = discovery_opening.Finding(
            roster, database, clock, metrics, settings.finding, ready=roster.stored
        )
        self.commands = command_calls.open_commands(
            settings.command_key_file, links.bus, clock, metrics, nodes=lambda: roster.agents, heard_of=ingest.heard_of
        )
        self.alerts = alerts_opening.AlertsPart(
            settings.alerting,
            settings.told,
            links.webhooks,
            bus=links.bus,
            database=database,
            tables=links.lead.tables,
            clock=clock,
            metrics=metrics,
            lifecycle=fleet.lifecycle,
            views=roster.views,
            nodes=roster.nodes,
            troubles_of=ingest.troubles_of,
            has_postgres=lambda: fleet.keeper.is_in_step,
            flap_window_s=settings.flap_window_s,
            round_s=settings.alerts_every_s,
        )
        self.standing = standing_calls.StandingCalls(
            clock,
            lambda: links.lead.stance,
            {
                "postgres": lambda: fleet.keeper.is_in_step,
                "nats": lambda: links.bus.is_connected,
                "admin": lambda: fleet.credentials.is_live,
                "fleet": roster.known.is_set,
            },
        )
        self._hear()

    def _hear(self) -> None:
        """Who is told what the fleet sees and hears."""
        ingest, roster = self._fleet.ingest, self._fleet.roster
        ingest.on_sample += [self.history.recorder.on_sample, self.finding.hear, self.alerts.reader.hear]
        roster.on_look.append(self.history.recorder.on_look)
        self.commands.commander.on_refused = self.alerts.reader.hear_refusal

    def add_to(self, server: grpc.aio.Server) -> None:
        fleet = self._fleet
        served = calls.Calls(
            fleet.roster,
            fleet.watchers,
            fleet.ingest,
            FleetCalls(fleet.roster, fleet.wanted, self._declared),
            self.history.calls,
            self._welcome,
        )
        add_RegistryServicer_to_server(served, server)
        add_ModelLibraryServicer_to_server(self.library.calls, server)
        add_LifecycleServicer_to_server(fleet.health.calls, server)
        add_DiscoveryServicer_to_server(self.finding, server)
        add_NodeCommandsServicer_to_server(self.commands.calls, server)
        add_AlertsServicer_to_server(self.alerts.calls, server)
        add_StandingServicer_to_server(self.standing, server)

    async def drain(self) -> None:
        """What was heard and not written yet, while the links are there."""
        await self._fleet.keeper.drain()
        await self._fleet.ingest.drain()
        await self.history.recorder.drain()
        await self.alerts.drain()

    async def _welcome(self, node: Node, joined_from: str) -> str:
        await self.finding.discovery.note_joined(node.id, joined_from)
        return self.commands.public_line
