"""gRPC, the same way everywhere: every call is authenticated, errors cross as our own family, deadlines are passed on.

Metadata: `authorization: Bearer <token>`. Service tokens come from files; a server knows only their SHA-256. With a PeerTls
both sides show certificates as well, and whose token it is has to be whose certificate it is."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import Message

from forebay import errors
from forebay.config import parse_address, read_secret
from forebay.errors import CannotStart, ForebayError, NotAllowed, NotAuthenticated
from forebay.internal_tls import PeerTls, Pem, WatchedTls
from forebay.plain_message import nul_place
from forebay.renewed_channel import RenewedChannel
from forebay.traces.calls import TracedChannel, answering
from forebay.traces.spans import Traces, opened

log = logging.getLogger(__name__)

Metadata = tuple[tuple[str, str], ...]
Authorize = Callable[[str, str | None], str]
"""(full method name, bearer token or None) → the caller's name. Raises NotAuthenticated or NotAllowed."""

caller: ContextVar[str] = ContextVar("caller")
"""Who makes the call that is being answered."""

caller_address: ContextVar[str] = ContextVar("caller_address", default="")
"""Where it comes from: an IP address. Empty: from no network."""

certificate_names: ContextVar[frozenset[str] | None] = ContextVar("certificate_names", default=None)
"""Of the certificate that the caller showed: its common name, and without one the first label of each of its DNS names.
None: a port that asks for none."""

_EARLY_S = 0.02  # less than the caller's deadline, so that we can still say which step was late
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_FIRST_WORD_S = 5.0
"""How long a caller that is to be refused may take to send its first message."""
_MAX_MESSAGE = 64 * 1024 * 1024
_NOT_OURS = (grpc.aio.BaseError, NotImplementedError)
"""What gRPC itself raises in a handler, and makes a status of."""

