"""What clients let Forebay keep: whose it is, in which order it comes, what it may weigh, and that nothing half stays."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio

from forebay.clock import ManualClock, SystemClock
from forebay.database import open_database
from forebay.local.postgres import Postgres
from forebay.memory_bus import MemoryBus
from forebay.ops import Ops
from forebay.rpc import Peer, open_peer, render_tokens
from forebay.service import Ground
from forebay.wire.v1 import admin_pb2_grpc, content_pb2_grpc
from forebay.wire.v1 import content_pb2 as pb
from forebay_admin.config import AdminSettings
from forebay_admin.content.blob_store import PIECE_BYTES, DirectoryBlobs
from forebay_admin.content.content import MOST_BODY_BYTES
from forebay_admin.content.content_sweep import ORPHAN_S, ContentSweep
from forebay_admin.service import open_admin
from forebay_admin.tables import SCHEMA
from tests.admin.replica import TOKENS, FakeRegistry, OperatorCalls, Running, Site, until
from tests.conftest import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

T0 = 1_800_000_000_000_000
NOT_FOUND = grpc.StatusCode.NOT_FOUND
NOT_POSSIBLE = grpc.StatusCode.FAILED_PRECONDITION
BAD = grpc.StatusCode.INVALID_ARGUMENT
TAKEN = grpc.StatusCode.ALREADY_EXISTS


class Calls:
    """What a gateway calls for one user."""

    def __init__(self, stub: Any, metadata: Any, user_id: str) -> None:
        self.stub, self.metadata, self.user_id = stub, metadata, user_id

    def item(self, kind: str, id: str, **fields: Any) -> pb.ContentItem:
        return pb.ContentItem(
            **{"kind": kind, "id": id, "user_id": self.user_id, "created_at_us": T0, "body": b"{}", **fields}
        )

    async def put(self, kind: str, id: str, **fields: Any) -> None:
        await self.stub.Put(pb.PutContentRequest(item=self.item(kind, id, **fields)), metadata=self.metadata)

    async def get(self, kind: str, id: str) -> pb.ContentItem:
        request = pb.GetContentRequest(user_id=self.user_id, kind=kind, id=id)
        got: pb.GetContentResponse = await self.stub.Get(request, metadata=self.metadata)
        return got.item

    async def chain(self, id: str, most: int = 100) -> list[str]:
        request = pb.GetChainRequest(user_id=self.user_id, kind="response", id=id, most=most)
        return [item.id for item in (await self.stub.GetChain(request, metadata=self.metadata)).items]

    async def page(self, kind: str, **asked: Any) -> tuple[list[str], bool]:
        request = pb.ListContentRequest(user_id=self.user_id, kind=kind, **asked)
        answer = await self.stub.List(request, metadata=self.metadata)
        return [item.id for item in answer.items], answer.has_more

    async def delete(self, kind: str, id: str) -> bool:
        request = pb.DeleteContentRequest(user_id=self.user_id, kind=kind, id=id)
        answer: pb.DeleteContentResponse = await self.stub.Delete(request, metadata=self.metadata)
        return answer.was_there

    async def upload(self, id: str, blob: bytes, piece: int = PIECE_BYTES, **fields: Any) -> pb.ContentItem:
        parts = [pb.UploadRequest(item=self.item("file", id, **fields))]
        parts += [pb.UploadRequest(piece=blob[at : at + piece]) for at in range(0, len(blob), piece)]
        return await self.send(parts)

    async def send(self, parts: Iterable[pb.UploadRequest]) -> pb.ContentItem:
        answer: pb.UploadResponse = await self.stub.Upload(iter(parts), metadata=self.metadata)
        return answer.item

    async def download(self, id: str, kind: str = "file") -> bytes:
        request = pb.DownloadRequest(user_id=self.user_id, kind=kind, id=id)
        pieces = [answer.piece async for answer in self.stub.Download(request, metadata=self.metadata)]
        assert all(len(piece) <= PIECE_BYTES for piece in pieces)
        return b"".join(pieces)


@dataclass
class Kept:
    """An admin that keeps things, and two users of it."""

    settings: AdminSettings
    folder: Path
    alice: Calls
    bob: Calls
    peer: Callable[[str], Awaitable[Peer]]
    """token → a connection"""

    def files(self) -> list[str]:
        return sorted(os.listdir(self.folder))

    @asynccontextmanager
    async def database(self) -> AsyncIterator[asyncpg.Connection]:
        direct = await asyncpg.connect(self.settings.database_url)
        try:
            yield direct
        finally:
            await direct.close()


@asynccontextmanager
async def running(settings: AdminSettings, **changed: Any) -> AsyncIterator[Kept]:
    """An admin of its own on the database that all tests here share; keyword arguments are settings."""
    told = replace(settings, listen=f"127.0.0.1:{free_port()}", http_listen=f"127.0.0.1:{free_port()}", **changed)
    clock = SystemClock()
    ground = Ground("admin", clock, Ops("admin"), MemoryBus(clock.now))
    site = Site(told.pepper_file.parent, told.database_url or "", FakeRegistry(), told, [], [])
    async with open_admin(told, ground), AsyncExitStack() as peers:
        admin = Running(site, ground, told.listen, told.http_listen)
        await admin.ready()

        async def peer(token: str) -> Peer:
            return await peers.enter_async_context(open_peer(told.listen, token=token))

        operator = await peer(site.first_key)
        people = OperatorCalls(admin_pb2_grpc.OperatorStub(operator.channel), operator.metadata)
        known = {user.name: user.id for user in (await people.ListUsers()).users}
        for name in {"alice", "bob"} - known.keys():
            known[name] = (await people.AddUser(name=name)).user.id
        gateway = await peer(TOKENS["gateway"])
        stub = content_pb2_grpc.ContentStub(gateway.channel)
        alice, bob = (Calls(stub, gateway.metadata, known[name]) for name in ("alice", "bob"))
        yield Kept(told, told.content_dir or Path(os.devnull), alice, bob, peer)


# One admin for the file, since starting one takes longer than a test; each test finds it empty.
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Kept]:
    place = tmp_path_factory.mktemp("content")
    (place / "callers").write_text(render_tokens(TOKENS))
    (place / "admin.token").write_text(TOKENS["admin"])
    (place / "pepper").write_text("p" * 64)
    (place / "seal").write_text("s" * 64)
    name = f"test_content_{os.getpid()}"
    direct = await asyncpg.connect(postgres_server.superuser_url)
    await direct.execute(f"CREATE DATABASE {name}")
    settings = AdminSettings(
        registry_address="127.0.0.1:1",
        token_file=place / "admin.token",
        callers_file=place / "callers",
        nats_url="memory:",
        database_url=postgres_server.superuser_url.rpartition("/")[0] + "/" + name,
        pepper_file=place / "pepper",
        seal_key_file=place / "seal",
        bootstrap_key_file=place / "admin.key",
        content_dir=place / "blobs",
    )
    async with running(settings) as one:
        yield one
    await direct.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await direct.close()


@pytest_asyncio.fixture(loop_scope="module")
async def kept(shared: Kept) -> Kept:
    async with shared.database() as direct:
        await direct.execute("TRUNCATE admin.content")
    for file in shared.files():
        (shared.folder / file).unlink()
    return shared


@contextmanager
def refused(code: grpc.StatusCode, saying: str = "") -> Iterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        yield
    assert error.value.code() is code, error.value.details()
    assert saying in (error.value.details() or "")


# --- what is kept, and for whom ---------------------------------------------------------------------------------------


async def test_a_thing_comes_back_byte_for_byte_as_it_was_put(kept: Kept) -> None:
    body = b'{ "b":1,\n\t"a" : 1.0, "a":"\\u00e9\xc3\xa9" } '
    await kept.alice.put("response", "resp_1", body=body, parent_id="resp_0", expires_at_us=2 * T0)
    want = kept.alice.item("response", "resp_1", body=body, parent_id="resp_0", expires_at_us=2 * T0)
    assert await kept.alice.get("response", "resp_1") == want


async def test_a_body_of_8_mib_is_kept_and_a_larger_one_refused(kept: Kept) -> None:
    body = os.urandom(MOST_BODY_BYTES)
    await kept.alice.put("response", "resp_1", body=body)
    assert (await kept.alice.get("response", "resp_1")).body == body
    with refused(BAD, "8388608"):
        await kept.alice.put("response", "resp_2", body=body + b" ")


async def test_what_is_anothers_is_not_there_and_their_id_is_not_to_be_had(kept: Kept) -> None:
    await kept.alice.put("response", "resp_1", body=b"alice's")
    await kept.alice.upload("file-1", b"alice's")
    for look in (kept.bob.get("response", "resp_1"), kept.bob.chain("resp_1"), kept.bob.download("file-1")):
        with refused(NOT_FOUND):
            await look
    assert await kept.bob.page("response") == ([], False)
    assert not await kept.bob.delete("response", "resp_1")
    with refused(TAKEN):
        await kept.bob.put("response", "resp_1", body=b"bob's")
    with refused(TAKEN):
        await kept.bob.upload("file-1", b"bob's")
    assert (await kept.alice.get("response", "resp_1")).body == b"alice's"
    assert await kept.alice.download("file-1") == b"alice's"
    assert len(kept.files()) == 1


async def test_of_users_who_take_the_same_id_at_once_one_has_it(kept: Kept) -> None:
    for number in range(5):
        took = await asyncio.gather(
            *(one.put("response", f"resp_{number}", body=b"{}") for one in (kept.alice, kept.bob)),
            return_exceptions=True,
        )
        (lost,) = [error for error in took if error is not None]
        assert isinstance(lost, grpc.aio.AioRpcError)
        assert lost.code() is TAKEN


async def test_the_same_id_of_another_kind_is_another_thing(kept: Kept) -> None:
    await kept.alice.put("response", "x", body=b"1")
    await kept.bob.put("conversation", "x", body=b"2")
    assert (await kept.alice.get("response", "x")).body == b"1"


async def test_putting_again_replaces(kept: Kept) -> None:
    await kept.alice.put("response", "resp_1", body=b"old", parent_id="p", expires_at_us=2 * T0)
    await kept.alice.put("response", "resp_1", body=b"new", created_at_us=T0 + 1)
    want = kept.alice.item("response", "resp_1", body=b"new", created_at_us=T0 + 1)
    assert await kept.alice.get("response", "resp_1") == want


async def test_nothing_is_kept_for_a_user_who_does_not_exist(kept: Kept) -> None:
    with refused(NOT_FOUND, "no user"):
        await kept.alice.put("response", "resp_1", user_id="user_nobody")


async def test_each_call_says_what_is_wrong_with_it(kept: Kept) -> None:
    for call in (
        kept.alice.put("thread", "x"),
        kept.alice.get("thread", "x"),
        kept.alice.chain(""),
        kept.alice.page("thread"),
        kept.alice.delete("thread", "x"),
        kept.alice.upload("", b""),
        kept.alice.download("x", kind="thread"),
    ):
        with refused(BAD):
            await call


# --- chains and pages -------------------------------------------------------------------------------------------------


async def test_a_chain_is_told_from_its_oldest_on(kept: Kept) -> None:
    for number in range(5):
        await kept.alice.put("response", f"r{number}", parent_id=f"r{number - 1}" if number else "")
    assert await kept.alice.chain("r3", most=4) == ["r0", "r1", "r2", "r3"]
    with refused(NOT_POSSIBLE, "more than 3"):
        await kept.alice.chain("r3", most=3)
    with refused(BAD, "most"):
        await kept.alice.chain("r3", most=0)
    with refused(NOT_FOUND, "r9"):
        await kept.alice.chain("r9")


async def test_a_chain_with_a_gap_names_what_is_gone(kept: Kept) -> None:
    await kept.alice.put("response", "r0")
    await kept.bob.put("response", "r1")
    await kept.alice.put("response", "r2", parent_id="r0")
    await kept.alice.put("response", "r3", parent_id="r2")
    await kept.alice.put("response", "s2", parent_id="r1")
    assert await kept.alice.delete("response", "r0")
    with refused(NOT_FOUND, "no response r0, which r2 follows"):
        await kept.alice.chain("r3")
    with refused(NOT_FOUND, "no response r1"):
        await kept.alice.chain("s2")
    await kept.alice.put("response", "r0", created_at_us=1, expires_at_us=2)
    with refused(NOT_FOUND, "r0"):
        await kept.alice.chain("r3")


async def test_a_ring_is_a_chain_that_is_too_long(kept: Kept) -> None:
    await kept.alice.put("response", "r0", parent_id="r1")
    await kept.alice.put("response", "r1", parent_id="r0")
    with refused(NOT_POSSIBLE):
        await kept.alice.chain("r0", most=1000)


@pytest.mark.parametrize("descending", [False, True])
async def test_pages_go_on_where_they_ended_both_ways_and_among_equal_times(kept: Kept, descending: bool) -> None:
    want = ["-", "Z", "_", "a", "c", "A", "b"]
    for id, at in zip(want, [T0, T0, T0, T0 + 1, T0 + 1, T0 + 2, T0 + 2], strict=True):
        await kept.alice.put("response", id, created_at_us=at)
        await kept.bob.put("response", f"bobs_{id}", created_at_us=at)
    seen: list[str] = []
    has_more = True
    while has_more:
        page, has_more = await kept.alice.page(
            "response", limit=2, after=seen[-1] if seen else "", descending=descending
        )
        assert len(page) == 2 if has_more else page
        seen += page
    assert seen == (want[::-1] if descending else want)


async def test_a_page_is_of_one_conversation_and_has_twenty_when_nothing_is_said(kept: Kept) -> None:
    for conversation in ("conv_a", "conv_b"):
        await kept.alice.put("conversation", conversation)
        for number in range(21):
            await kept.alice.put("item", f"{conversation}_{number:02}", parent_id=conversation)
    page, has_more = await kept.alice.page("item", parent_id="conv_b")
    assert (page, has_more) == ([f"conv_b_{number:02}" for number in range(20)], True)
    assert await kept.alice.page("item", parent_id="conv_b", after="conv_b_19") == (["conv_b_20"], False)
    assert len((await kept.alice.page("item", limit=100))[0]) == 42
    with refused(BAD, "100"):
        await kept.alice.page("item", limit=101)
    with refused(NOT_FOUND, "conv_a_00"):
        await kept.alice.page("item", parent_id="conv_b", after="conv_a_00")


async def test_a_page_of_large_things_ends_before_it_is_too_large_to_cross(kept: Kept) -> None:
    for number in range(8):
        await kept.alice.put("response", f"r{number}", body=bytes(MOST_BODY_BYTES), parent_id=f"r{number - 1}")
    assert await kept.alice.page("response") == ([f"r{number}" for number in range(6)], True)
    assert await kept.alice.page("response", after="r5") == (["r6", "r7"], False)
    await kept.alice.put("response", "r0", body=b"{}")
    with refused(NOT_POSSIBLE, "bytes"):
        await kept.alice.chain("r7")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 5 * 1024**2 + 7])
async def test_a_file_comes_back_as_it_was_sent(kept: Kept, size: int) -> None:
    blob = os.urandom(size)
    stored = await kept.alice.upload("file-1", blob, piece=100_000, body=b'{"filename":"../../x"}')
    assert stored == kept.alice.item("file", "file-1", body=b'{"filename":"../../x"}', blob_bytes=size)
    assert await kept.alice.get("file", "file-1") == stored
    assert await kept.alice.download("file-1") == blob
    (file,) = kept.files()
    assert (kept.folder / file).stat().st_mode & 0o777 == 0o600
    assert "x" not in file


async def test_a_new_upload_replaces_the_bytes_and_a_new_body_leaves_them(kept: Kept) -> None:
    await kept.alice.upload("file-1", b"old")
    await kept.alice.upload("file-1", b"newer")
    await kept.alice.put("file", "file-1", body=b'{"status":"processed"}')
    stored = await kept.alice.get("file", "file-1")
    assert (stored.body, stored.blob_bytes) == (b'{"status":"processed"}', 5)
    assert await kept.alice.download("file-1") == b"newer"
    assert len(kept.files()) == 1


async def test_what_came_without_bytes_has_none_to_download(kept: Kept) -> None:
    await kept.alice.put("response", "resp_1")
    with refused(NOT_FOUND, "no bytes"):
        await kept.alice.download("resp_1", kind="response")


async def test_a_download_goes_on_while_the_file_is_deleted(kept: Kept) -> None:
    blob = os.urandom(5 * 1024**2)
    await kept.alice.upload("file-1", blob)
    request = pb.DownloadRequest(user_id=kept.alice.user_id, kind="file", id="file-1")
    answers = aiter(kept.alice.stub.Download(request, metadata=kept.alice.metadata))
    got = (await anext(answers)).piece
    assert await kept.alice.delete("file", "file-1")
    assert kept.files() == []
    async for answer in answers:
        got += answer.piece
    assert got == blob


async def test_an_upload_that_is_cut_leaves_nothing(kept: Kept) -> None:
    for pieces in (0, 1, 4):
        for moment_s in (0.0, 0.002, 0.05):
            call = kept.alice.stub.Upload(metadata=kept.alice.metadata)
            await call.write(pb.UploadRequest(item=kept.alice.item("file", "file-1")))
            for _ in range(pieces):
                await call.write(pb.UploadRequest(piece=bytes(PIECE_BYTES)))
            await asyncio.sleep(moment_s)
            call.cancel()
    await until(lambda: kept.files() == [])
    with refused(NOT_FOUND):
        await kept.alice.get("file", "file-1")


async def test_an_upload_whose_connection_breaks_leaves_nothing(kept: Kept) -> None:
    async with grpc.aio.insecure_channel(kept.settings.listen) as channel:
        call = content_pb2_grpc.ContentStub(channel).Upload(metadata=kept.alice.metadata)
        await call.write(pb.UploadRequest(item=kept.alice.item("file", "file-1")))
        await call.write(pb.UploadRequest(piece=bytes(PIECE_BYTES)))
        await until(kept.files)
    await until(lambda: kept.files() == [])
    with refused(NOT_FOUND):
        await kept.alice.get("file", "file-1")


async def test_an_upload_that_is_not_one_is_refused_and_leaves_nothing(kept: Kept) -> None:
    item, piece = pb.UploadRequest(item=kept.alice.item("file", "file-1")), pb.UploadRequest(piece=b"x")
    told = pb.UploadRequest(item=kept.alice.item("file", "file-1", blob_bytes=3))
    for parts, saying in (
        ([], "begins with the item"),
        ([piece], "begins with the item"),
        ([item, piece, item], "only pieces"),
        ([item, pb.UploadRequest(piece=bytes(PIECE_BYTES + 1))], str(PIECE_BYTES)),
        ([told, piece], "blob_bytes says 3"),
    ):
        with refused(BAD, saying):
            await kept.alice.send(parts)
    assert kept.files() == []


async def test_without_a_directory_files_are_refused_and_the_rest_is_kept(kept: Kept) -> None:
    async with running(kept.settings, content_dir=None) as kept:
        with refused(NOT_POSSIBLE, "content_dir"):
            await kept.alice.upload("file-1", b"x")
        await kept.alice.put("response", "resp_1")
        assert await kept.alice.page("response") == (["resp_1"], False)


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_a_conversation_takes_its_items_with_it_and_nothing_else(kept: Kept) -> None:
    for conversation in ("conv_a", "conv_b"):
        await kept.alice.put("conversation", conversation)
        await kept.alice.put("item", f"item_of_{conversation}", parent_id=conversation)
    await kept.alice.put("response", "resp_1", parent_id="conv_a")
    await kept.bob.put("item", "bobs", parent_id="conv_a")
    assert await kept.alice.delete("conversation", "conv_a")
    assert not await kept.alice.delete("conversation", "conv_a")
    assert await kept.alice.page("item") == (["item_of_conv_b"], False)
    assert await kept.alice.page("response") == (["resp_1"], False)
    assert await kept.bob.page("item") == (["bobs"], False)


async def test_a_response_does_not_take_those_that_follow_it(kept: Kept) -> None:
    await kept.alice.put("response", "r0")
    await kept.alice.put("response", "r1", parent_id="r0")
    assert await kept.alice.delete("response", "r0")
    assert await kept.alice.page("response") == (["r1"], False)


async def test_what_has_expired_is_gone_at_once_and_its_id_is_free(kept: Kept) -> None:
    await kept.alice.upload("file-1", b"x", created_at_us=1, expires_at_us=2)
    await kept.alice.put("file", "file-2", created_at_us=1, expires_at_us=2)
    for look in (kept.alice.get("file", "file-1"), kept.alice.download("file-1")):
        with refused(NOT_FOUND):
            await look
    assert await kept.alice.page("file") == ([], False)
    assert not await kept.alice.delete("file", "file-2")
    await kept.bob.put("file", "file-1", body=b"bob's")
    assert (await kept.bob.get("file", "file-1")).blob_bytes == 0
    assert kept.files() == []


async def test_the_sweep_removes_what_has_expired_with_what_lies_in_it(kept: Kept) -> None:
    past = {"created_at_us": 1, "expires_at_us": 2}
    await kept.alice.put("conversation", "conv_a", **past)
    await kept.alice.put("item", "item_1", parent_id="conv_a")
    await kept.alice.put("item", "item_2", parent_id="conv_a", **past)
    await kept.alice.upload("file-1", b"x", **past)
    await kept.alice.upload("file-2", b"y", expires_at_us=2 * T0)
    async with sweeping(kept) as sweep:
        await until_swept(kept, sweep, rows=1)
    assert await kept.alice.page("file") == (["file-2"], False)
    assert len(kept.files()) == 1


async def test_the_sweep_removes_old_files_without_a_row_and_no_others(kept: Kept) -> None:
    await kept.alice.upload("file-1", b"x")
    (with_row,) = kept.files()
    old = {"0" * 32: time.time(), "1" * 32 + ".part": time.time(), "notes.txt": time.time(), with_row: time.time()}
    fresh = {"2" * 32, "3" * 32 + ".part"}
    for name in old.keys() | fresh:
        (kept.folder / name).touch()
    for name in old:
        os.utime(kept.folder / name, (time.time() - ORPHAN_S - 60,) * 2)
    async with sweeping(kept, time.time()) as sweep:
        async with asyncio.timeout(10):
            while "0" * 32 in kept.files():
                await sweep.sweep()
    assert set(kept.files()) == {"notes.txt", with_row} | fresh
    assert await kept.alice.download("file-1") == b"x"


async def test_one_replica_sweeps_at_a_time(kept: Kept) -> None:
    await kept.alice.put("response", "resp_1", created_at_us=1, expires_at_us=2)
    async with kept.database() as other, sweeping(kept) as sweep, asyncio.timeout(10):
        while not await other.fetchval("SELECT pg_try_advisory_lock($1)", 0x464F5246):
            await asyncio.sleep(0.01)
        await sweep.sweep()
        assert await other.fetchval("SELECT count(*) FROM admin.content") == 1
        await other.fetchval("SELECT pg_advisory_unlock($1)", 0x464F5246)
        await sweep.sweep()
        assert await other.fetchval("SELECT count(*) FROM admin.content") == 0


@asynccontextmanager
async def sweeping(kept: Kept, now: float = T0 / 1e6) -> AsyncIterator[ContentSweep]:
    async with open_database(kept.settings.database_url or "", SCHEMA) as database:
        yield ContentSweep(database, DirectoryBlobs(kept.folder), ManualClock(now))


async def until_swept(kept: Kept, sweep: ContentSweep, rows: int) -> None:
    """Admin sweeps too, when it starts, and ours does nothing in that moment."""
    async with kept.database() as direct, asyncio.timeout(10):
        while await direct.fetchval("SELECT count(*) FROM admin.content") != rows:
            await sweep.sweep()


# --- how much ---------------------------------------------------------------------------------------------------------


async def test_the_limit_of_things_holds_however_many_come_at_once(kept: Kept) -> None:
    async with running(kept.settings, content_per_user=3) as kept:
        took = await asyncio.gather(
            *(kept.alice.put("conversation", f"r{number}") for number in range(8)), return_exceptions=True
        )
        assert [error.code() for error in took if isinstance(error, grpc.aio.AioRpcError)] == [NOT_POSSIBLE] * 5
        (first, *_), _ = await kept.alice.page("conversation")
        await kept.alice.put("conversation", first, body=b"again")
        await kept.bob.put("conversation", "bobs")
        with refused(NOT_POSSIBLE, "delete some that you no longer need. Most are conversations (3)"):
            await kept.alice.upload("file-1", b"x")
        with refused(NOT_POSSIBLE):
            await kept.alice.put("response", "resp_1")  # there is none that could give way to it
        await kept.alice.delete("conversation", first)
        await kept.alice.put("conversation", "r9")


async def test_the_oldest_responses_give_way_to_new_ones(kept: Kept) -> None:
    async with running(kept.settings, content_per_user=3) as kept:
        await kept.alice.put("conversation", "conv_1")
        for number in range(5):
            await kept.alice.put("response", f"resp_{number}", created_at_us=T0 + number)
        await kept.bob.put("response", "bobs")
        assert await kept.alice.page("response") == (["resp_3", "resp_4"], False)
        await kept.alice.put("response", "resp_4", body=b"again", created_at_us=T0 + 4)
        assert (await kept.alice.page("response"))[0] == ["resp_3", "resp_4"]
        await kept.alice.put("background", "resp_5")
        assert (await kept.alice.page("response"))[0] == ["resp_4"], "to the signs of one under way, too"


async def test_the_limits_of_bytes_hold_for_bodies_and_files(kept: Kept) -> None:
    async with running(kept.settings, content_bytes_per_user=1000, content_max_blob_bytes=600) as kept:
        with refused(BAD, "600"):
            await kept.alice.upload("file-1", bytes(601))
        with refused(BAD, "600"):
            await kept.alice.send([pb.UploadRequest(item=kept.alice.item("file", "file-1", blob_bytes=601))])
        await kept.alice.upload("file-1", bytes(600))
        with refused(NOT_POSSIBLE, "delete something"):
            await kept.alice.upload("file-2", bytes(600))
        with refused(NOT_POSSIBLE, "Most are in files (602 bytes)"):
            await kept.alice.put("response", "resp_1", body=bytes(399))
        await kept.alice.put("response", "resp_1", body=bytes(398))
        await kept.alice.upload("file-1", bytes(500))
        assert len(kept.files()) == 1


# --- who may call, and what stays -------------------------------------------------------------------------------------


async def test_only_a_gateway_may_call(kept: Kept) -> None:
    for service in TOKENS.keys() - {"gateway"}:
        peer = await kept.peer(TOKENS[service])
        other = Calls(content_pb2_grpc.ContentStub(peer.channel), peer.metadata, kept.alice.user_id)
        for call in (other.get("response", "x"), other.upload("x", b""), other.download("x")):
            with refused(grpc.StatusCode.PERMISSION_DENIED):
                await call


async def test_nobody_reads_it_with_a_forebay_key(kept: Kept) -> None:
    peer = await kept.peer((kept.settings.bootstrap_key_file or Path()).read_text().strip())
    other = Calls(content_pb2_grpc.ContentStub(peer.channel), peer.metadata, kept.alice.user_id)
    with refused(grpc.StatusCode.UNAUTHENTICATED):
        await other.get("response", "x")


async def test_a_restart_of_admin_keeps_everything(kept: Kept) -> None:
    blob = os.urandom(300_000)
    async with running(kept.settings) as before:
        await before.alice.put("response", "resp_1", body=b"kept")
        await before.alice.upload("file-1", blob)
    async with running(kept.settings) as after:
        assert (await after.alice.get("response", "resp_1")).body == b"kept"
        assert await after.alice.download("file-1") == blob
