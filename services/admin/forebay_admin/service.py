"""Admin, put together: people, keys, shares, limits, the ledger and what clients let us keep in Postgres; streams of what
changes to the other services; the one address that operators talk to.

It starts without Postgres, NATS, the registry or a scheduler. Streams are open at once and silent until the database was
read; then they never need it again to stay open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio

from forebay.config import read_secret
from forebay.database import Database, open_database, read_database_url
from forebay.errors import Unavailable
from forebay.forwarded import Forwards
from forebay.internal_tls import PeerTls
from forebay.metrics import Metrics, Number
from forebay.registries import open_registries
from forebay.rpc import Authorize, Peer, ServiceTokens, demand_text, open_peer, open_server
from forebay.sealed import Seal
from forebay.service import Ground, Service
from forebay.since import Since
from forebay.tls import serving_tls
from forebay.wire.v1 import (
    admin_pb2_grpc,
    batches_pb2_grpc,
    content_pb2_grpc,
    ephemeral_keys_pb2_grpc,
    security_pb2_grpc,
)
from forebay_admin.batches.desk import BatchesDesk
from forebay_admin.batches.opening import open_runner
from forebay_admin.changes import Changes
from forebay_admin.chat.opening import make_chat
from forebay_admin.config import AdminSettings
from forebay_admin.content.blob_store import open_blobs
from forebay_admin.content.content import ContentLimits
from forebay_admin.content.content_desk import ContentDesk
from forebay_admin.content.content_sweep import ContentSweep
from forebay_admin.desks import Means, make_desks
from forebay_admin.fleet import credential_store
from forebay_admin.fleet.agent_wheel import build_wheel
from forebay_admin.fleet.agents_file import AgentsFile
from forebay_admin.fleet.alerts_client import AlertsClient
from forebay_admin.fleet.credential_store import CredentialStore
from forebay_admin.fleet.enrolment import Enrolment
from forebay_admin.fleet.registry_client import RegistryClient
from forebay_admin.fleet.status_desk import DATABASE, NATS
from forebay_admin.http import JoinRoutes, open_http
from forebay_admin.keys.ephemeral_calls import EphemeralKeysServicer
from forebay_admin.ledger.keeping import LedgerKeeping
from forebay_admin.ledger.ledger import Ledger
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.rollup_store import RollupStore
from forebay_admin.ledger.rollups import Rollups
from forebay_admin.ledger.spending import Spending, names_in
from forebay_admin.meters import measure
from forebay_admin.money.charges import Charges
from forebay_admin.money.price_watch import PriceWatch
from forebay_admin.money.telling import Telling
from forebay_admin.notify.opening import open_notifying
from forebay_admin.operator import OperatorServicer
from forebay_admin.people.access import OPERATOR, SERVICE_RIGHTS, Access
from forebay_admin.people.bootstrap import ensure_first_admin
from forebay_admin.people.directory import Directory
from forebay_admin.queue.scheduler_client import SchedulerClient
from forebay_admin.quotas.carrying import Carrying
from forebay_admin.recordings.clerk import RecordingClerk
from forebay_admin.recordings.hooks import load_hooks
from forebay_admin.rest import answer_store
from forebay_admin.rest.answer_store import AnswerStore
from forebay_admin.rest.api import RestApi
from forebay_admin.security.opening import open_security
from forebay_admin.seeds.http import SeedRoutes
from forebay_admin.seeds.mindrouter.cluster import Cluster
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.opening import open_sign_in, session_lives
from forebay_admin.tables import SCHEMA
from forebay_admin.watch import WatchServicer
from forebay_admin.web.assets import Assets
from forebay_admin.web.cluster_facts import ClusterFacts
from forebay_admin.web.pages import Outside, open_pages
from forebay_admin.web.rendering import Rendering

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).parent / "migrations"

_DATABASE, _KEYS = "database", "keys"
_RETRY_S = 0.5


@asynccontextmanager
async def open_admin(settings: AdminSettings, ground: Ground) -> AsyncIterator[None]:
    url = read_database_url(settings.database_url, settings.database_url_file)
    pepper = read_secret(settings.pepper_file)
    credentials = CredentialStore(Seal.from_file(settings.seal_key_file, credential_store.PURPOSE))
    tokens = ServiceTokens(settings.callers_file, SERVICE_RIGHTS)
    changes, directory, prices = Changes(), Directory(), PriceWatch()
    ground.ops.not_ready(_DATABASE, "PostgreSQL was not reached yet")
    ground.ops.not_ready(_KEYS, "who holds which key was not read yet")
    watchers = _Watchers(ground.ops.metrics)
    ground.ops.metrics.gauge(
        "forebay_admin_version",
        "The newest change that this replica has heard of.",
        (),
        lambda: [((), changes.version)],
    )
    wheel = await asyncio.to_thread(build_wheel)
    blobs = await asyncio.to_thread(open_blobs, settings.content_dir)
    join_url = _join_url(settings)
    http_pin = settings.http_pin if join_url.startswith("https:") else None
    badges = Badges(session_lives(settings), pepper, ground.clock)
    assets = await asyncio.to_thread(Assets)
    rendering = Rendering(assets)
    async with (
        open_database(url, SCHEMA) as database,
        ground.open_bus(
            settings.nats_url,
            settings.nats_user,
            seed_file=settings.nats_seed_file,
            ca_file=settings.nats_ca_file,
            cert_file=settings.nats_cert_file,
            key_file=settings.nats_key_file,
            replicas=settings.nats_replicas,
        ) as bus,
        open_registries(
            settings.registry_address,
            token_file=settings.token_file,
            setting="[admin] registry_address",
            tls=settings.internal_tls,
        ) as registries,
        _peers(settings.scheduler_addresses, settings.token_file, settings.internal_tls) as scheduler_peers,
        serving_tls(settings.tls_cert, settings.tls_key) as tls,
        open_runner(settings, url, database, blobs, directory, pepper, ground) as batch_runner,
        open_notifying(settings, database, bus, ground.clock, ground.ops.metrics) as notifying,
        open_security(settings, database, changes, notifying.outbox, bus, ground.clock) as security,
        open_sign_in(
            settings,
            database,
            changes,
            directory,
            badges,
            pepper,
            ground.clock,
            rendering,
            own_url=join_url,
            on_refused=security.watchman.login_failed,
        ) as sign_in,
    ):
        registry = RegistryClient(registries.leading)
        own = Since(
            ground.clock,
            {DATABASE: lambda: ground.ops.missing.get(_DATABASE, ""), NATS: lambda: bus.is_connected},
        )
        scheduler = SchedulerClient(scheduler_peers)
        access = Access(tokens, directory, badges, pepper, ground.clock, security.watchman.call_refused)
        ledger_store = LedgerStore(database, Charges(lambda: prices.book).enter)
        desks = make_desks(
            Means(
                settings=settings,
                clock=ground.clock,
                database=database,
                changes=changes,
                directory=directory,
                pepper=pepper,
                credentials=credentials,
                registries=registries,
                scheduler=scheduler,
                registry=registry,
                own=own,
                prices=prices,
                ledger_store=ledger_store,
                notifying=notifying,
                sign_in=sign_in,
                security=security,
                join_url=join_url,
                http_pin=http_pin,
            )
        )
        enrolment = Enrolment(
            database,
            changes,
            registry,
            ground.clock,
            nats_url=settings.public_nats_url or settings.nats_url,
            ca_file=settings.ca_file,
        )
        ledger = Ledger(
            bus,
            ledger_store,
            ground.clock,
            ground.ops.metrics,
            lambda: prices.book,
            on_entered=notifying.thresholds.entered,
            spending=Spending(ground.ops.metrics, names_in(database)),
        )
        measure(ground.ops.metrics, database, bus, lambda: _DATABASE in ground.ops.missing)
        rollups = Rollups(RollupStore(database), ground.clock, ground.ops.metrics)
        ledger_keeping = LedgerKeeping(database, settings.keeping, ground.clock, ground.ops.metrics)
        recordings = RecordingClerk(
            bus,
            database,
            ground.clock,
            ground.ops.metrics,
            keep_days=settings.recording_days,
            hooks=load_hooks(),
        )
        telling = Telling(database, changes, ground.clock)
        carrying = Carrying(database, changes, ground.clock)
        batches = BatchesDesk(
            database,
            directory,
            ground.clock,
            most_unfinished=settings.batches_per_user,
            on_change=batch_runner.wake,
        )
        content = ContentDesk(database, directory, blobs, _content_limits(settings), ground.clock)
        chat = make_chat(settings, database, blobs, desks.people, registry, pepper, ground.clock)
        content_sweep = ContentSweep(database, blobs, ground.clock, chat.desk.sweep)
        agents_file = AgentsFile(settings.agents_file) if settings.agents_file is not None else None

        operator = OperatorServicer(access, desks, database, ground.clock)
        answers = AnswerStore(database, Seal.from_file(settings.seal_key_file, answer_store.PURPOSE))
        rest = RestApi(operator, access, answers, pepper, ground.clock, ground.ops.metrics)

        def add(server: grpc.aio.Server) -> None:
            watch = WatchServicer(database, changes, credentials, ground.clock, watchers.of)
            admin_pb2_grpc.add_AdminServicer_to_server(watch, server)
            admin_pb2_grpc.add_OperatorServicer_to_server(operator, server)
            ephemeral_keys_pb2_grpc.add_EphemeralKeysServicer_to_server(
                EphemeralKeysServicer(database, ground.clock), server
            )
            content_pb2_grpc.add_ContentServicer_to_server(content, server)
            security_pb2_grpc.add_SecurityServicer_to_server(security.servicer(watchers.of), server)
            batches_pb2_grpc.add_BatchesServicer_to_server(batches, server)

        def tell_database(why: str | None) -> None:
            if why is None:
                ground.ops.ready(_DATABASE)
            else:
                ground.ops.not_ready(_DATABASE, why)

        async def live() -> None:
            """What needs the database: from the moment it is there, for ever."""
            await database.prepare(MIGRATIONS, lambda why: ground.ops.not_ready(_DATABASE, why))
            await _bootstrap(settings, ground, database, changes, pepper)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(directory.follow(database, changes), name="directory")
                tasks.create_task(badges.follow(database, changes), name="badges")
                tasks.create_task(prices.follow(database, changes), name="prices")
                tasks.create_task(content_sweep.keep(), name="content-sweep")
                tasks.create_task(security.keep(), name="security")
                if agents_file is not None:
                    tasks.create_task(agents_file.follow(database, changes), name="agents-file")
                tasks.create_task(changes.follow(url, tell_database), name="changes")
                await prices.loaded()
                tasks.create_task(ledger.keep(), name="ledger")
                tasks.create_task(rollups.keep(), name="usage-sums")
                tasks.create_task(ledger_keeping.keep(), name="ledger-keeping")
                tasks.create_task(recordings.keep(), name="recordings")
                tasks.create_task(recordings.keep_young(), name="recordings-keeping")
                tasks.create_task(telling.keep(), name="telling-money")
                tasks.create_task(notifying.keep(), name="notifying")
                tasks.create_task(carrying.keep(), name="carrying-budgets")
                await directory.loaded()
                await badges.loaded()
                tasks.create_task(sign_in.keep(), name="sign-in")
                ground.ops.ready(_KEYS)
                tasks.create_task(batch_runner.keep(), name="batches")

        join = JoinRoutes(enrolment, wheel, join_url=join_url, http_pin=http_pin)
        seeds = SeedRoutes(
            operator,
            access,
            sign_in.door,
            Cluster(desks.fleet, desks.scheduler, desks.usage, ground.clock),
            pepper,
            ground.clock,
            has_public_status=settings.public_status,
        )
        outside = Outside(
            facts=ClusterFacts(
                registry, scheduler, desks.usage, AlertsClient(registries.leading), prices, ground.clock
            ),
            access_requests=desks.access_requests,
            is_public=settings.public_status,
            settings=settings,
            gateway_url=settings.shown_gateway_url,
            chat=chat,
        )
        async with asyncio.TaskGroup() as tasks:
            living = tasks.create_task(live(), name="admin")
            noting = tasks.create_task(own.watch(), name="note-standing")
            try:
                async with (
                    open_server(
                        settings.listen,
                        add,
                        access,
                        examine=demand_text,
                        entrance=OPERATOR.removeprefix("/"),
                        tls=settings.internal_tls,
                    ) as grpc_address,
                    _open_for_operators(settings, add, access.of_people),
                    open_pages(
                        operator, access, assets, rendering, pepper, ground.clock, outside, own_url=join_url
                    ) as pages,
                    open_http(
                        settings.http_listen,
                        join,
                        rest,
                        pages,
                        ground.ops,
                        [*sign_in.routes.routes(), *seeds.routes()],
                        tls=tls,
                        entrance=security.entrance(Forwards(pepper), rest.lets_in).middleware,
                    ) as http_address,
                ):
                    log.info("admin listens", extra={"action": "listen", "grpc": grpc_address, "http": http_address})
                    yield
            finally:
                living.cancel()
                noting.cancel()


service = Service("admin", AdminSettings, open_admin)


class _Watchers:
    """How many streams of each kind are open."""

    def __init__(self, metrics: Metrics) -> None:
        self._numbers: dict[str, Number] = {}
        metrics.gauge(
            "forebay_admin_watchers",
            "Services that watch this replica, by what they watch.",
            ("stream",),
            lambda: [((stream,), number.value) for stream, number in list(self._numbers.items())],
        )

    def of(self, stream: str) -> Number:
        return self._numbers.setdefault(stream, Number())


@asynccontextmanager
async def _peers(addresses: Sequence[str], token_file: Path, tls: PeerTls | None) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        opening = [open_peer(address, token_file=token_file, tls=tls) for address in addresses]
        yield [await stack.enter_async_context(one) for one in opening]


@asynccontextmanager
async def _open_for_operators(
    settings: AdminSettings, add: Callable[[grpc.aio.Server], None], authorize: Authorize
) -> AsyncIterator[None]:
    """The port of `operators_listen`: TLS without a certificate of the caller's. gRPC in Python knows ports that demand one
    and ports that take none, so there are two."""
    if settings.operators_listen is None:
        yield
        return
    async with open_server(
        settings.operators_listen,
        add,
        authorize,
        examine=demand_text,
        tls=settings.internal_tls,
        entrance=OPERATOR.removeprefix("/"),
        demands_certificates=False,
    ) as address:
        log.info("admin listens for operators", extra={"action": "listen", "grpc": address})
        yield


async def _bootstrap(
    settings: AdminSettings, ground: Ground, database: Database, changes: Changes, pepper: bytes
) -> None:
    while True:
        try:
            now = datetime.fromtimestamp(ground.clock.now(), UTC)
            await ensure_first_admin(database, changes, settings.bootstrap_key_file, pepper, now)
            return
        except Unavailable as error:
            ground.ops.not_ready(_DATABASE, error.message)
            await asyncio.sleep(_RETRY_S)


def _content_limits(settings: AdminSettings) -> ContentLimits:
    return ContentLimits(settings.content_per_user, settings.content_bytes_per_user, settings.content_max_blob_bytes)


def _join_url(settings: AdminSettings) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/")
    return f"{'https' if settings.tls_cert is not None else 'http'}://{settings.http_listen}"
