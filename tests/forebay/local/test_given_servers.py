"""Servers of others are asked before anything starts, and whoever typed their address hears what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.errors import BadSettings, CannotStart
from forebay.local.given_servers import demand_database, demand_nats
from forebay.local.postgres import open_postgres

FindPort = Callable[[], int]


async def test_a_database_that_does_not_want_us_is_told_at_once(place: Path, free_port: FindPort) -> None:
    async with open_postgres(
        place / "postgres", secrets=place / "secrets", port=free_port(), log=place / "log"
    ) as postgres:
        await demand_database(postgres.superuser_url)
        async with asyncio.timeout(10):
            with pytest.raises(CannotStart, match="password authentication failed") as refused:
                await demand_database(f"postgresql://forebay:hush@127.0.0.1:{postgres.port}/postgres", 60)
            with pytest.raises(CannotStart, match='database "nosuch" does not exist'):
                await demand_database(postgres.superuser_url.replace("/postgres", "/nosuch"), 60)
    assert "hush" not in refused.value.message


async def test_a_database_that_is_not_there_is_waited_for_and_then_named(free_port: FindPort) -> None:
    port = free_port()
    with pytest.raises(CannotStart, match=rf"cannot be reached at 127\.0\.0\.1:{port} .* correct DATABASE_URL") as told:
        await demand_database(f"postgresql://a:hush@127.0.0.1:{port}/x", 0.1)
    assert "hush" not in told.value.message


async def test_what_is_no_address_is_a_problem_of_the_settings() -> None:
    with pytest.raises(BadSettings, match="DATABASE_URL is not postgresql://"):
        await demand_database("mysql://a:b@127.0.0.1:1/x", 0.1)
    with pytest.raises(BadSettings, match="NATS_URL"):
        await demand_nats("nats://127.0.0.1:foo", 0.1)
    with pytest.raises(BadSettings, match="NATS_URL is not nats://HOST:PORT"):
        await demand_nats("nats://", 0.1)


async def test_one_nats_server_of_several_is_enough_and_one_that_starts_late_is_waited_for(free_port: FindPort) -> None:
    late, never = free_port(), free_port()
    asking = asyncio.create_task(demand_nats(f"nats://127.0.0.1:{never}, nats://u:p@127.0.0.1:{late}", 20))
    await asyncio.sleep(0.1)
    assert not asking.done()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", late)
    async with server:
        await asyncio.wait_for(asking, 10)
    with pytest.raises(CannotStart, match=rf"cannot be reached at 127\.0\.0\.1:{never}"):
        await demand_nats(f"nats://127.0.0.1:{never}", 0.1)
