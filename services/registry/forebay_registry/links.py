"""What the registry stands on: Postgres under the lead, the bus, admin, and what it calls engines and webhooks with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from forebay.bus import Bus
from forebay.database import Database, read_database_url
from forebay.engine_sockets import socket_factory
from forebay.rpc import Peer, open_peer
from forebay.service import Ground
from forebay_registry.alerts.opening import open_webhook_session
from forebay_registry.config import RegistrySettings
from forebay_registry.keeping.tables import SCHEMA
from forebay_registry.leadership.fence import open_fenced_database
from forebay_registry.leadership.lead import Lead


@dataclass(frozen=True, slots=True)
class Links:
    lead: Lead
    database: Database
    """Only the one that leads writes to it."""
    bus: Bus
    admin: Peer
    engines: aiohttp.ClientSession
    webhooks: aiohttp.ClientSession


@asynccontextmanager
async def open_links(settings: RegistrySettings, ground: Ground) -> AsyncIterator[Links]:
    """None of them needs to be there yet. Raises CannotStart."""
    url = read_database_url(settings.database_url, settings.database_url_file)
    lead = Lead(url, ground.clock, address=settings.advertise or settings.listen)
    async with (
        open_fenced_database(url, SCHEMA, lead) as database,
        ground.open_bus(
            settings.nats_url,
            settings.nats_user,
            seed_file=settings.nats_seed_file,
            ca_file=settings.nats_ca_file,
            cert_file=settings.nats_cert_file,
            key_file=settings.nats_key_file,
        ) as bus,
        open_peer(settings.admin_address, token_file=settings.token_file, tls=settings.internal_tls) as admin,
        open_session(allow_link_local=settings.allow_link_local) as engines,
        open_webhook_session(allow_link_local=settings.allow_link_local) as webhooks,
        lead.held(),
    ):
        yield Links(lead, database, bus, admin, engines, webhooks)


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
