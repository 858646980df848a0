"""What the gateway relies on in whoever keeps things for users, held against the double and against admin on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forebay.clock import SystemClock
from forebay.errors import AlreadyExists, BadInput, ForebayError, NotFound, NotPossible
from forebay.local.postgres import Postgres
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import open_peer, open_server, render_tokens
from forebay.service import Ground
from forebay.wire.v1 import admin_pb2_grpc
from forebay_admin.config import AdminSettings
from forebay_admin.service import open_admin
from forebay_gateway.keeping.contents import PIECE_BYTES, AdminContents, ContentStore, Kind, StoredContent
from forebay_gateway.keeping.signs import Note, Shown, Signs
from forebay_gateway.refused import BodyTooLarge
from tests.admin.replica import TOKENS, FakeRegistry, OperatorCalls, Running, Site
from tests.conftest import free_port
from tests.gateway.doubles import TOKEN, ContentDouble, add_to, authorize

NOW_US = 1_800_000_000_000_000  # still to come, so that nothing has expired
MOST_BLOB_BYTES = 1_000_000


@dataclass
class Keeper:
    contents: ContentStore
    alice: str
    bob: str

    async def keep(self, kind: Kind, id: str, *, after_us: int = 0, **more: Any) -> StoredContent:
        content = StoredContent(kind, id, self.alice, NOW_US + after_us, {"said": "Grüße 🎉"}, **more)
        await self.contents.put(content)
        return content


async def _double(stack: AsyncExitStack, place: Path, postgres_url: str) -> Keeper:
    double = ContentDouble()
    double.most_blob_bytes = MOST_BLOB_BYTES
    served = open_server("127.0.0.1:0", lambda server: add_to(server, double), authorize, grace_s=0)
    address = await stack.enter_async_context(served)
    peer = await stack.enter_async_context(open_peer(address, token=TOKEN))
    return Keeper(AdminContents(peer), "alice", "bob")


async def _admin(stack: AsyncExitStack, place: Path, postgres_url: str) -> Keeper:
    (place / "callers").write_text(render_tokens(TOKENS))
    (place / "admin.token").write_text(TOKENS["admin"])
    (place / "pepper").write_text("p" * 64)
    (place / "seal").write_text("s" * 64)
    settings = AdminSettings(
        listen=f"127.0.0.1:{free_port()}",
        http_listen=f"127.0.0.1:{free_port()}",
        registry_address="127.0.0.1:1",
        token_file=place / "admin.token",
        callers_file=place / "callers",
        nats_url="memory:",
        database_url=postgres_url,
        pepper_file=place / "pepper",
        seal_key_file=place / "seal",
        bootstrap_key_file=place / "admin.key",
        content_dir=place / "blobs",
        content_max_blob_bytes=MOST_BLOB_BYTES,
    )
    clock = SystemClock()
    ground = Ground("admin", clock, Ops("admin"), MemoryBus(clock.now))
    await stack.enter_async_context(open_admin(settings, ground))
    site = Site(place, postgres_url, FakeRegistry(), settings, [], [])
    await Running(site, ground, settings.listen, settings.http_listen).ready()
    operator = await stack.enter_async_context(open_peer(settings.listen, token=site.first_key))
    people = OperatorCalls(admin_pb2_grpc.OperatorStub(operator.channel), operator.metadata)
    alice, bob = [(await people.AddUser(name=name)).user.id for name in ("alice", "bob")]
    gateway = await stack.enter_async_context(open_peer(settings.listen, token=TOKENS["gateway"]))
    return Keeper(AdminContents(gateway), alice, bob)


_KEEPERS: dict[str, Callable[[AsyncExitStack, Path, str], Awaitable[Keeper]]] = {"double": _double, "admin": _admin}


@pytest.fixture(params=_KEEPERS)
async def keeper(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: Postgres, postgres_url: str
) -> AsyncIterator[Keeper]:
    async with AsyncExitStack() as stack:
        yield await _KEEPERS[request.param](stack, tmp_path, postgres_url)


async def test_things_are_kept_replaced_and_deleted_and_are_their_users_alone(keeper: Keeper) -> None:
    contents, alice, bob = keeper.contents, keeper.alice, keeper.bob
    kept = await keeper.keep(Kind.RESPONSE, "resp_1", expires_at_us=NOW_US + 3_600_000_000)
    assert await contents.get(alice, Kind.RESPONSE, "resp_1") == kept
    assert await contents.get(bob, Kind.RESPONSE, "resp_1") is None
    assert await contents.get(alice, Kind.CONVERSATION, "resp_1") is None
    assert not await contents.delete(bob, Kind.RESPONSE, "resp_1")
    with pytest.raises((AlreadyExists, ForebayError)):
        await contents.put(StoredContent(Kind.RESPONSE, "resp_1", bob, NOW_US, {}))
    assert await contents.get(alice, Kind.RESPONSE, "resp_1") == kept
    again = await keeper.keep(Kind.RESPONSE, "resp_1", after_us=5)
    assert await contents.get(alice, Kind.RESPONSE, "resp_1") == again
    assert await contents.delete(alice, Kind.RESPONSE, "resp_1")
    assert not await contents.delete(alice, Kind.RESPONSE, "resp_1")


async def test_a_chain_comes_oldest_first_and_whole_or_not_at_all(keeper: Keeper) -> None:
    contents, alice = keeper.contents, keeper.alice
    for number, before in enumerate(["", "resp_0", "resp_1"]):
        await keeper.keep(Kind.RESPONSE, f"resp_{number}", after_us=number, parent_id=before)
    chain = await contents.chain(alice, Kind.RESPONSE, "resp_2", 10)
    assert [content.id for content in chain] == ["resp_0", "resp_1", "resp_2"]
    assert await contents.chain(keeper.bob, Kind.RESPONSE, "resp_2", 10) == []
    with pytest.raises(NotPossible):
        await contents.chain(alice, Kind.RESPONSE, "resp_2", 2)
    await contents.delete(alice, Kind.RESPONSE, "resp_0")
    assert await contents.chain(alice, Kind.RESPONSE, "resp_2", 10) == []


async def test_what_lies_in_a_conversation_is_paged_both_ways_and_goes_with_it(keeper: Keeper) -> None:
    contents, alice = keeper.contents, keeper.alice
    await keeper.keep(Kind.CONVERSATION, "conv_1")
    ids = [f"msg_{number}" for number in range(5)]
    for id in ids:
        await keeper.keep(Kind.ITEM, id, parent_id="conv_1")  # all in one moment
    first = await contents.list(alice, Kind.ITEM, "conv_1", limit=3)
    rest = await contents.list(alice, Kind.ITEM, "conv_1", limit=3, after=first.contents[-1].id)
    assert [content.id for content in (*first.contents, *rest.contents)] == ids
    assert (first.has_more, rest.has_more) == (True, False)
    latest = await contents.list(alice, Kind.ITEM, "conv_1", limit=2, descending=True)
    assert [content.id for content in latest.contents] == ["msg_4", "msg_3"]
    with pytest.raises(NotFound):
        await contents.list(alice, Kind.ITEM, "conv_1", limit=2, after="msg_9")
    assert (await contents.list(keeper.bob, Kind.ITEM, "conv_1", limit=3)).contents == []
    await contents.delete(alice, Kind.CONVERSATION, "conv_1")
    assert await contents.get(alice, Kind.ITEM, "msg_0") is None


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _file(keeper: Keeper, id: str, size: int) -> StoredContent:
    body = {"filename": "a.txt", "purpose": "user_data"}
    return StoredContent(Kind.FILE, id, keeper.alice, NOW_US, body, blob_bytes=size)


async def test_a_file_comes_back_as_it_went_and_is_its_users_alone(keeper: Keeper) -> None:
    contents, alice, bob = keeper.contents, keeper.alice, keeper.bob
    pieces = [bytes([number]) * size for number, size in enumerate((PIECE_BYTES, 1, PIECE_BYTES - 1, 70_000))]
    whole = b"".join(pieces)
    kept = await contents.upload(_file(keeper, "file-1", len(whole)), _pieces(*pieces))
    assert kept == _file(keeper, "file-1", len(whole))
    assert await contents.get(alice, Kind.FILE, "file-1") == kept
    assert (await contents.list(alice, Kind.FILE, "", limit=10)).contents == [kept]
    assert b"".join([piece async for piece in contents.download(alice, Kind.FILE, "file-1")]) == whole
    assert await contents.get(bob, Kind.FILE, "file-1") is None
    for user, id in ((bob, "file-1"), (alice, "file-2"), (alice, "no id")):
        with pytest.raises(NotFound):
            await anext(contents.download(user, Kind.FILE, id))
    assert not await contents.delete(bob, Kind.FILE, "file-1")
    assert await contents.delete(alice, Kind.FILE, "file-1")
    assert await contents.get(alice, Kind.FILE, "file-1") is None


async def test_a_file_that_is_too_large_is_refused_before_its_bytes_come(keeper: Keeper) -> None:
    async def unasked() -> AsyncIterator[bytes]:
        raise AssertionError("nobody wants it")
        yield b""

    for _ in range(20):
        with pytest.raises(BodyTooLarge, match=str(MOST_BLOB_BYTES)):
            await keeper.contents.upload(_file(keeper, "file-1", MOST_BLOB_BYTES + 1), unasked())
    assert await keeper.contents.get(keeper.alice, Kind.FILE, "file-1") is None


async def test_nothing_is_kept_of_a_file_that_did_not_come_whole(keeper: Keeper) -> None:
    contents = keeper.contents

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 500
        raise OSError("the disk fails")

    async def resting() -> AsyncIterator[bytes]:
        yield b"x" * 500
        under_way.set()
        await asyncio.Event().wait()

    under_way = asyncio.Event()
    with pytest.raises(OSError, match="disk"):
        await contents.upload(_file(keeper, "file-1", 1000), breaking())
    with pytest.raises(BadInput):
        await contents.upload(_file(keeper, "file-1", 1000), _pieces(b"x" * 999))
    left = asyncio.create_task(contents.upload(_file(keeper, "file-1", 1000), resting()))
    await under_way.wait()
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert await contents.get(keeper.alice, Kind.FILE, "file-1") is None
    assert (await contents.upload(_file(keeper, "file-1", 3), _pieces(b"abc"))).blob_bytes == 3


async def test_gateways_leave_one_another_signs_of_a_response(keeper: Keeper) -> None:
    clock = SystemClock()
    runs, asks = (Signs(keeper.contents, clock, keeper.alice, "resp_1") for _ in range(2))
    other = Signs(keeper.contents, clock, keeper.bob, "resp_1")
    assert await asks.read() is None
    await runs.show("queued", 60.0)
    assert await asks.read() == Shown(True, "queued", None, None)
    await runs.show("in_progress", 60.0, ({"id": "resp_1"}, {"items": []}))
    assert await asks.read() == Shown(True, "in_progress", {"id": "resp_1"}, {"items": []})
    assert await runs.notes() == set()
    for note in (Note.FOLLOW, Note.CANCEL, Note.CANCEL):
        await asks.leave(note)
    assert await runs.notes() == {Note.FOLLOW, Note.CANCEL}
    assert (await other.read(), await other.notes()) == (None, set())
    await runs.show("in_progress", -1.0)
    assert await asks.read() == Shown(False, "in_progress", None, None), "it should have shown more by now"
    await runs.clear({Note.FOLLOW, Note.CANCEL})
    assert (await asks.read(), await runs.notes()) == (None, set())
