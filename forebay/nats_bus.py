"""The bus on NATS: connects in the background, comes back by itself, and binds everything anew when it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forebay.bus import ACK_WAIT_S, Backlog, Bucket, Consumer, Delivery, Entry, Message, WrongRevision
from forebay.config import read_secret
from forebay.errors import CannotStart, ForebayError, Unavailable
from forebay.internal_tls import PeerTls, client_context
from forebay.subjects import Stream

log = logging.getLogger(__name__)

_CALL_S = 2.0
_DUPLICATES_S = 120.0  # the server's own default for its duplicate window; it may not exceed the lifetime of entries
_WRONG_LAST_SEQUENCE = (10071, 10164)
_UNBOUNDED = -1  # bytes of a stream, as the server writes it
_RETRY_S = 0.1
_MOST_RETRY_S = 1.0


class _NatsDelivery:
    def __init__(self, bus: NatsBus, message: Any) -> None:
        self._bus = bus
        self._message = message
        self.payload: bytes = message.data
        self.subject: str = message.subject
        self.times_delivered: int = message.metadata.num_delivered

    async def ack(self) -> None:
        self._bus.demand_connection()
        # ack_sync: an acknowledgement lost with a connection would deliver a committed batch once more for nothing.
        with _as_unavailable():
            await self._message.ack_sync(timeout=_CALL_S)

    async def give_back(self, delay_s: float) -> None:
        self._bus.demand_connection()
        with _as_unavailable():
            await self._message.nak(delay=delay_s)


class _NatsConsumer:
    def __init__(self, bus: NatsBus, stream: Stream, durable: str) -> None:
        self._bus, self._stream, self._durable = bus, stream, durable
        self._connection: Any = None
        self._subscription: Any = None

    async def fetch(self, most: int, wait_s: float) -> Sequence[Delivery]:
        await self.bind()
        with _as_unavailable():
            try:
                messages = await self._subscription.fetch(most, timeout=wait_s)
            except TimeoutError:
                return []
        return [_NatsDelivery(self._bus, m) for m in messages]

    async def bind(self) -> None:
        """A subscription belongs to a connection; a new one needs it again (and a server that lost its disk, the rest)."""
        from nats.js.api import AckPolicy, ConsumerConfig

        connection = self._bus.demand_connection()
        if connection is self._connection:
            return
        await self._bus.ensure_stream(self._stream)
        config = ConsumerConfig(
            durable_name=self._durable,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=1000,
            max_deliver=-1,
        )
        with _as_unavailable():
            js = connection.jetstream(timeout=_CALL_S)
            await js.add_consumer(self._stream.name, config)
            self._subscription = await js.pull_subscribe_bind(consumer=self._durable, stream=self._stream.name)
        self._connection = connection


class _NatsBucket:
    def __init__(self, bus: NatsBus, name: str, entries_live_s: float | None) -> None:
        self._bus, self._name, self._entries_live_s = bus, name, entries_live_s
        self._connection: Any = None
        self._kv: Any = None
        self.created_at = 0.0

    async def get(self, key: str) -> Entry | None:
        from nats.js.errors import KeyNotFoundError

        async with self._bound() as kv:
            try:
                entry = await kv.get(key)
            except KeyNotFoundError:
                return None
        return Entry(entry.value or b"", entry.revision)

    async def put(self, key: str, value: bytes) -> int:
        async with self._bound() as kv:
            return int(await kv.put(key, value))

    async def update(self, key: str, value: bytes, revision: int) -> int:
        from nats.js.errors import KeyNotFoundError

        async with self._bound() as kv:
            if revision == 0:  # what a deletion leaves behind has a revision of its own
                try:
                    return int(await kv.create(key, value))
                except KeyNotFoundError:  # it was there, and its life ended while it was looked at
                    return int(await kv.create(key, value))
            return int(await kv.update(key, value, last=revision))

    async def delete(self, key: str, revision: int) -> None:
        async with self._bound() as kv:
            await kv.delete(key, last=revision)

    @asynccontextmanager
    async def _bound(self) -> AsyncIterator[Any]:
        """The bucket on today's connection, with the server's answers in the bus's words."""
        from nats.js.errors import APIError, NoStreamResponseError

        await self.bind()
        with _as_unavailable():
            try:
                async with asyncio.timeout(_CALL_S):
                    yield self._kv
            except NoStreamResponseError:  # somebody has deleted the bucket: the next call makes it anew
                self._connection = None
                raise
            except APIError as error:
                if _is_about_the_revision(error):
                    raise WrongRevision from error
                raise

    async def bind(self) -> None:
        """As a consumer's: again for each connection. A server that lost its disk gets the bucket anew, created later."""
        from nats.js.api import KeyValueConfig, StorageType
        from nats.js.errors import BadRequestError

        connection = self._bus.demand_connection()
        if connection is self._connection:
            return
        config = KeyValueConfig(
            bucket=self._name,
            history=1,
            storage=StorageType.FILE,
            ttl=self._entries_live_s,
            replicas=self._bus.replicas,
        )
        with _as_unavailable():
            js = connection.jetstream(timeout=_CALL_S)
            try:
                self._kv = await js.create_key_value(config)
            except BadRequestError:  # it exists with another lifetime, or another number of copies
                await self._settle(js)
                self._kv = await js.create_key_value(config)
            self.created_at = (await js.stream_info(f"KV_{self._name}")).created.timestamp()
        self._connection = connection

    async def _settle(self, js: Any) -> None:
        """In place: the stream's creation time and its revisions go on."""
        old = (await js.stream_info(f"KV_{self._name}")).config
        lifetime_s = self._entries_live_s or 0
        window_s = min(lifetime_s or _DUPLICATES_S, _DUPLICATES_S)
        changes = {"max_age": lifetime_s, "duplicate_window": window_s, "num_replicas": self._bus.replicas}
        await js.update_stream(old.evolve(**changes))


