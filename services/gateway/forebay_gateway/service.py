"""A gateway's one process: what is opened in which order, and how it drains. Everything else has a file of its own."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from aiohttp import web

from forebay.address_gate import AddressGate
from forebay.bus import Bus
from forebay.clock import Clock
from forebay.config import parse_address, read_secret
from forebay.delegation import Delegations
from forebay.errors import BadSettings
from forebay.follow import Followed, Follower
from forebay.forwarded import Forwards
from forebay.metrics import Metrics
from forebay.ops import Ops
from forebay.registries import open_registries
from forebay.rpc import Peer, open_peer
from forebay.sealed import Seal, SnapshotFile
from forebay.service import Ground
from forebay.tls import serving_tls
from forebay.traces.spans import opened
from forebay_gateway.admin_http import open_admin_http
from forebay_gateway.attempt_news import AttemptNews
from forebay_gateway.callers.address_rules_watch import AddressRulesWatch
from forebay_gateway.callers.credentials_watch import CredentialsWatch
from forebay_gateway.callers.delegates import Delegates
from forebay_gateway.callers.ephemeral import EphemeralKeys
from forebay_gateway.callers.ephemeral_spending import AdminSpending
from forebay_gateway.callers.guard import Guard
from forebay_gateway.callers.principals import Principals
from forebay_gateway.callers.principals_watch import PrincipalsWatch
from forebay_gateway.callers.security_news import SecurityNews
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoints
from forebay_gateway.config import GatewaySettings
from forebay_gateway.fleet import Fleet
from forebay_gateway.fleet_watch import FleetWatch
from forebay_gateway.front import Front
from forebay_gateway.held_body import BodyBudget
from forebay_gateway.http_in.accepting import accepting
from forebay_gateway.http_in.connection import HotConnection
from forebay_gateway.http_in.connections import Connections
from forebay_gateway.http_in.listening import open_listener, serve_on
from forebay_gateway.keeping.afterwork import open_afterwork
from forebay_gateway.keeping.batches import AdminBatches
from forebay_gateway.keeping.contents import AdminContents
from forebay_gateway.keeping.files import Files
from forebay_gateway.keeping.named_files import NamedFiles
from forebay_gateway.keeping.sealed_thoughts import PURPOSE as PURPOSE_OF_THOUGHTS
from forebay_gateway.keyring import Keyring
from forebay_gateway.ledger.estimate import TokenRatios
from forebay_gateway.ledger.journal import Journal, close_lost, hold_directory, next_generation, open_journal
from forebay_gateway.ledger.records import RecordPublisher
from forebay_gateway.ledger.usage_record import RecordForm, as_lost
from forebay_gateway.meters import make_meters
from forebay_gateway.pictures import Pictures
from forebay_gateway.public_web import open_public_web
from forebay_gateway.recordings.recorder import Recorder
from forebay_gateway.refused import Draining
from forebay_gateway.rules.first_tokens import FirstTokens
from forebay_gateway.rules.model_rules import ModelRules
from forebay_gateway.rules.model_rules_watch import ModelRulesWatch
from forebay_gateway.running import Running
from forebay_gateway.serving import Means
from forebay_gateway.silence import SilenceWatch
from forebay_gateway.slots.fence import Fence
from forebay_gateway.slots.places import Places
from forebay_gateway.slots.scheduler_session import SchedulerSession
from forebay_gateway.upstream import open_upstream
from forebay_gateway.workers.left_journals import publish_left
from forebay_gateway.workers.orders import left_journals
from forebay_gateway.workers.place import Place

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_GLANCE_S = 0.05  # at what is missing, before a process takes connections that another could take
_IDLE_S = 1.0  # a connection must have been, before it ends for whoever else takes from the same socket
_CUT_S = 2.0  # for clients to take the last event of a stream that is cut


@asynccontextmanager
async def serving_gateway(settings: GatewaySettings, ground: Ground, place: Place | None = None) -> AsyncIterator[str]:
    """Entered means ready, left means drained. Gives the address at which it listens, since `listen` may leave the port
    open. `place`: among other processes of the same gateway."""
    if settings.isolation not in ("serve", "refuse"):
        raise BadSettings([f"[gateway] isolation: {settings.isolation!r} is neither serve nor refuse"])
    clock, ops = ground.clock, ground.ops
    running, fleet, endpoints = Running(), Fleet(), VirtualEndpoints()
    bodies = BodyBudget(settings.held_bodies_bytes, settings.spooled_bodies_bytes, settings.spool_dir)
    pepper = read_secret(settings.pepper_file)
    principals, delegates = Principals(pepper), Delegates(Delegations(pepper))
    model_rules, first_tokens = ModelRules(), FirstTokens()
    draining = asyncio.Event()

    def on_keys_ended(key_ids: Iterable[str]) -> None:
        running.interrupt_queued(key_ids, principals.why_ended)

    def on_keys_cut(key_ids: Iterable[str]) -> None:
        running.interrupt_of(key_ids, principals.why_ended)

    bus_user = settings.nats_user or settings.name
    bus_name, number = (settings.name, 0) if place is None else (place.gateway, place.number)
    with hold_directory(settings.journal_dir):
        async with (
            ground.open_bus(
                settings.nats_url,
                bus_user,
                seed_file=settings.nats_seed_file,
                ca_file=settings.nats_ca_file,
                cert_file=settings.nats_cert_file,
                key_file=settings.nats_key_file,
            ) as bus,
            open_peer(settings.admin_address, token_file=settings.token_file, tls=settings.internal_tls) as admin,
            open_registries(
                settings.registry_address,
                token_file=settings.token_file,
                setting="[gateway] registry_address",
                tls=settings.internal_tls,
            ) as registries,
            _open_schedulers(settings) as schedulers,
            serving_tls(settings.tls_cert, settings.tls_key) as tls,
        ):
            credentials = CredentialsWatch(admin)
            meters = make_meters(ops.metrics)
            keyring = Keyring(credentials.held, clock, meters.note_credential)
            async with (
                open_upstream(keyring, settings.connect_s, allow_link_local=settings.allow_link_local) as upstream,
                open_public_web(settings.trusted_picture_hosts) as public_web,
                open_admin_http(settings, Forwards(pepper), clock) as admin_http,
                open_afterwork() as afterwork,
            ):
                generation, journal = await asyncio.to_thread(_take_up_journal, settings, clock.now())
                publisher = RecordPublisher(journal, bus, bus_name)
                fleet_watch = FleetWatch(registries.peers, fleet, endpoints)
                followers = [
                    Follower(followed, _snapshot_file(settings, followed), clock, ops)
                    for followed in (
                        PrincipalsWatch(admin, principals, on_keys_ended, on_keys_cut),
                        credentials,
                        fleet_watch,
                    )
                ]
                # Without any rule yet, or with an admin that knows of none, requests pass as they come.
                ruling = ModelRulesWatch(admin, model_rules)
                followers.append(Follower(ruling, _snapshot_file(settings, ruling), clock, ops, is_needed=False))
                security_news = SecurityNews(admin, settings.name, clock)
                guard = Guard(AddressGate(), principals, security_news, settings.proxies, clock)
                # As above: what keeps strangers out are keys.
                gating = AddressRulesWatch(admin, guard, clock)
                followers.append(Follower(gating, _snapshot_file(settings, gating), clock, ops, is_needed=False))
                fence = Fence(settings.fence_s)
                places = Places(
                    clock=clock,
                    fleet=fleet,
                    fence=fence,
                    meters=meters,
                    uses_credits=settings.credits,
                    on_revoke=running.interrupt,
                    on_cutoff=running.cut_off,
                    on_drained=running.place_elsewhere,
                    on_emptied=running.leave_backend,
                )
                session = SchedulerSession(
                    schedulers,
                    places,
                    fence,
                    gateway=settings.name,
                    generation=generation,
                    clock=clock,
                    ops=ops,
                    local_after_s=settings.local_after_s,
                )
                attempt_news = AttemptNews(bus, bus_name, clock, worker=number)
                contents = AdminContents(admin)
                recorder = Recorder(
                    bus,
                    bus_name,
                    ops.metrics,
                    body_bytes=settings.recorded_body_bytes,
                    held_bytes=settings.recordings_held_bytes,
                )
                means = Means(
                    settings=settings,
                    clock=clock,
                    principals=principals,
                    guard=guard,
                    delegates=delegates,
                    ephemerals=EphemeralKeys(pepper),
                    spending=AdminSpending(admin),
                    endpoints=endpoints,
                    fleet=fleet,
                    model_rules=model_rules,
                    slots=places,
                    upstream=upstream,
                    journal=journal,
                    form=RecordForm(settings.name, generation),
                    ratios=TokenRatios(),
                    first_tokens=first_tokens,
                    bodies=bodies,
                    pictures=Pictures(settings.max_picture_bytes),
                    named_files=NamedFiles(Files(contents, clock)),
                    public_web=public_web,
                    running=running,
                    meters=meters,
                    attempt_news=attempt_news,
                    recorder=recorder,
                    contents=contents,
                    batches=AdminBatches(admin),
                    admin_http=admin_http,
                    thoughts=Seal(pepper, PURPOSE_OF_THOUGHTS),
                    afterwork=afterwork,
                    is_draining=draining,
                    traces=opened(),
                )
                ops.metrics.gauge(
                    "forebay_gateway_credentials_quarantined",
                    "1 for each credential that rests, since its provider refuses it or its rate is reached.",
                    ("backend", "label", "fault"),
                    keyring.resting,
                )
                ops.metrics.gauge(
                    "forebay_gateway_first_token_seconds",
                    "From asking for a model to its first token, waiting included, as lately seen of what is streamed.",
                    ("pool", "model"),
                    lambda: [((pool, model), s) for pool, model, s in first_tokens.lately(clock.monotonic())],
                )
                loop = asyncio.get_running_loop()
                ops.metrics.gauge(
                    "forebay_gateway_tasks",
                    "Of its event loop: some for the process, and one or two for each request under way.",
                    (),
                    _reading(lambda: len(asyncio.all_tasks(loop))),
                )
                ops.metrics.gauge(
                    "forebay_gateway_fleet_version",
                    "Of the newest change of the fleet that is known here, by the registry's count.",
                    (),
                    _reading(lambda: fleet_watch.version),
                )
                _add_gauges(ops.metrics, running, journal, session, places, bodies, guard, bus)
                ops.metrics.gauge(
                    "forebay_gateway_journal_limit_bytes",
                    "What the journal's files may hold; beyond, new requests are refused.",
                    (),
                    _reading(lambda: settings.journal_segments * settings.journal_segment_bytes),
                )
                for follower in followers:
                    await follower.start()
                front = Front(means)
                ops.metrics.gauge(
                    "forebay_gateway_background",
                    "Responses in the background that are under way here.",
                    (),
                    _reading(lambda: front.background.under_way),
                )
                others = front.make_server()
                connections = Connections(front.hot, others)
                make_protocol = partial(HotConnection, connections) if settings.hot_path else others
                left = [] if place else await asyncio.to_thread(left_journals, settings.journal_dir, settings.workers)
                async with asyncio.TaskGroup() as tasks:
                    background = [
                        tasks.create_task(session.run(), name="scheduler-session"),
                        tasks.create_task(publisher.run(), name="usage-records"),
                        tasks.create_task(recorder.run(), name="recordings"),
                        tasks.create_task(attempt_news.run(), name="attempt-news"),
                        tasks.create_task(security_news.run(), name="security-news"),
                        tasks.create_task(connections.watch(), name="connections"),
                        tasks.create_task(_end_late(running, fleet, clock, settings), name="lost"),
                        tasks.create_task(publish_left(left, settings, bus), name="left-journals"),
                        tasks.create_task(
                            SilenceWatch(running, fleet, upstream, clock, settings.silent_look_s).run(), name="silence"
                        ),
                        *(tasks.create_task(f.follow(), name="follow") for f in followers),
                        *(tasks.create_task(f.keep(), name="keep") for f in followers),
                    ]
                    try:
                        try:
                            async with _listening(make_protocol, settings, tls, place, ops) as site:
                                yield site
                        finally:
                            until = clock.monotonic() + settings.drain_s
                            if settings.listen_descriptor:
                                await connections.leave(_IDLE_S, settings.drain_s)
                            draining.set()
                            await _drain(connections, others, running, max(0.0, until - clock.monotonic()))
                            await session.leave()
                    finally:
                        for task in background:
                            task.cancel()
                await publisher.flush(settings.publish_s)
                await recorder.flush(settings.publish_s)
                await journal.leave()


@asynccontextmanager
async def _open_schedulers(settings: GatewaySettings) -> AsyncIterator[dict[str, Peer]]:
    """By address. Raises BadSettings."""
    addresses = [address.strip() for address in settings.scheduler_address.split(",") if address.strip()]
    if not addresses:
        raise BadSettings(["[gateway] scheduler_address: it names no scheduler"])
    async with AsyncExitStack() as stack:
        yield {
            address: await stack.enter_async_context(
                open_peer(address, token_file=settings.token_file, tls=settings.internal_tls)
            )
            for address in dict.fromkeys(addresses)
        }


def _take_up_journal(settings: GatewaySettings, now: float) -> tuple[int, Journal]:
    """Blocking."""
    generation = next_generation(settings.journal_dir, now)
    journal = open_journal(settings.journal_dir, settings.journal_segment_bytes, settings.journal_segments)
    lost = close_lost(journal, as_lost)
    if lost or journal.unpublished:
        log.info(
            "journal taken up",
            extra={"action": "journal", "unpublished": journal.unpublished, "lost_requests": lost},
        )
    return generation, journal


def _snapshot_file(settings: GatewaySettings, followed: Followed) -> SnapshotFile:
    purpose = f"{settings.name}-{followed.name}"
    seal = Seal.from_file(settings.snapshot_key_file, purpose)
    return SnapshotFile(settings.snapshot_dir / f"{purpose}.snapshot", seal, settings.snapshot_max_age_s)


@asynccontextmanager
async def _listening(
    make_protocol: Callable[[], asyncio.Protocol],
    settings: GatewaySettings,
    tls: ssl.SSLContext | None,
    place: Place | None,
    ops: Ops,
) -> AsyncIterator[str]:
    """Gives HOST:PORT. Until left connections are taken; then those that there are go on. Raises CannotStart."""
    listener = open_listener(settings) if place is None else place.listener
    if place is None and settings.listen_descriptor:
        await _wait_ready(ops, settings.listen_wait_s)
    host, _ = parse_address(settings.listen)
    address = f"{host}:{listener.getsockname()[1]}"
    serving = (
        serve_on(listener, make_protocol, tls)
        if place is None
        else accepting(
            listener,
            make_protocol,
            tls,
            place.seat,
            patience_s=place.patience_s,
            first=partial(_wait_ready, ops, settings.listen_wait_s),
        )
    )
    async with serving:
        yield address


async def _wait_ready(ops: Ops, within_s: float) -> None:
    """But not for long. Others may be ready while this process would have to refuse what it takes; if none is, clients are
    to hear why."""
    for _ in range(round(within_s / _GLANCE_S)):
        if not ops.missing.keys() - {"start"}:
            return
        await asyncio.sleep(_GLANCE_S)


async def _drain(connections: Connections, others: web.Server, running: Running, within_s: float) -> None:
    """No connections are taken any more; what runs may finish, and is told when it may not."""
    connections.drain()
    others.pre_shutdown()
    if not await running.wait_empty(within_s):
        log.warning("running requests are cut", extra={"action": "drain_cut", "requests": len(running)})
        running.interrupt_all(Draining())
        await running.wait_empty(_CUT_S)
    await connections.cut(_CUT_S)
    others.pre_shutdown()
    await others.shutdown(_CUT_S)


async def _end_late(running: Running, fleet: Fleet, clock: Clock, settings: GatewaySettings) -> None:
    """A wait on an engine that hangs would hold its clients for ever. One look at all of them, and no timer of each."""
    while True:
        await asyncio.sleep(_LOOK_S)
        running.leave_overdue(clock.monotonic(), longest_s=settings.max_duration_s, queue_s=settings.max_queue_s)
        running.leave_silent(
            fleet.is_lost, clock.monotonic(), lost_idle_s=settings.lost_idle_s, gap_s=settings.stream_gap_s
        )


def _add_gauges(
    metrics: Metrics,
    running: Running,
    journal: Journal,
    session: SchedulerSession,
    places: Places,
    bodies: BodyBudget,
    guard: Guard,
    bus: Bus,
) -> None:
    for name, about, read in (
        ("bans", "Bans of addresses that are known here.", lambda: guard.gate.bans),
        ("running", "Requests that are being served, queued ones included.", lambda: len(running)),
        ("waiting", "Requests that wait for a slot.", lambda: places.waiting),
        ("bus_connected", "1 while the bus is there.", lambda: int(bus.is_connected)),
        ("scheduler_connected", "1 while a scheduler session stands.", lambda: int(session.is_connected)),
        ("local", "1 while requests begin locally, since no scheduler leads.", lambda: int(places.is_local)),
        ("ceiling_slots", "Slots that this gateway may hold, over all backends.", lambda: places.ceiling_slots),
        ("credit_slots", "Slots lent to this gateway on credit.", lambda: places.credit_slots),
        ("settles_unconfirmed", "Settles that no stored snapshot is known to hold.", lambda: places.unconfirmed),
        ("journal_bytes", "Of the journal's files in use.", lambda: journal.used_bytes),
        ("records_unpublished", "Closed records that the bus has not acknowledged.", lambda: journal.unpublished),
        ("held_body_bytes", "Request bodies in memory whose answers have not begun.", lambda: bodies.held_bytes),
        (
            "spooled_body_bytes",
            "Request bodies on the disk whose answers have not begun.",
            lambda: bodies.spooled_bytes,
        ),
    ):
        metrics.gauge(f"forebay_gateway_{name}", about, (), _reading(read))


def _reading(read: Callable[[], int]) -> Callable[[], list[tuple[tuple[str, ...], float]]]:
    return lambda: [((), float(read()))]
