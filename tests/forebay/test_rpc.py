"""gRPC between services, over real sockets: who may call, what errors become, and how long there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from forebay import errors, rpc
from forebay.errors import CannotStart, ForebayError, NotAllowed, NotAuthenticated, Unavailable
from forebay.rpc import Peer, ServiceTokens, caller, open_peer, open_server, render_tokens, translated
from forebay.wire.v1 import registry_pb2, scheduler_pb2
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer, RegistryStub, add_RegistryServicer_to_server
from forebay.wire.v1.scheduler_pb2_grpc import SchedulerServicer, SchedulerStub, add_SchedulerServicer_to_server

TOKENS = {"gateway": "gateway's token", "admin": "admin's token"}
RIGHTS = {
    "/forebay.wire.v1.Registry/WatchFleet": frozenset({"gateway", "admin"}),
    "/forebay.wire.v1.Registry/*": frozenset({"admin"}),
    "/forebay.wire.v1.Scheduler/Session": frozenset({"gateway"}),
}

Handler = Callable[[Any], Awaitable[registry_pb2.ListBackendsResponse]]


async def answer(_: Any) -> registry_pb2.ListBackendsResponse:
    return registry_pb2.ListBackendsResponse()


class Services(RegistryServicer, SchedulerServicer):
    """`list_backends` is what the test wants it to be; the streams say what they are told and note their end."""

    def __init__(self) -> None:
        self.list_backends: Handler = answer
        self.callers: list[str] = []
        self.ended = asyncio.Event()

    async def ListBackends(self, request: Any, context: Any) -> registry_pb2.ListBackendsResponse:
        self.callers.append(caller.get())
        return await self.list_backends(context)

    async def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[registry_pb2.FleetUpdate]:
        try:
            self.callers.append(caller.get())
            for version in (1, 2):
                yield registry_pb2.FleetUpdate(version=version)
            await asyncio.sleep(3600)
        finally:
            self.ended.set()

    async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[scheduler_pb2.SchedulerFrame]:
        try:
            async for _ in request_iterator:
                yield scheduler_pb2.SchedulerFrame()
            raise errors.BadInput("no more frames")
        finally:
            self.ended.set()

    def add(self, server: grpc.aio.Server) -> None:
        add_RegistryServicer_to_server(self, server)
        add_SchedulerServicer_to_server(self, server)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "callers"
    file.write_text(render_tokens(TOKENS))
    return file


@pytest.fixture
def services() -> Services:
    return Services()  # type: ignore[abstract]  # the other methods answer UNIMPLEMENTED


@pytest.fixture
async def address(services: Services, token_file: Path) -> AsyncIterator[str]:
    async with open_server("127.0.0.1:0", services.add, ServiceTokens(token_file, RIGHTS), grace_s=0.1) as address:
        yield address


@asynccontextmanager
async def calling(address: str, name: str | None) -> AsyncIterator[Peer]:
    async with open_peer(address, token=TOKENS[name] if name else None) as peer:
        yield peer


async def list_backends(peer: Peer, timeout: float | None = 10) -> None:
    with translated():
        await RegistryStub(peer.channel).ListBackends(
            registry_pb2.ListBackendsRequest(), metadata=peer.metadata, timeout=timeout
        )


async def outcome(address: str, name: str | None) -> type[BaseException] | None:
    async with calling(address, name) as peer:
        try:
            await list_backends(peer)
        except ForebayError as error:
            return type(error)
    return None


# --- who calls --------------------------------------------------------------------------------------------------------


async def test_a_caller_is_known_by_its_token_and_does_what_it_may(address: str, services: Services) -> None:
    assert await outcome(address, "admin") is None
    assert services.callers == ["admin"]
    assert await outcome(address, "gateway") is NotAllowed
    assert await outcome(address, None) is NotAuthenticated
    assert services.callers == ["admin"]  # the others did not get as far


async def test_a_wrong_token_is_not_told_from_a_missing_one(address: str) -> None:
    async with open_peer(address, token="guess") as peer:
        with pytest.raises(NotAuthenticated, match="not known here"):
            await list_backends(peer)


async def test_streams_ask_for_a_token_too(address: str, services: Services) -> None:
    async with calling(address, None) as peer:
        with pytest.raises(NotAuthenticated):
            await read(RegistryStub(peer.channel).WatchFleet(registry_pb2.WatchFleetRequest()))
    async with calling(address, "admin") as peer:
        with pytest.raises(NotAllowed):
            await read(SchedulerStub(peer.channel).Session(no_frame(), metadata=peer.metadata))
    assert services.callers == []


def test_every_option_is_one_that_grpc_knows() -> None:
    """It says nothing about others, and does nothing with them."""
    core = find_spec("grpc._cython.cygrpc")
    assert core is not None
    known = Path(str(core.origin)).read_bytes()
    assert [name for name, _ in rpc.KEEPALIVE if name.encode() not in known] == []


async def test_a_method_that_nobody_was_given_is_closed(address: str) -> None:
    async with calling(address, "admin") as peer:
        with pytest.raises(NotAllowed), translated():
            await SchedulerStub(peer.channel).ShowQueue(scheduler_pb2.ShowQueueRequest(), metadata=peer.metadata)


async def test_a_token_that_is_replaced_counts_at_once_and_the_old_one_no_more(address: str, token_file: Path) -> None:
    assert await outcome(address, "admin") is None
    new = token_file.with_suffix(".new")
    new.write_text(render_tokens({**TOKENS, "admin": "another"}))
    new.replace(token_file)
    assert await outcome(address, "admin") is NotAuthenticated
    async with open_peer(address, token="another") as peer:
        await list_backends(peer)


async def test_a_file_of_tokens_that_goes_away_leaves_the_last_ones(
    address: str, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token_file.unlink()
    assert await outcome(address, "admin") is None
    assert "tokens_unreadable" in [vars(record).get("action") for record in caplog.records]


def test_a_file_of_tokens_that_is_not_there_at_the_start_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"file of service tokens .*absent cannot be read"):
        ServiceTokens(tmp_path / "absent", {})
    (tmp_path / "odd").write_text("one two three\n")
    with pytest.raises(CannotStart, match="cannot be read"):
        ServiceTokens(tmp_path / "odd", {})


def test_the_file_holds_no_token(token_file: Path) -> None:
    text = token_file.read_text()
    assert [line.split()[0] for line in text.splitlines()] == ["admin", "gateway"]
    assert not any(token in text for token in TOKENS.values())


async def test_a_peers_token_comes_from_a_file(address: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKENS["admin"] + "\n")
    async with open_peer(address, token_file=file) as peer:
        await list_backends(peer)
    with pytest.raises(CannotStart):
        async with open_peer(address, token_file=tmp_path / "absent"):
            raise AssertionError("it must not open")


# --- what errors become -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        errors.BadInput,
        errors.NotFound,
        errors.AlreadyExists,
        errors.NotAuthenticated,
        errors.NotAllowed,
        errors.Unavailable,
    ],
)
async def test_an_error_of_ours_crosses_as_what_it_is(
    address: str, services: Services, kind: type[ForebayError]
) -> None:
    async def refuse(_: Any) -> registry_pb2.ListBackendsResponse:
        raise kind("in its own words", retry_after_s=1.25)

    services.list_backends = refuse
    async with calling(address, "admin") as peer:
        with pytest.raises(kind, match="in its own words") as crossed:
            await list_backends(peer)
    assert type(crossed.value) is kind
    assert crossed.value.retry_after_s == 1.25


async def test_a_stream_is_refused_with_the_reason_however_its_first_message_crosses_that(
    address: str,
) -> None:
    async def speak_first(peer: Peer) -> None:
        session = SchedulerStub(peer.channel).Session(metadata=peer.metadata)
        with translated():
            await session.write(scheduler_pb2.GatewayFrame())
            await session.read()

    async with calling(address, "admin") as peer:
        for _ in range(60):
            with pytest.raises(NotAllowed):
                await speak_first(peer)


async def test_who_says_nothing_is_refused_all_the_same(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "_FIRST_WORD_S", 0.01)
    async with calling(address, "admin") as peer:
        session = SchedulerStub(peer.channel).Session(metadata=peer.metadata)
        with pytest.raises(NotAllowed), translated():
            await session.read()


async def test_another_error_is_not_taken_for_one_of_ours(address: str, services: Services) -> None:
    async def break_down(_: Any) -> registry_pb2.ListBackendsResponse:
        raise ArithmeticError("a mistake")

    services.list_backends = break_down
    async with calling(address, "admin") as peer:
        with pytest.raises(ForebayError) as crossed:
            await list_backends(peer)
    assert type(crossed.value) is ForebayError
    assert "a mistake" not in crossed.value.message, "what it says is for the log"


async def test_an_error_after_the_first_frames_of_a_stream_crosses_too(address: str) -> None:
    frames: list[object] = []
    async with calling(address, "gateway") as peer:
        session = SchedulerStub(peer.channel).Session(one_frame(), metadata=peer.metadata)
        with pytest.raises(errors.BadInput, match="no more frames"):
            await read(session, frames)
    assert len(frames) == 1


async def test_nobody_there_is_unavailable(address: str) -> None:
    async with calling("127.0.0.1:1", "admin") as peer:
        with pytest.raises(Unavailable):
            await list_backends(peer)


# --- how long there is ------------------------------------------------------------------------------------------------


async def test_who_takes_longer_than_its_caller_gave_is_unavailable_and_stopped(
    address: str, services: Services
) -> None:
    stopped = asyncio.Event()

    async def dawdle(_: Any) -> registry_pb2.ListBackendsResponse:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.set()
            raise
        return registry_pb2.ListBackendsResponse()

    services.list_backends = dawdle
    async with calling(address, "admin") as peer:
        with pytest.raises(Unavailable, match="did not finish in the time its caller gave"):
            await list_backends(peer, timeout=0.5)
        await asyncio.wait_for(stopped.wait(), 30)


async def test_a_timeout_of_the_handlers_own_is_not_blamed_on_the_caller(address: str, services: Services) -> None:
    async def give_up(_: Any) -> registry_pb2.ListBackendsResponse:
        raise TimeoutError("the engine did not answer")

    services.list_backends = give_up
    async with calling(address, "admin") as peer:
        with pytest.raises(ForebayError) as crossed:
            await list_backends(peer)
    assert type(crossed.value) is ForebayError


# --- coming and going -------------------------------------------------------------------------------------------------


async def test_a_watcher_that_leaves_ends_the_stream_that_served_it(address: str, services: Services) -> None:
    async with calling(address, "gateway") as peer:
        watching = RegistryStub(peer.channel).WatchFleet(registry_pb2.WatchFleetRequest(), metadata=peer.metadata)
        versions = []
        async for update in watching:
            versions.append(update.version)
            if len(versions) == 2:
                break
        assert not services.ended.is_set()
        watching.cancel()
        await asyncio.wait_for(services.ended.wait(), 30)
    assert (versions, services.callers) == ([1, 2], ["gateway"])


async def test_leaving_the_server_ends_its_streams(services: Services, token_file: Path) -> None:
    async with open_server("127.0.0.1:0", services.add, ServiceTokens(token_file, RIGHTS), grace_s=0.1) as address:
        peer_channel = open_peer(address, token=TOKENS["gateway"])
        peer = await peer_channel.__aenter__()
        watching = RegistryStub(peer.channel).WatchFleet(registry_pb2.WatchFleetRequest(), metadata=peer.metadata)
        assert (await anext(aiter(watching))).version == 1
    await asyncio.wait_for(services.ended.wait(), 30)
    with pytest.raises(Unavailable):
        await read(watching)
    await peer_channel.__aexit__(None, None, None)


async def test_a_peer_finds_its_server_again(services: Services, token_file: Path) -> None:
    tokens = ServiceTokens(token_file, RIGHTS)
    async with (
        open_server("127.0.0.1:0", services.add, tokens, grace_s=0) as address,
        calling(address, "admin") as peer,
    ):
        await list_backends(peer)
    async with calling(address, "admin") as peer:
        with pytest.raises(Unavailable):
            await list_backends(peer)
        async with open_server(address, services.add, tokens, grace_s=0):
            async with asyncio.timeout(30):
                while True:
                    try:
                        await list_backends(peer)
                    except Unavailable:
                        await asyncio.sleep(0.05)
                        continue
                    break
    assert services.callers == ["admin", "admin"]


async def test_a_port_in_use_is_one_clear_sentence(address: str, services: Services, token_file: Path) -> None:
    with pytest.raises(CannotStart, match=f"The gRPC port {address} cannot be opened; is another Forebay running"):
        async with open_server(address, services.add, ServiceTokens(token_file, RIGHTS)):
            raise AssertionError("two listen on one port")


async def read(stream: Any, into: list[object] | None = None) -> None:
    """To its end."""
    with translated():
        async for frame in stream:
            if into is not None:
                into.append(frame)


async def no_frame() -> AsyncIterator[scheduler_pb2.GatewayFrame]:
    """For a call that is refused: a frame that is on its way just then ends it with an error of gRPC's own."""
    await asyncio.Event().wait()
    yield scheduler_pb2.GatewayFrame()


async def one_frame() -> AsyncIterator[scheduler_pb2.GatewayFrame]:
    yield scheduler_pb2.GatewayFrame()


async def test_a_peer_that_is_far_away_is_reached_at_the_first_attempt(services: Services, address: str) -> None:
    host, _, port = address.rpartition(":")
    ended = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            await asyncio.sleep(0.15)
            writer.write(chunk)
        writer.close()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))
        await asyncio.gather(writer.wait_closed(), to_writer.wait_closed(), return_exceptions=True)
        ended.set()

    slow = await asyncio.start_server(carry, "127.0.0.1", 0)
    async with slow:
        async with calling(f"127.0.0.1:{slow.sockets[0].getsockname()[1]}", "admin") as peer:
            await list_backends(peer)
        assert services.callers == ["admin"]
        await asyncio.wait_for(ended.wait(), 30)