@dataclass(slots=True, eq=False)
class _Listener:
    """A subscription that outlives connections."""

    subject: str
    backlog: Backlog = field(default_factory=Backlog)
    connection: Any = None
    subscription: Any = None

    async def attach(self, connection: Any) -> None:
        if connection is not self.connection:
            self.subscription = await connection.subscribe(self.subject, cb=self.hear)
            self.connection = connection

    async def detach(self) -> None:
        if self.connection is not None and self.connection.is_connected:
            await self.subscription.unsubscribe()

    async def hear(self, message: Any) -> None:
        self.backlog.put(Message(message.subject, message.data))


class NatsBus:
    """NATS, one connection after another; it starts without one and never gives up.

    Each connection is a client of its own. nats-py's own reconnecting ends for good when the server sends a client away
    (its rights were changed), and when it succeeds it carries out what callers were long told had failed."""

    def __init__(self, replicas: int = 1) -> None:
        self.replicas = replicas
        """On how many servers of a cluster each stream and bucket lies."""
        self._connection: Any = None
        self._jetstream: Any = None
        self._up = asyncio.Event()
        self._listeners: set[_Listener] = set()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and bool(self._connection.is_connected)

    async def wait_connected(self) -> None:
        while not self.is_connected:
            self._up.clear()
            await self._up.wait()

    async def use(self, connection: Any) -> None:
        """From now on everything goes through `connection`; those who listen are told to it first."""
        for listener in list(self._listeners):
            await listener.attach(connection)
        self._connection, self._jetstream = connection, connection.jetstream(timeout=_CALL_S)
        self._up.set()

    async def publish(self, subject: str, payload: bytes) -> None:
        from nats.errors import Error

        if not self.is_connected:
            return
        try:
            await self._connection.publish(subject, payload)
        except Error as error:  # it closes at this moment, is choked, or its server takes no message of that size
            fields = {"action": "bus_dropped", "subject": subject, "bytes": len(payload), "error": repr(error)}
            log.warning("message dropped", extra=fields)

    @asynccontextmanager
    async def subscribe(self, subject: str) -> AsyncIterator[AsyncIterator[Message]]:
        from nats.errors import ConnectionClosedError

        listener = _Listener(subject)
        self._listeners.add(listener)
        try:
            await self.wait_connected()
            with suppress(ConnectionClosedError):  # then the next connection is told
                await listener.attach(self._connection)
            yield listener.backlog.messages()
        finally:
            self._listeners.discard(listener)
            await listener.detach()

    async def append(self, subject: str, payload: bytes) -> None:
        self.demand_connection()
        with _as_unavailable():
            await self._jetstream.publish(subject, payload)

    async def ensure_stream(self, stream: Stream) -> None:
        from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
        from nats.js.errors import BadRequestError

        self.demand_connection()
        config = StreamConfig(
            name=stream.name,
            subjects=list(stream.subjects),
            max_bytes=stream.max_bytes,
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            num_replicas=self.replicas,
        )
        with _as_unavailable():
            try:
                await self._jetstream.add_stream(config)
            except BadRequestError:  # it exists with other settings
                room = (await self._jetstream.stream_info(stream.name)).config.max_bytes or _UNBOUNDED
                if room == _UNBOUNDED or room > stream.max_bytes:
                    config.max_bytes = room  # whoever runs the servers has given it more
                await self._jetstream.update_stream(config)

    async def consumer(self, stream: Stream, durable: str) -> Consumer:
        consumer = _NatsConsumer(self, stream, durable)
        await consumer.bind()
        return consumer

    async def bucket(self, name: str, *, entries_live_s: float | None = None) -> Bucket:
        bucket = _NatsBucket(self, name, entries_live_s)
        await bucket.bind()
        return bucket

    def demand_connection(self) -> Any:
        """The client that is connected now. Raises Unavailable."""
        if not self.is_connected:
            raise Unavailable("The bus (NATS) is away; Forebay reconnects on its own.")
        return self._connection


