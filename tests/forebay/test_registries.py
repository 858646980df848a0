"""Two registries seen from outside: whose word is believed, and who is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from forebay.errors import BadSettings, NotFound, Unavailable
from forebay.registries import STANDS_BY, FleetStream, Registries, open_registries
from forebay.rpc import open_server, translated
from forebay.wire.v1 import registry_pb2 as wire
from forebay.wire.v1.registry_pb2_grpc import RegistryServicer, RegistryStub, add_RegistryServicer_to_server
from tests.conftest import free_port


class One(RegistryServicer):
    """A registry that says what the test wants. As the real one, it begins each stream with how it stands: what a stream was
    told whose reader had just gone is told to the next."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.told: list[wire.FleetUpdate] = []
        """Since the last that says how it stands, that one included."""
        self.streams: set[asyncio.Queue[wire.FleetUpdate]] = set()
        self.error: Exception | None = None
        self.asked = 0

    async def WatchFleet(self, request: Any, context: Any) -> AsyncIterator[wire.FleetUpdate]:
        says: asyncio.Queue[wire.FleetUpdate] = asyncio.Queue()
        for update in self.told:
            says.put_nowait(update)
        self.streams.add(says)
        try:
            while True:
                yield await says.get()
        finally:
            self.streams.discard(says)

    async def ListBackends(self, request: Any, context: Any) -> wire.ListBackendsResponse:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return wire.ListBackendsResponse(backends=[wire.Backend(name=self.address)])

    def serving(self) -> Any:
        return open_server(
            self.address, lambda s: add_RegistryServicer_to_server(self, s), lambda method, bearer: "test", grace_s=0
        )

    def tell(self, epoch: int, *names: str, snapshot: bool = False, **more: Any) -> None:
        backends = [wire.Backend(id=name, name=name) for name in names]
        self.say(wire.FleetUpdate(epoch=epoch, snapshot=snapshot, backends=backends, **more))

    def say(self, update: wire.FleetUpdate) -> None:
        if update.snapshot or update.stands_by:
            self.told.clear()
        self.told.append(update)
        for says in self.streams:
            says.put_nowait(update)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[tuple[One, One, Registries]]:
    (tmp_path / "token").write_text("t")
    one, two = One(), One()  # type: ignore[abstract]  # the rest of a registry is not asked for
    async with open_registries(
        f"{one.address},{two.address}", token_file=tmp_path / "token", setting="[x] registry_address"
    ) as registries:
        yield one, two, registries


@asynccontextmanager
async def hearing(registries: Registries) -> AsyncIterator[list[str]]:
    """The names of what is heard, in order; a stream that ends is `-` and begun anew."""
    heard: list[str] = []
    stream = FleetStream(registries.peers)

    async def listen() -> None:
        while True:
            try:
                async for update in stream.watch():
                    heard.extend(backend.name for backend in update.backends)
            except grpc.aio.AioRpcError:
                heard.append("-")
                await asyncio.sleep(0.05)

    listening = asyncio.create_task(listen())
    try:
        yield heard
    finally:
        listening.cancel()
        await asyncio.wait([listening])


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.005)


async def test_the_newest_epoch_is_believed_and_an_older_one_not_heard_any_more(
    both: tuple[One, One, Registries],
) -> None:
    one, two, registries = both
    async with one.serving(), two.serving(), hearing(registries) as heard:
        one.tell(5, "a", snapshot=True)
        await until(lambda: heard == ["a"])
        two.tell(5, stands_by=True, leader=one.address)
        two.tell(4, "old", snapshot=True)
        two.tell(5, "same", snapshot=True)  # also true, and one is enough
        one.tell(5, "b")
        await until(lambda: heard == ["a", "b"])
        two.tell(6, "c", snapshot=True)
        await until(lambda: heard == ["a", "b", "c"])
        one.tell(5, "cut off")
        one.tell(5, "cut off", snapshot=True)
        two.tell(6, "d")
        await until(lambda: heard[-1] == "d")
        assert heard == ["a", "b", "c", "d"]


async def test_when_the_leader_is_gone_the_other_stream_brings_the_next(both: tuple[One, One, Registries]) -> None:
    one, two, registries = both
    async with AsyncExitStack() as first, two.serving(), hearing(registries) as heard:
        await first.enter_async_context(one.serving())
        one.tell(5, "a", snapshot=True)
        await until(lambda: heard == ["a"])
        await first.aclose()
        await until(lambda: heard[-1] == "-")
        two.tell(6, "b", snapshot=True)
        await until(lambda: heard[-1] == "b")
        assert heard.count("-") == 1, "a registry that is away is no reason to leave the one that is there"


async def test_when_nobody_is_there_it_is_said_and_a_registry_without_epochs_is_believed(
    both: tuple[One, One, Registries],
) -> None:
    one, _, registries = both
    async with hearing(registries) as heard:
        await until(lambda: heard)
        assert set(heard) == {"-"}
        async with one.serving():
            one.say(wire.FleetUpdate(term_us=9, snapshot=True, backends=[wire.Backend(name="a")]))
            await until(lambda: heard[-1] == "a")


async def test_calls_go_to_the_one_that_leads_and_are_never_made_twice(both: tuple[One, One, Registries]) -> None:
    one, two, registries = both
    stub: Any = RegistryStub(registries.leading.channel)

    async def ask() -> str:
        with translated():
            answer = await stub.ListBackends(
                wire.ListBackendsRequest(), metadata=registries.leading.metadata, timeout=2, wait_for_ready=True
            )
        name: str = answer.backends[0].name
        return name

    async with two.serving():
        assert await ask() == two.address, "the other is not there"
        async with one.serving():
            assert await ask() == two.address
            two.error = Unavailable(f"{STANDS_BY}; {one.address} leads.")
            assert await ask() == one.address
            asked = one.asked
            one.error = Unavailable("Postgres went away.")
            with pytest.raises(Unavailable, match="Postgres went away"):
                await ask()
            one.error = NotFound("no")
            with pytest.raises(NotFound):
                await ask()
            assert one.asked == asked + 2
            one.error = Unavailable(f"{STANDS_BY}; nobody leads.")
            with pytest.raises(Unavailable, match=STANDS_BY):
                await ask()


async def test_no_address_at_all_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"\[x\] registry_address: it names no registry"):
        async with open_registries(" , ", token_file=tmp_path / "token", setting="[x] registry_address"):
            pass
