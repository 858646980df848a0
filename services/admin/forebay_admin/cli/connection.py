"""Where admin is and what lets us in: FOREBAY_ADMIN and FOREBAY_TOKEN, else what `forebay login` kept, else the
connection.json that `forebay up` wrote. FOREBAY_ADMIN_CA names the authority of a gRPC port that speaks TLS.

Every command makes its calls through `ask`, so that whatever goes wrong on the way is one clear sentence. gRPC is imported
only then: a shell that completes a command waits for all that the command imports."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from google.protobuf.message import Message

from forebay.config import parse_address
from forebay.errors import BadInput, ForebayError, Unavailable
from forebay_admin.cli.login_file import login_path, read_login

if TYPE_CHECKING:
    import grpc.aio

    from forebay.wire.v1 import admin_pb2_grpc

DEADLINE_S = 15.0

T = TypeVar("T")
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Connection:
    admin: str
    """HOST:PORT of admin's gRPC port."""
    token: str = field(repr=False)
    """A Forebay key."""
    source: str
    """Where we know that from, for a message to a person."""
    ca: Path | None = None
    """The authority of its certificate (PEM). None: it speaks plain gRPC."""


class Calls(Protocol):
    """The operator's calls: `await calls(calls.stub.ListKeys, ListKeysRequest())`."""

    @property
    def stub(self) -> admin_pb2_grpc.OperatorAsyncStub: ...

    async def __call__(self, method: Callable[..., Awaitable[R]], request: Message) -> R: ...

    def stream(self, method: Callable[..., AsyncIterable[R]], request: Message) -> AsyncIterator[R]:
        """Each answer of a call that has several, for as long as it takes."""


def find_connection(environ: Mapping[str, str] = os.environ, *, is_root: bool | None = None) -> Connection:
    """Raises BadInput when there is none, or half of one."""
    admin, token = environ.get("FOREBAY_ADMIN", ""), environ.get("FOREBAY_TOKEN", "").strip()
    if not (token.isascii() and token.isprintable()):
        raise BadInput("FOREBAY_TOKEN is not a key: it would begin with fb- and have no spaces or accents in it.")
    if admin:
        _demand_address(admin)
        if not token:
            # The key in connection.json belongs to the Forebay of this machine: it is not sent elsewhere.
            raise BadInput("FOREBAY_ADMIN is set, FOREBAY_TOKEN is not: set it to a key (fb-…) of that Forebay.")
        return Connection(admin, token, "FOREBAY_ADMIN", _given_ca(environ))
    # A directory that was named is meant; else whoever signed in means where that was, and not what may run here as well.
    held = read_login(environ) if not environ.get("FOREBAY_DATA_DIR") else None
    if held is not None:
        return Connection(held.admin, token or held.token, str(login_path(environ)), _given_ca(environ))
    for directory in data_directories(environ, os.geteuid() == 0 if is_root is None else is_root):
        found = _read(directory / "connection.json")
        if found is not None:
            return replace(found, token=token or found.token)
    raise BadInput(
        "No Forebay is known here. Start one with `forebay up`, sign in with `forebay login --url …`, or set FOREBAY_ADMIN "
        "(host:port of admin's gRPC port) and FOREBAY_TOKEN (a key). One that runs on another data directory is found with "
        "FOREBAY_DATA_DIR."
    )


def admin_url(environ: Mapping[str, str], *, is_root: bool | None = None) -> str:
    """Of admin's HTTP port on this machine. Raises BadInput."""
    for directory in data_directories(environ, os.geteuid() == 0 if is_root is None else is_root):
        try:
            return str(json.loads((directory / "connection.json").read_text())["admin_http"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    raise BadInput("Say where to sign in: forebay login --url https://admin.example.org")


def data_directories(environ: Mapping[str, str], is_root: bool) -> list[Path]:
    """Where `forebay up` keeps its data, the likeliest first."""
    if environ.get("FOREBAY_DATA_DIR"):
        return [Path(environ["FOREBAY_DATA_DIR"]).expanduser()]
    home = Path(environ.get("XDG_DATA_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".local" / "share")
    own = home / "forebay"
    return [Path("/var/lib/forebay"), own] if is_root else [own]


def ask(work: Callable[[Calls], Awaitable[T]]) -> T:
    """Runs `work` with the calls of the Forebay that is found. Raises whatever of our family the other side raised, and
    Unavailable when nothing answers."""
    import asyncio

    connection = find_connection()
    return asyncio.run(_ask(connection, work))


async def _ask(connection: Connection, work: Callable[[Calls], Awaitable[T]]) -> T:
    from forebay.internal_tls import PeerTls
    from forebay.rpc import open_peer
    from forebay.wire.v1 import admin_pb2_grpc

    tls = PeerTls(connection.ca) if connection.ca is not None else None
    async with open_peer(connection.admin, token=connection.token, tls=tls) as peer:
        stub: admin_pb2_grpc.OperatorAsyncStub = admin_pb2_grpc.OperatorStub(peer.channel)
        return await work(_Calls(connection, stub, peer.metadata))


class _Calls:
    def __init__(
        self, connection: Connection, stub: admin_pb2_grpc.OperatorAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self._connection = connection
        self.stub = stub
        self._metadata = metadata

    async def __call__(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        import grpc.aio

        try:
            return await method(request, metadata=self._metadata, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error

    async def stream(self, method: Callable[..., AsyncIterable[R]], request: Message) -> AsyncIterator[R]:
        import grpc.aio

        try:
            async for answer in method(request, metadata=self._metadata):
                yield answer
        except grpc.aio.AioRpcError as error:
            raise self._told(error) from error

    def _told(self, error: grpc.aio.AioRpcError) -> ForebayError:
        import grpc

        from forebay.rpc import as_forebay_error

        where = f"{self._connection.admin} (from {self._connection.source})"
        told_by_admin = any(name == "forebay-reason" for name, _ in error.trailing_metadata() or ())
        if error.code() == grpc.StatusCode.UNAVAILABLE and not told_by_admin:
            why = f" ({error.details()})" if self._connection.ca is not None else ""
            return Unavailable(f"Nothing answers at {where}{why}. Is Forebay running? Start it with `forebay up`.")
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return Unavailable(f"{where} did not answer within {DEADLINE_S:.0f} s.")
        return as_forebay_error(error)


def _read(path: Path) -> Connection | None:
    try:
        held = json.loads(path.read_text())
        ca = Path(held["admin_ca"]) if held.get("admin_ca") else None
        return Connection(str(held["admin_grpc"]), str(held["admin_key"]), str(path), ca)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise BadInput(
            f"{path} may be read only by the user who runs Forebay: be that user, or set FOREBAY_ADMIN and FOREBAY_TOKEN."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not what `forebay up` writes; remove it and start `forebay up` again.") from error


def _given_ca(environ: Mapping[str, str]) -> Path | None:
    return Path(environ["FOREBAY_ADMIN_CA"]).expanduser() if environ.get("FOREBAY_ADMIN_CA") else None


def _demand_address(text: str) -> None:
    try:
        parse_address(text)
    except ValueError as error:
        raise BadInput(f"FOREBAY_ADMIN: {error}.") from error