@asynccontextmanager
async def open_nats_bus(
    url: str,
    name: str,
    *,
    seed_file: Path | None = None,
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    replicas: int = 1,
) -> AsyncIterator[NatsBus]:
    """Connects as the nkey user whose seed lies in `seed_file`, in the background. Its replies come to the private inbox
    `_INBOX_<name>.>`, the only one that this user may read. `url` may name several servers, with commas between;
    `replicas` is on how many of them what is kept lies. With
    `ca_file` it is TLS, with the certificate in `cert_file` and `key_file` where the server asks for one; each new
    connection reads them again. Raises CannotStart for a file that cannot be read."""
    options: dict[str, Any] = {
        "servers": [server.strip() for server in url.split(",")],
        "name": name,
        "inbox_prefix": f"_INBOX_{name}".encode(),
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,  # per call of `connect`, which otherwise tries for ever and says nothing
        "reconnect_time_wait": 0,
        "connect_timeout": 2,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
    }
    if seed_file is not None:
        read_secret(seed_file)
        options["nkeys_seed"] = str(seed_file)
    tls = PeerTls(ca_file, cert_file, key_file) if ca_file is not None else None
    if tls is not None:
        try:
            client_context(tls)
        except (OSError, ValueError) as error:
            raise CannotStart(
                f"The CA file {ca_file} of the bus{f' or the certificate {cert_file}' if cert_file else ''} cannot be used: "
                f"{error}."
            ) from error
    bus = NatsBus(replicas)
    staying = asyncio.create_task(_stay_connected(bus, options, tls), name="bus-connect")
    try:
        yield bus
    finally:
        while not staying.done():
            # More than once: nats-py's `connect` swallows a cancellation that comes just as a reply does.
            staying.cancel()
            await asyncio.wait([staying], timeout=0.1)


async def _stay_connected(bus: NatsBus, options: dict[str, Any], tls: PeerTls | None) -> None:
    shown = ",".join(server.rpartition("@")[2] for server in options["servers"])  # a URL may carry a password
    wait_s, told = _RETRY_S, False
    while True:
        try:
            if tls is not None:  # each time: files that were replaced meanwhile are the ones that count
                options["tls"] = await asyncio.to_thread(client_context, tls)
            async with _connected(bus, options) as gone:
                log.info("bus connected", extra={"action": "bus_connected", "url": shown})
                wait_s, told = _RETRY_S, False
                await gone()
            log.warning("bus away, reconnecting", extra={"action": "bus_away", "url": shown})
        except Exception as error:  # nats-py raises many families here; all of them mean "try again"
            if not told:
                log.warning("bus not reachable yet", extra={"action": "bus_wait", "url": shown, "error": str(error)})
                told = True
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, _MOST_RETRY_S)


@asynccontextmanager
async def _connected(bus: NatsBus, options: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """One connection, in use from entering to leaving; gives what to wait for until it is gone."""
    from nats.aio.client import Client
    from nats.errors import NoServersError

    client, closed = Client(), asyncio.Event()
    problems: list[str] = []

    async def on_error(error: Exception) -> None:
        text = str(error)
        level = logging.WARNING if "permissions violation" in text and text not in problems else logging.DEBUG
        log.log(level, "bus error", extra={"action": "bus_error", "error": text or repr(error)})
        if text not in problems:
            problems.append(text)

    async def on_closed() -> None:
        closed.set()

    async def gone() -> None:
        while client.is_connected:
            # nats-py forgets to call back when closing fails half-way, so look now and then.
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await closed.wait()

    try:
        try:
            await client.connect(**options, error_cb=on_error, closed_cb=on_closed)
        except NoServersError as error:
            raise Unavailable(problems[-1] if problems else str(error)) from error
        await bus.use(client)
        yield gone
    finally:
        await _close(client)


async def _close(client: Any) -> None:
    try:
        if client.is_connected:
            async with asyncio.timeout(1):
                await client.flush()
    except Exception as error:
        log.debug("bus flush failed", extra={"action": "bus_error", "error": repr(error)})
    try:
        await client.close()
    except Exception as error:
        log.debug("bus close failed", extra={"action": "bus_error", "error": repr(error)})


def _is_about_the_revision(error: Exception) -> bool:
    from nats.js.errors import KeyWrongLastSequenceError

    return isinstance(error, KeyWrongLastSequenceError) or getattr(error, "err_code", None) in _WRONG_LAST_SEQUENCE


class _as_unavailable:
    """Every way in which nats-py says "not now" becomes Unavailable.

    And a cancellation stays one: nats-py waits with `asyncio.wait_for`, which before Python 3.12 returns the answer instead
    when that comes at the same moment. A task that asks the bus in a loop would go on for ever."""

    def __enter__(self) -> None:
        self._cancellings = _cancellings()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if _cancellings() > self._cancellings:
            if not isinstance(error, asyncio.CancelledError):
                raise asyncio.CancelledError from error
            return
        # nats-py cancels its own waits when a connection closes; that is not the cancelling of this task.
        if isinstance(error, ForebayError) or not isinstance(error, Exception | asyncio.CancelledError):
            return
        raise Unavailable(f"The bus (NATS) did not answer: {error!r}") from error


def _cancellings() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
