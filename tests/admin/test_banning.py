"""Bans that Forebay makes: whom it leaves alone, whom it wakes, and how long they are kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from forebay.client_addresses import Network, parse_network, read_proxies
from forebay.clock import ManualClock
from forebay.database import Database, open_database
from forebay.memory_bus import MemoryBus
from forebay_admin.changes import Change, Changes
from forebay_admin.notify.outbox import Outbox
from forebay_admin.security import rule_store
from forebay_admin.security.banning import Banning
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.gatekeeper import Gatekeeper
from forebay_admin.security.rule_store import forget_bans, keep_ban, rules_since
from forebay_admin.security.rules import HeldBan
from forebay_admin.security.watchman import Watchman
from forebay_admin.tables import SCHEMA
from forebay_admin.versions import Since

STRANGER, PROXY, NEWER_PROXY = "203.0.113.9", "10.0.0.7", "2001:db8::7"


class CountedChanges(Changes):
    made = 0

    @asynccontextmanager
    async def make(self, database: Database) -> AsyncIterator[Change]:
        self.made += 1
        async with super().make(database) as change:
            yield change


def net(network: str) -> Network:
    parsed = parse_network(network)
    assert parsed is not None
    return parsed


async def test_who_is_banned_already_wakes_nobody_and_what_was_lifted_stays_until_its_end(
    admin_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, changes = ManualClock(), CountedChanges()
    now = datetime.fromtimestamp(clock.now(), UTC)
    async with open_database(admin_database_url, SCHEMA) as database:
        book = EventBook(database, Outbox(clock), MemoryBus(clock.now), clock)
        banning = Banning(Gatekeeper(clock), book, read_proxies([PROXY, NEWER_PROXY], "x-forwarded-for"), clock)
        assert banning.count(PROXY, 1000) is None, "a proxy that does not say whom it speaks for"
        watchman = Watchman(database, changes, banning, book, clock)
        for address in (NEWER_PROXY, "2001:db8:0:1::7"):
            for _ in range(40):
                watchman.login_failed("", address)
        assert list(watchman._to_ban) == [net("2001:db8:0:1::/64")]
        assert banning.count(STRANGER, 1000) == net(STRANGER)
        for _ in range(3):
            await banning.ban(database, changes, {net(STRANGER): 30}, "g1", now)
        assert changes.made == 1
        long_ago = now - timedelta(days=9)
        lifted = HeldBan(net("192.0.2.1"), long_ago, None, "", "alice", lifted_at=long_ago, lifted_by="alice")
        over = [HeldBan(net(f"198.51.100.{n}"), long_ago, now - timedelta(seconds=n), "", "") for n in (1, 2, 3)]
        monkeypatch.setattr(rule_store, "MOST_REMEMBERED", 1)
        async with changes.make(database) as change:
            for ban in (lifted, *over):
                await keep_ban(change, ban)
            await forget_bans(change.connection, now)
            delta = await rules_since(change.connection, Since(0, is_snapshot=False), change.version, now)
            whole = await rules_since(change.connection, Since(0, is_snapshot=True), change.version, now)
        # A gateway that was away since before it was lifted goes by it still.
        assert {str(ban.network) for ban in delta.bans} == {f"{STRANGER}/32", "192.0.2.1/32", "198.51.100.1/32"}
        assert [str(ban.network) for ban in whole.bans] == [f"{STRANGER}/32"]
