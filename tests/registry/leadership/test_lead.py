"""Two that want to lead one database: who may write, and what becomes of one that does not know yet that it may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from forebay.clock import SystemClock
from forebay.database import Database
from forebay_registry.leadership import lead as lead_module
from forebay_registry.leadership.fence import open_fenced_database
from forebay_registry.leadership.gate import Gate
from forebay_registry.leadership.lead import Lead
from forebay_registry.leadership.standing import Adrift, Fenced, Stance, Standing, StandsBy, after_loss
from tests.conftest import free_port


@asynccontextmanager
async def standing(url: str, address: str) -> AsyncIterator[Lead]:
    lead = Lead(url, SystemClock(), address=address)
    lead.tables.set()
    async with lead.held():
        yield lead


async def write(database: Database) -> None:
    async with database.writing() as connection:
        await connection.execute(text("UPDATE registry.fleet_counter SET version = version + 1"))


async def written(database: Database) -> int:
    async with database.reading() as connection:
        return int((await connection.execute(text("SELECT version FROM registry.fleet_counter"))).scalar_one())


async def test_one_leads_the_other_says_who_does_and_follows_under_a_later_epoch(
    database: Database, registry_database_url: str, eventually: Callable[..., Any]
) -> None:
    async with AsyncExitStack() as second_place:
        async with standing(registry_database_url, "one:8094") as one:
            await eventually(lambda: one.leading.is_open)
            two = await second_place.enter_async_context(standing(registry_database_url, "two:8094"))
            await eventually(lambda: two.stance.standing is Standing.STANDBY)
            assert (two.stance.epoch, two.stance.leader) == (one.stance.epoch, "one:8094")
            assert (one.acting.is_open, two.acting.is_open) == (True, False)
            with pytest.raises(StandsBy, match="This registry stands by; one:8094 leads"):
                two.refuse_standby()
            first = one.stance.epoch
        await eventually(lambda: two.leading.is_open)
        assert two.stance.epoch > first
        assert two.is_fresh, "what it sees of the fleet is another one's until now"


async def test_a_leader_that_lost_its_connection_unaware_writes_nothing_more(
    database: Database, registry_database_url: str, eventually: Callable[..., Any]
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(standing(registry_database_url, "one"))
        fenced = await stack.enter_async_context(open_fenced_database(registry_database_url, "registry", one))
        await eventually(lambda: one.leading.is_open)
        await write(fenced)
        async with database.writing() as connection:  # as the next leader does
            await connection.execute(text("UPDATE registry.leadership SET epoch = epoch + 1, holder = 'two'"))
        with pytest.raises(Fenced, match="Another registry has taken the lead"):
            await write(fenced)
        assert not one.leading.is_open
        assert await written(database) == 1


async def test_who_takes_the_lead_waits_for_the_transaction_of_the_one_before(
    database: Database, registry_database_url: str, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_module, "WAIT_S", 2.5)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(standing(registry_database_url, "one"))
        fenced = await stack.enter_async_context(open_fenced_database(registry_database_url, "registry", one))
        await eventually(lambda: one.leading.is_open)
        two = await stack.enter_async_context(standing(registry_database_url, "two"))
        async with fenced.writing() as connection:
            await _end_lead_of(registry_database_url)
            await asyncio.sleep(0.6)
            assert not (one.leading.is_open and two.leading.is_open)
            assert not two.leading.is_open, "the epoch changes between two transactions, never inside one"
            await connection.execute(text("UPDATE registry.fleet_counter SET version = 40"))
        await eventually(lambda: one.leading.is_open or two.leading.is_open)
        assert await written(database) == 40


async def test_a_writer_that_stands_still_does_not_keep_the_next_one_from_the_lead(
    database: Database, registry_database_url: str, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_module, "WAIT_S", 0.2)
    stuck = await asyncpg.connect(registry_database_url)
    try:
        await stuck.execute("BEGIN")
        await stuck.execute("SELECT epoch FROM registry.leadership FOR SHARE")
        await stuck.execute("UPDATE registry.fleet_counter SET version = 99")
        async with standing(registry_database_url, "two") as two:
            await eventually(lambda: two.leading.is_open)
            await eventually(stuck.is_closed)
            assert await written(database) == 0
    finally:
        stuck.terminate()


async def test_a_leader_without_postgres_drifts_and_leads_anew_when_nobody_else_did(
    database: Database, registry_database_url: str, eventually: Callable[..., Any]
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(standing(registry_database_url, "one"))
        fenced = await stack.enter_async_context(open_fenced_database(registry_database_url, "registry", one))
        await eventually(lambda: one.leading.is_open)
        first = one.stance.epoch
        turn = one.turn
        await _end_lead_of(registry_database_url)
        await one.beyond(turn)
        assert (one.stance, one.acting.is_open) == (Stance(Standing.ADRIFT, first, "one"), True)
        with pytest.raises(Adrift, match="nobody can say whether this registry still leads"):
            await write(fenced)
        await eventually(lambda: one.leading.is_open)
        assert one.stance.epoch > first
        assert not one.is_fresh, "it has looked at the engines all the time"


async def test_a_leader_that_is_stopped_is_followed_when_its_lease_is_over(
    database: Database, registry_database_url: str, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_module, "LEASE_S", 1.2)
    monkeypatch.setattr(lead_module, "RENEW_S", 30.0)  # it does not say anything any more,
    monkeypatch.setattr(lead_module, "_RETRY_S", 30.0)  # and does not notice
    async with standing(registry_database_url, "one") as one:
        await eventually(lambda: one.leading.is_open)
        monkeypatch.setattr(lead_module, "RENEW_S", 0.2)
        async with standing(registry_database_url, "two") as two:
            await eventually(lambda: two.leading.is_open)
            assert two.stance.epoch > one.stance.epoch


async def test_without_postgres_only_one_that_remembers_the_fleet_goes_on(
    eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_module, "PATIENCE_S", 0.05)
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    async with standing(url, "one") as knows, standing(url, "two") as knows_nothing:
        knows.remember(77)
        await eventually(lambda: knows.acting.is_open)
        assert (knows.stance.standing, knows.stance.epoch) == (Standing.ADRIFT, 77)
        assert knows_nothing.stance.standing is Standing.WAITING


def test_only_a_leader_drifts() -> None:
    assert after_loss(Stance(Standing.LEADING, 3, "me")) == Stance(Standing.ADRIFT, 3, "me")
    for other in (Standing.WAITING, Standing.STANDBY, Standing.ADRIFT):
        assert after_loss(Stance(other, 3)) == Stance(other, 3)


async def test_gated_work_begins_and_ends_with_the_gate_and_its_fault_is_told() -> None:
    gate, begun, ended = Gate(), 0, 0

    async def work() -> None:
        nonlocal begun, ended
        begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    doing = asyncio.create_task(gate.during(work))
    for turn in (1, 2):
        gate.set(True)
        while begun < turn:
            await asyncio.sleep(0)
        gate.set(False)
        while ended < turn:
            await asyncio.sleep(0)
    doing.cancel()
    await asyncio.wait([doing])

    async def fault() -> None:
        raise ValueError("a fault")

    gate.set(True)
    with pytest.raises(ValueError, match="a fault"):
        await gate.during(fault)


async def _end_lead_of(url: str) -> None:
    """As if the network had cut the connection that holds the lead."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    finally:
        await connection.close()
