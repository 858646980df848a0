"""Admin as a whole: it starts whoever else is away, says what it waits for, and its streams outlive its database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import grpc
import grpc.aio
import pytest

from tests.admin.replica import Running, Site, Start, until


class Door:
    """A way to Postgres that can be shut: connections through it end, and new ones are refused."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = False
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self._open:
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._writers.add(there_writer)

        async def pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                sink.close()
            finally:
                sink.close()

        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer))

    def open(self) -> None:
        self._open = True

    def shut(self) -> None:
        self._open = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def door_to(url: str) -> AsyncIterator[tuple[Door, str]]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    door = Door(parts.hostname, parts.port)
    server = await asyncio.start_server(door.accept, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    try:
        yield door, url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{door.port}")
    finally:
        door.shut()
        server.close()
        await asyncio.sleep(0.05)


async def test_it_starts_without_registry_and_bus_and_says_it_is_ready(start: Start) -> None:
    async with start(registry_address="127.0.0.1:1", nats_url="nats://127.0.0.1:1") as admin:
        assert (await (await admin.operator()).ListUsers()).users[0].name == "admin"


async def test_it_waits_for_postgres_saying_so_and_serves_when_it_comes(start: Start, site: Site) -> None:
    async with door_to(site.database_url) as (door, url), start(wait=False, database_url=url) as admin:
        await until(lambda: "cannot be reached" in admin.ops.missing.get("database", ""))
        stream = (await admin.watcher("gateway")).WatchPrincipals()
        reading = asyncio.ensure_future(stream.read())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (await admin.operator("fb-000000000000-x")).ListUsers()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.sleep(0.3)
        assert not reading.done()
        door.open()
        assert len((await asyncio.wait_for(reading, 10)).keys) == 1
        await admin.ready()
        stream.cancel()


async def test_streams_stay_open_and_silent_while_postgres_is_away_and_go_on_when_it_is_back(
    start: Start, site: Site
) -> None:
    async with door_to(site.database_url) as (door, url):
        door.open()
        async with start(database_url=url) as admin:
            stream = (await admin.watcher("gateway")).WatchPrincipals()
            await asyncio.wait_for(stream.read(), 30)
            reading = asyncio.ensure_future(stream.read())
            door.shut()
            await until(lambda: "PostgreSQL is away" in admin.ops.missing.get("database", ""))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await (await admin.operator()).ListUsers()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            # Meanwhile somebody else changes something, and nobody can tell this replica.
            direct = await asyncpg.connect(site.database_url)
            await direct.execute(
                "WITH v AS (UPDATE admin.version SET value = value + 1 RETURNING value) "
                "UPDATE admin.keys SET name = 'renamed', version = (SELECT value FROM v)"
            )
            await direct.close()
            await asyncio.sleep(0.3)
            assert not reading.done()
            door.open()
            delta = await asyncio.wait_for(reading, 10)
            assert (delta.snapshot, len(delta.keys)) == (False, 1)
            await admin.ready()
            stream.cancel()


async def test_a_lost_notice_is_made_up_for_by_looking(admin: Running) -> None:
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    known = (await asyncio.wait_for(stream.read(), 30)).version
    direct = await asyncpg.connect(admin.site.database_url)
    await direct.execute("UPDATE admin.version SET value = value + 1")
    await direct.close()
    assert (await asyncio.wait_for(stream.read(), 30)).version == known + 1
    stream.cancel()


async def test_the_front_page_says_what_this_is(admin: Running) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"http://{admin.http_address}/") as answer:
        page = await answer.json()
    assert page["service"] == "forebay admin"
    assert "database" not in page["waiting_for"]


async def test_metrics_tell_watchers_and_version(admin: Running) -> None:
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    version = (await asyncio.wait_for(stream.read(), 30)).version
    told = admin.ops.metrics.exposition().decode()
    assert 'forebay_admin_watchers{stream="principals"} 1.0' in told
    assert f"forebay_admin_version {float(version)}" in told
    stream.cancel()
    await until(lambda: 'forebay_admin_watchers{stream="principals"} 0.0' in admin.ops.metrics.exposition().decode())
