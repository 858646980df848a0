"""The audit log's chain: what Postgres chains is what we compute, from any replica and any version, and what was done to the
log behind its back is found and named."""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.database import Database, open_database
from forebay.errors import BadInput
from forebay_admin.audit.audit_store import Act, Facts, Interface, record
from forebay_admin.audit.chain import BEGINNING, Anchor, Damage, Entry, Fault, Link, Walk, link_hash, parse_anchor
from forebay_admin.audit.log_store import first_unchained, links_after, read_head
from forebay_admin.service import MIGRATIONS
from forebay_admin.tables import SCHEMA

NOON = datetime(2027, 1, 15, 12, 0, 0, 123456, tzinfo=UTC)
ENTRY = Entry(7, 1_000_000, "alice", "k1", "grpc", "192.0.2.1", "key.create", "k2", None, '{"a": 1}')


def chain(count: int) -> list[Link]:
    links, previous = [], BEGINNING
    for seq in range(1, count + 1):
        entry = replace(ENTRY, id=100 + seq)
        links.append(Link(seq, entry.id, 1, previous, link_hash(seq, previous, entry), entry))
        previous = links[-1].hash
    return links


def walked(links: list[Link], anchor: Anchor | None = None, last: int = 4, head: Anchor | None = None) -> Fault | None:
    walk = Walk(anchor=anchor)
    return walk.check(links) or walk.end(head or Anchor(4, chain(4)[-1].hash), last)


def test_a_chain_that_nobody_touched_holds() -> None:
    links = chain(4)
    assert walked(links) is None
    assert walked(links, Anchor(2, links[1].hash)) is None
    middle = Walk(3, None)
    assert middle.check(links[2:]) is None
    assert middle.end(Anchor(4, links[3].hash), 4) is None


def test_what_is_wrong_with_a_chain_is_named_with_its_first_place() -> None:
    links = chain(4)
    entry = links[2].entry
    assert entry is not None

    def kind(
        changed: list[Link], anchor: Anchor | None = None, head: Anchor | None = None
    ) -> tuple[Damage, int] | None:
        fault = walked(changed, anchor, head=head)
        return (fault.damage, fault.seq) if fault is not None else None

    def with_third(link: Link) -> list[Link]:
        return [*links[:2], link, links[3]]

    forged = replace(entry, actor="mallory")
    rehashed = replace(links[2], entry=forged, hash=link_hash(3, links[2].previous, forged))
    assert kind(with_third(replace(links[2], entry=forged))) == (Damage.CHANGED, 3)
    assert kind(with_third(replace(links[2], entry=replace(entry, before="null")))) == (Damage.CHANGED, 3)
    assert kind(with_third(rehashed)) == (Damage.CHANGED, 4)
    assert kind(with_third(replace(links[2], entry=None))) == (Damage.REMOVED, 3)
    assert kind(with_third(replace(links[2], form=9))) == (Damage.UNKNOWN_FORM, 3)
    assert kind([*links[:2], links[3]]) == (Damage.REMOVED, 3)
    assert kind(links[1:]) == (Damage.REMOVED, 1)
    assert kind(links[:3]) == (Damage.REMOVED, 4)
    assert kind([]) == (Damage.REMOVED, 1)
    assert kind(links, Anchor(2, bytes(32))) == (Damage.CHANGED, 2)
    assert kind(links, Anchor(5, bytes(32))) == (Damage.REMOVED, 5)
    assert kind(links, head=Anchor(4, bytes(32))) == (Damage.CHANGED, 4)


def test_nothing_moves_from_one_field_to_the_next_unseen() -> None:
    one, other = replace(ENTRY, actor="ab", actor_key_id="c"), replace(ENTRY, actor="a", actor_key_id="bc")
    assert link_hash(1, BEGINNING, one) != link_hash(1, BEGINNING, other)
    assert link_hash(1, BEGINNING, replace(ENTRY, before="")) != link_hash(1, BEGINNING, ENTRY)


@pytest.mark.parametrize("wrong", ["", "1", "x:" + "00" * 32, "0:" + "00" * 32, "1:00", f"{2**63}:" + "00" * 32])
def test_an_anchor_is_a_number_and_a_hash(wrong: str) -> None:
    assert parse_anchor(f" 12:{'ab' * 32} ") == Anchor(12, bytes.fromhex("ab" * 32))
    with pytest.raises(BadInput, match="An anchor is"):
        parse_anchor(wrong)


@pytest.fixture
async def database(admin_database_url: str) -> AsyncIterator[Database]:
    async with open_database(admin_database_url, SCHEMA) as opened:
        yield opened


async def note(database: Database, *acts: Act) -> None:
    async with database.writing() as connection:
        for act in acts:
            await record(connection, act, NOON)