_CODES: tuple[tuple[type[ForebayError], grpc.StatusCode], ...] = (
    (errors.BadInput, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.NotPossible, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotAuthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
)


# --- serving ----------------------------------------------------------------------------------------------------------


class ServiceTokens:
    """Which service calls, and what it may. The file has a line `name sha256-in-hex` for each caller; it is read again
    when it changes, so that a token can be replaced without a restart."""

    def __init__(self, file: Path, rights: Mapping[str, frozenset[str]]) -> None:
        """`rights`: service or full method name, such as `/forebay.wire.v1.Scheduler/Session` → callers allowed."""
        self._file = file
        self._rights = rights
        self._stamp = (0, 0)
        self._names: dict[str, str] = {}
        self._read()

    def __call__(self, method: str, bearer: str | None) -> str:
        if bearer is None:
            raise NotAuthenticated("This port needs a service token (authorization: Bearer …).")
        name = self._read().get(hashlib.sha256(bearer.encode()).hexdigest())
        if name is None:
            raise NotAuthenticated("This service token is not known here.")
        shown = certificate_names.get()
        if shown is not None and not any(is_certificate_of(name, one) for one in shown):
            raise NotAuthenticated(
                f"The token is {name}'s and the certificate is that of {', '.join(sorted(shown)) or 'nobody'}: a part needs "
                "a certificate of its own name, such as `forebay pki` issues."
            )
        allowed = self._rights.get(method) or self._rights.get(method.rpartition("/")[0] + "/*", frozenset())
        if name not in allowed:
            raise NotAllowed(f"{name} may not call {method}.")
        return name

    def _read(self) -> dict[str, str]:
        try:
            found = (
                self._file.stat()
            )  # at each call: a token that was taken out must not live on until another is asked for
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                lines = (line.split() for line in self._file.read_text().splitlines() if line.strip())
                self._names = {digest: name for name, digest in lines}
                self._stamp = stamp
        except (OSError, ValueError) as error:
            if self._stamp == (0, 0):
                raise CannotStart(f"The file of service tokens {self._file} cannot be read: {error}") from error
            log.warning("service tokens unreadable, keeping the old ones", extra={"action": "tokens_unreadable"})
        return self._names


def is_certificate_of(part: str, name: str) -> bool:
    """Whether a certificate of that name may be used with the token of `part`: gateway-1 and gateway-2 are gateways."""
    return name == part or name.startswith(f"{part}-")


def render_tokens(tokens: Mapping[str, str]) -> str:
    """The file that ServiceTokens reads, from name → token."""
    return "".join(f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n" for name, token in sorted(tokens.items()))


@asynccontextmanager
async def open_server(
    listen: str,
    add: Callable[[grpc.aio.Server], None],
    authorize: Authorize,
    *,
    grace_s: float = 1.0,
    examine: Callable[[Any], None] = lambda request: None,
    tls: PeerTls | None = None,
    demands_certificates: bool = True,
    entrance: str = "",
) -> AsyncIterator[str]:
    """Serves on `listen` (HOST:PORT, port 0 for any) until left; gives the address. `examine` raises for a request, of those
    that are one message, that no call of this server takes. With `tls`, callers have to show a certificate of one of its
    authorities, unless `demands_certificates` is false; each new connection is made with the newest files. `entrance`:
    the service whose calls begin traces of their own. Raises CannotStart."""
    demands_certificates = tls is not None and demands_certificates
    credentials = _server_credentials(WatchedTls(tls), demands_certificates) if tls is not None else None
    server = grpc.aio.server(
        interceptors=[_Edge(authorize, examine, demands_certificates, opened(), entrance)],
        options=(*KEEPALIVE, ("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_MESSAGE)),
    )
    add(server)
    host, _ = parse_address(listen)
    try:
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except RuntimeError as error:
        raise CannotStart(f"The gRPC port {listen} cannot be opened; is another Forebay running?") from error
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(grace_s)


def _server_credentials(watched: WatchedTls, demands_certificates: bool) -> grpc.ServerCredentials:
    held: Pem | None = None

    def newer() -> Any:
        nonlocal held
        pem = watched.newest(at_once=True)
        if pem.cert is None or pem.key is None:
            raise CannotStart("A gRPC port with TLS needs a certificate and its key.")
        # None for what it has already: at each configuration gRPC replaces what handshakes are made with, and where that was
        # done for each of several at once, a process has been seen to die in gRPC's own code.
        if pem is held:
            return None
        held = pem
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], root_certificates=pem.ca)

    # gRPC asks before each handshake; connections that are open keep what they began with.
    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        newer(), newer, require_client_authentication=demands_certificates
    )
    return credentials


class _Edge(grpc.aio.ServerInterceptor):
    """Around every call: who calls, how long there is, and what an error becomes."""

    def __init__(
        self,
        authorize: Authorize,
        examine: Callable[[Any], None],
        sees_certificates: bool,
        traces: Traces | None,
        entrance: str,
    ) -> None:
        self._traces, self._entrance = traces, entrance
        self._authorize = authorize
        self._examine = examine
        self._sees_certificates = sees_certificates

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        details = handler_call_details
        handler: Any = await continuation(details)
        if handler is None:
            return None
        method = details.method
        bearer = _bearer(details.invocation_metadata)

        if handler.response_streaming:

            async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
                if handler.request_streaming:
                    request = _Requests(request)
                try:
                    self._note_caller(context)
                    caller.set(self._authorize(method, bearer))
                    if not handler.request_streaming:
                        self._examine(request)
                    async with aclosing(handler_call(request, context)) as responses:
                        async for response in responses:
                            yield response
                except ForebayError as error:
                    await _first_word(request)
                    await _abort(context, error)
                except _NOT_OURS:
                    raise
                except Exception:
                    await _abort_unforeseen(context, method)

            handler_call = handler.stream_stream if handler.request_streaming else handler.unary_stream
            wrap = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            return wrap(stream, handler.request_deserializer, handler.response_serializer)

        async def unary(request: Any, context: Any) -> Any:
            """Of one request, or of a stream of them."""
            if handler.request_streaming:
                request = _Requests(request)
            try:
                self._note_caller(context)
                caller.set(self._authorize(method, bearer))
                if not handler.request_streaming:
                    self._examine(request)
                remaining = context.time_remaining()
                async with asyncio.timeout(None if remaining is None else max(0.0, remaining - _EARLY_S)) as deadline:
                    return await handler_call(request, context)
            except TimeoutError:
                if not deadline.expired():
                    raise  # the handler's own
                await context.abort(
                    grpc.StatusCode.DEADLINE_EXCEEDED, f"{method} did not finish in the time its caller gave."
                )
            except ForebayError as error:
                await _first_word(request)
                await _abort(context, error)
            except _NOT_OURS:
                raise
            except Exception:
                await _abort_unforeseen(context, method)

        handler_call = handler.stream_unary if handler.request_streaming else handler.unary_unary
        if self._traces is not None:
            handler_call = answering(handler_call, method, details.invocation_metadata, self._traces, self._entrance)
        wrap = (
            grpc.stream_unary_rpc_method_handler if handler.request_streaming else grpc.unary_unary_rpc_method_handler
        )
        return wrap(unary, handler.request_deserializer, handler.response_serializer)

    def _note_caller(self, context: Any) -> None:
        """Before it is asked who calls, for which both may count."""
        caller_address.set(peer_address(context.peer()))
        certificate_names.set(_names(context.auth_context()) if self._sees_certificates else None)


class _Requests:
    """What a caller streams, and whether any of it was read."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._requests = requests
        self._reading: AsyncIterator[Any] | None = None

    @property
    def is_read(self) -> bool:
        return self._reading is not None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        if self._reading is None:  # not before: gRPC's iterator complains when it was made and nobody reads
            self._reading = aiter(self._requests)
        return await anext(self._reading)


async def _first_word(request: Any) -> None:
    """Before a stream of requests is refused: a refusal that crosses the caller's first message reaches it as a broken call
    (INTERNAL), without the reason."""
    if not isinstance(request, _Requests) or request.is_read:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_WORD_S):
            await anext(request, None)


def demand_text(request: Message) -> None:
    """Raises BadInput for a text with a NUL character, which PostgreSQL keeps nowhere."""
    if place := nul_place(request):
        raise errors.BadInput(f"{place}: no text here may hold a NUL character.")


def peer_address(peer: str) -> str:
    """`ipv4:192.0.2.1:54321` → 192.0.2.1; `ipv6:%5B::1%5D:54321` → ::1; empty for what is no IP address."""
    kind, _, place = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(place).rpartition(":")[0].strip("[]")


def _names(shown: Mapping[str, Sequence[bytes]]) -> frozenset[str]:
    """Hosts count only where there is no other name: whoever serves others may well be reached by a name that begins so."""
    common = [name.decode(errors="replace") for name in shown.get("x509_common_name", ()) if name]
    return frozenset(common or [name.decode(errors="replace").partition(".")[0] for name in shown.get("peer_dns", ())])


def _bearer(metadata: Any) -> str | None:
    for name, value in metadata or ():
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:].strip()
    return None


async def _abort(context: Any, error: ForebayError) -> None:
    code = next((c for kind, c in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    trailing = [("forebay-reason", str(error.reason))]
    if error.retry_after_s is not None:
        trailing.append(("forebay-retry-after-ms", str(round(error.retry_after_s * 1000))))
    await context.abort(code, error.message, tuple(trailing))


async def _abort_unforeseen(context: Any, method: str) -> None:
    """What such an error says (a statement of SQL, a path) is for the log of the one that was asked alone."""
    log.exception("a call failed as nobody foresaw", extra={"action": "internal", "method": method})
    await _abort(context, ForebayError("A mistake of Forebay's own; the log of the service that was asked has it."))


# --- calling ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """A channel to another service and the metadata that each call on it carries:
    `stub = SchedulerStub(peer.channel)`, then `stub.Session(frames, metadata=peer.metadata)`."""

    channel: grpc.aio.Channel
    metadata: Metadata


@asynccontextmanager
async def open_peer(
    address: str, *, token: str | None = None, token_file: Path | None = None, tls: PeerTls | None = None
) -> AsyncIterator[Peer]:
    """Connects when first used, and again whenever the other side returns (within a second). With `tls` it has to be one of
    its authorities' and of that address; new files are taken up without a break. Raises CannotStart."""
    if token_file is not None:
        token = read_secret(token_file).decode()
    options = (
        *KEEPALIVE,
        ("grpc.initial_reconnect_backoff_ms", 100),
        # How long one attempt may take, not how long to wait between two: a peer far away or busy needs several round trips.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", _MAX_MESSAGE),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    channel = (
        grpc.aio.insecure_channel(address, options=options)
        if tls is None
        else RenewedChannel(address, options, WatchedTls(tls))
    )
    try:
        traces = opened()
        used = channel if traces is None else cast(grpc.aio.Channel, TracedChannel(channel, traces))
        yield Peer(used, (("authorization", f"Bearer {token}"),) if token else ())
    finally:
        await channel.close()


@contextmanager
def translated() -> Iterator[None]:
    """Around a call: a gRPC error becomes the member of our family that the other side raised."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise as_forebay_error(error) from error


def as_forebay_error(error: grpc.aio.AioRpcError) -> ForebayError:
    trailing = {name: value for name, value in error.trailing_metadata() or ()}
    kind = next((k for k, code in _CODES if code == error.code()), None)
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        kind = errors.Unavailable
    after = trailing.get("forebay-retry-after-ms")
    retry_after_s = int(after) / 1000 if after else None
    if kind is None:
        return ForebayError(f"{error.code().name}: {error.details()}", retry_after_s=retry_after_s)
    return kind(error.details() or None, retry_after_s=retry_after_s)
