"""The registry, put together: it knows the fleet, looks at every backend, and tells whoever watches.

Ready means that the wanted fleet is known, from Postgres or from the last snapshot; what else may be away (Postgres later
on, the bus, admin) costs changes, telemetry or new credentials, and is told in the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from forebay.rpc import ServiceTokens, open_server
from forebay.service import Ground, Service
from forebay_registry.calls import only_of_the_leader
from forebay_registry.config import RegistrySettings
from forebay_registry.fleet.watch import Watchers
from forebay_registry.fleet_part import FleetPart
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Standing
from forebay_registry.links import Links, open_links
from forebay_registry.parts import RIGHTS, Parts
from forebay_registry.roster import Roster


@asynccontextmanager
async def open_registry(settings: RegistrySettings, ground: Ground) -> AsyncIterator[None]:
    """Listens when entered; ready when the fleet is known, which `ops` tells. Raises CannotStart."""
    tokens = ServiceTokens(settings.callers_file, RIGHTS)
    async with open_links(settings, ground) as links:
        fleet = FleetPart(settings, ground, links)
        parts = Parts(settings, ground, links, fleet)
        await fleet.start()
        async with (
            open_server(
                settings.listen,
                parts.add_to,
                only_of_the_leader(tokens, links.lead),
                grace_s=0.1,
                tls=settings.internal_tls,
            ),
            asyncio.TaskGroup() as tasks,
        ):
            works = _works(settings, links, fleet, parts)
            running = [tasks.create_task(work, name=name) for name, work in works.items()]
            yield
            for task in running:
                task.cancel()
        await parts.drain()


def _works(
    settings: RegistrySettings, links: Links, fleet: FleetPart, parts: Parts
) -> dict[str, Coroutine[Any, Any, None]]:
    """What is done all the time, by name; some of it only while this registry leads, or leads and has read the fleet."""
    lead, roster = links.lead, fleet.roster
    leading, acting = lead.leading.during, lead.acting.during
    return {
        "look-at-backends": acting(fleet.patrol.run),
        "keep-fleet": fleet.keeper.run(),
        "hold-lead": lead.fault(),
        "take-over": leading(fleet.keeper.take_over),
        "follow-credentials": fleet.credentials.follow(),
        "keep-credentials": fleet.credentials.keep(),
        "hear-samples": fleet.ingest.listen(links.bus),
        "keep-samples": leading(lambda: _once_stored(roster, fleet.ingest.keep)),
        "keep-history": acting(lambda: _once_stored(roster, parts.history.recorder.run)),
        "keep-library": leading(lambda: _once_stored(roster, parts.library.run)),
        **fleet.health.work(),
        "find-engines": leading(parts.finding.run),
        "hear-answers": parts.commands.listen(),
        "alerts": acting(parts.alerts.run),
        "note-standing": parts.standing.watch(),
        "settle": _tell_watchers(lead, roster, fleet.watchers, settings.settle_s),
    }


async def _once_stored(roster: Roster, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Its tables are there then."""
    await roster.stored.wait()
    await work()


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


service = Service("registry", RegistrySettings, open_registry, needs=("admin",))