async def checked(database: Database) -> Fault | None:
    async with database.reading() as connection:
        return await checked_in(connection)


async def checked_in(connection: AsyncConnection) -> Fault | None:
    walk, head = Walk(), await read_head(connection)
    links = await links_after(connection, 0, head.seq, 10_000)
    return walk.check(links) or walk.end(head, head.seq) or await first_unchained(connection)


async def test_what_postgres_chains_is_what_we_compute_whoever_wrote_it(database: Database) -> None:
    odd: Facts = {"words": 'sœur \u2028 "quoted"', "number": 2**53 + 1, "no": None, "list": ["a", "b"], "yes": True}
    await note(database, Act("älice", "key.create", "k1", Interface.REST, "fbses-1", "2001:db8::1", odd, {}))
    await note(database, *(Act("bob", "user.add", f"u{number}") for number in range(5)))
    async with database.writing() as connection:
        # As the version before writes it.
        await connection.execute(
            text(
                "INSERT INTO admin.audit_log (at, actor, interface, action, subject, after)"
                " VALUES (now(), 'old', 'grpc', 'user.add', 'u9', '{\"b\": 1.50, \"a\": [1, {\"c\": null}]}')"
            )
        )
    await asyncio.gather(*(note(database, Act("carol", "key.revoke", f"k{number}")) for number in range(12)))
    assert await checked(database) is None
    async with database.reading() as connection:
        assert (await read_head(connection)).seq == 19


async def test_an_act_that_is_taken_back_leaves_no_gap(database: Database) -> None:
    async with database.reading() as connection:  # which is rolled back
        await record(connection, Act("alice", "key.create", "k1"), NOON)
    await note(database, Act("alice", "key.create", "k2"))
    assert await checked(database) is None
    async with database.reading() as connection:
        assert (await read_head(connection)).seq == 1


TAMPERED = (
    ("UPDATE admin.audit_log SET subject = 'k9' WHERE subject = 'k2'", Damage.CHANGED, 2),
    ("UPDATE admin.audit_log SET at = at + interval '1 microsecond' WHERE subject = 'k3'", Damage.CHANGED, 3),
    ("DELETE FROM admin.audit_log WHERE subject = 'k2'", Damage.REMOVED, 2),
    ("DELETE FROM admin.audit_chain WHERE seq = 2", Damage.REMOVED, 2),
    ("DELETE FROM admin.audit_chain WHERE seq = 4", Damage.REMOVED, 4),
    (
        "INSERT INTO admin.audit_log (at, actor, interface, action, subject) VALUES (now(), 'm', 'grpc', 'x', 'k7')",
        Damage.INSERTED,
        0,
    ),
)


async def test_what_was_done_behind_its_back_is_found(database: Database) -> None:
    """By somebody who may do anything to the database, and did it so that no trigger runs."""
    await note(database, *(Act("alice", "key.create", f"k{number}") for number in range(1, 5)))
    assert await checked(database) is None
    for statement, damage, seq in TAMPERED:
        async with database.reading() as connection:  # which takes back what it did
            for table in ("audit_log", "audit_chain"):
                await connection.execute(text(f"ALTER TABLE admin.{table} DISABLE TRIGGER USER"))
            await connection.execute(text(statement))
            fault = await checked_in(connection)
        assert fault is not None, statement
        assert (fault.damage, fault.seq) == (damage, seq), statement


async def test_what_was_written_before_there_was_a_chain_is_chained(database: Database) -> None:
    chain_all = runpy.run_path(str(MIGRATIONS / "versions" / "0016_audit_chain.py"))["CHAIN_WHAT_IS_THERE"]
    async with database.reading() as connection:  # which takes back what it did
        await connection.execute(text("ALTER TABLE admin.audit_log DISABLE TRIGGER USER"))
        await connection.execute(
            text(
                "INSERT INTO admin.audit_log (at, actor, interface, action, subject)"
                " SELECT now(), 'old', 'grpc', 'user.add', 'u' || n FROM generate_series(1, 2000) AS n"
            )
        )
        await connection.execute(text(chain_all))
        assert await checked_in(connection) is None
        assert (await read_head(connection)).seq == 2000


@pytest.mark.parametrize(
    "change",
    ["TRUNCATE admin.audit_log", "UPDATE admin.audit_chain SET seq = 9", "DELETE FROM admin.audit_chain"],
)
async def test_the_chain_only_grows(database: Database, change: str) -> None:
    await note(database, Act("alice", "key.create", "k1"))
    with pytest.raises(DBAPIError, match="append-only"):
        async with database.writing() as connection:
            await connection.execute(text(change))
