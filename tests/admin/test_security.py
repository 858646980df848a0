"""Lists of addresses, bans and security events on a real admin: from gateways and its own HTTP port to those who watch."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import grpc.aio
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from forebay.brute_force import BanPolicy
from forebay.client_addresses import Network, parse_network
from forebay.clock import ManualClock
from forebay.database import open_database
from forebay.errors import BadInput
from forebay.forwarded import HEADER, Forwards
from forebay.keys import new_key
from forebay.launch import cli
from forebay.memory_bus import MemoryBus
from forebay.wire.v1 import admin_pb2_grpc, security_pb2, security_pb2_grpc
from forebay_admin.ledger.partitions import make_partitions, partitions_of
from forebay_admin.notify.outbox import Outbox
from forebay_admin.people.people import Role
from forebay_admin.security.event_book import EventBook
from forebay_admin.security.event_store import EVENTS, Sought, search
from forebay_admin.security.events import MOST_TOLD_SINGLY, Few, Kind, SecurityEvent
from forebay_admin.security.keeping import SecurityKeeping
from forebay_admin.security.rules import HeldBan, Policy, demand_policy, next_ban
from forebay_admin.security.wire import event_from
from forebay_admin.tables import SCHEMA
from tests.admin.replica import TOKENS, Running, Start
from tests.admin.test_operator import refused, somebody

DENY, ALLOW = security_pb2.ADDRESS_LIST_DENY, security_pb2.ADDRESS_LIST_ALLOW
RESTRICTIVE, PERMISSIVE = security_pb2.ADDRESS_MODE_RESTRICTIVE, security_pb2.ADDRESS_MODE_PERMISSIVE
STRANGER = "203.0.113.9"
NOW = datetime(2027, 1, 15, 12, tzinfo=UTC)


def net(network: str) -> Network:
    parsed = parse_network(network)
    assert parsed is not None
    return parsed


# --- decisions --------------------------------------------------------------------------------------------------------


def test_the_next_ban_within_a_day_is_twice_as_long_unless_somebody_took_the_last_one_back() -> None:
    policy = BanPolicy(first_s=60, longest_s=3600)
    first = next_ban(None, net(STRANGER), 30, NOW, policy)
    assert (first.until, first.strikes, first.spares_valid) == (NOW + timedelta(seconds=60), 1, True)
    later = NOW + timedelta(hours=1)
    assert next_ban(first, net(STRANGER), 30, later, policy).until == later + timedelta(seconds=120)
    lifted = replace(first, lifted_at=NOW, lifted_by="alice")
    by_hand = HeldBan(net(STRANGER), NOW, NOW, "", "alice", strikes=1)
    for before in (lifted, by_hand, replace(first, until=NOW - timedelta(days=1))):
        assert next_ban(before, net(STRANGER), 30, later, policy).strikes == 1


@pytest.mark.parametrize("wrong", [BanPolicy(window_s=0), BanPolicy(first_s=0), BanPolicy(first_s=60, longest_s=59)])
def test_a_policy_that_means_nothing_is_refused(wrong: BanPolicy) -> None:
    with pytest.raises(BadInput):
        demand_policy(Policy(bans=wrong))


def test_of_an_attack_those_who_subscribed_hear_a_few_and_the_rest_in_one() -> None:
    many = [SecurityEvent(Kind.KEY_REFUSED, NOW, NOW, 3, address=f"192.0.2.{n}") for n in range(100)]
    banned = SecurityEvent(Kind.BANNED, NOW, NOW)
    few = Few()
    told = [*few.of([*many, banned], 5.0), *few.of(many, 7.0)]
    assert len(told) == MOST_TOLD_SINGLY + 1
    assert banned in told
    assert not few.is_due(64.9)
    assert few.is_due(65.0)
    told += few.of([], 65.0)
    assert sum(event.count for event in told if event.kind == Kind.KEY_REFUSED) == 600
    assert len(told) == MOST_TOLD_SINGLY + 2
    assert not few.is_due(1000.0)


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "Key Refused"}, {"kind": ""}, {"address": "somewhere"}, {"id": "x"}, {"address": "of alice"}],
)
def test_what_is_no_event_is_refused(wrong: dict[str, str]) -> None:
    told = security_pb2.SecurityEvent(**{"id": uuid4().hex, "kind": "key_refused", **wrong})  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        event_from(told, "g1", NOW)


def test_an_event_of_a_wrong_clock_happened_now_and_its_texts_are_lines() -> None:
    told = security_pb2.SecurityEvent(
        id=uuid4().hex, kind="key_refused", at_us=1, last_at_us=1 << 62, count=0, detail="a\nb\x00" + "x" * 1000
    )
    event = event_from(told, "g1", NOW)
    assert (event.at, event.last_at, event.count, event.source) == (NOW, NOW, 1, "g1")
    assert event.detail.startswith("a b x")
    assert len(event.detail) == 300


# --- a whole admin ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def proxied(start: Start) -> AsyncIterator[Running]:
    """One to whose HTTP port a proxy on this machine passes requests on."""
    async with start(trusted_proxies=("127.0.0.1",)) as running:
        yield running


async def security(admin: Running) -> Any:
    peer = await admin.peer(TOKENS["gateway"])
    stub: Any = security_pb2_grpc.SecurityStub(peer.channel)
    return stub, peer.metadata


async def report(admin: Running, **fields: Any) -> None:
    stub, metadata = await security(admin)
    request = security_pb2.ReportSecurityRequest(gateway="g1", **fields)
    await stub.ReportSecurity(request, metadata=metadata, timeout=20)


def event(**fields: Any) -> security_pb2.SecurityEvent:
    now_us = round(time.time() * 1e6)
    told = {"kind": "key_refused", "reason": "invalid_key", "at_us": now_us, "last_at_us": now_us, "count": 1}
    return security_pb2.SecurityEvent(**{"id": uuid4().hex, **told, **fields})


async def test_what_gateways_ban_every_gateway_hears_and_what_was_reported_twice_is_there_once(admin: Running) -> None:
    root = await admin.operator()
    stub, metadata = await security(admin)
    updates = stub.WatchAddressRules(security_pb2.WatchAddressRulesRequest(), metadata=metadata)
    first = await updates.read()
    assert (first.snapshot, first.policy.mode, first.policy.ban_after, len(first.bans)) == (True, PERMISSIVE, 30, 0)

    async def next_ban_told() -> security_pb2.AddressBan:
        while True:
            update = await updates.read()
            assert not update.snapshot
            assert not update.HasField("policy")
            if update.bans:
                told_ban: security_pb2.AddressBan = update.bans[0]
                return told_ban

    told = event(address=STRANGER, count=40, key_id="0123456789ab")
    ban = security_pb2.AddressBanReport(network=f"{STRANGER}/32", failures=30)
    for _ in range(2):  # as after an answer that was lost
        await report(admin, events=[told], bans=[ban])
    async with asyncio.timeout(60):
        banned = await next_ban_told()
    assert (banned.network, banned.strikes, banned.made_by, banned.spares_valid) == (f"{STRANGER}/32", 1, "", True)
    assert banned.until_us - banned.begun_at_us == 60_000_000
    # Those of many gateways, none of which saw enough: this machine is left alone, and so is nobody's address.
    await report(admin, events=[event(address="198.51.100.7", count=20), event(address="127.0.0.1", count=99)])
    await report(admin, events=[event(address="198.51.100.7", count=20), event(count=99)])
    async with asyncio.timeout(60):
        assert (await next_ban_told()).network == "198.51.100.7/32"
    assert sorted(ban.network for ban in (await root.ListBans()).bans) == ["198.51.100.7/32", f"{STRANGER}/32"]
    await root.RemoveBan(network=STRANGER)
    async with asyncio.timeout(60):
        lifted = await next_ban_told()
    assert (lifted.network, lifted.lifted_by) == (f"{STRANGER}/32", "admin")
    await root.AddAddressRule(list=DENY, network="192.0.2.0/24")
    async with asyncio.timeout(60):
        while not (update := await updates.read()).HasField("policy"):
            continue
    assert [(rule.network, rule.list) for rule in update.rules] == [("192.0.2.0/24", DENY)]
    again = stub.WatchAddressRules(
        security_pb2.WatchAddressRulesRequest(known_version=first.version), metadata=metadata
    )
    caught_up = await again.read()
    assert {ban.network for ban in caught_up.bans} == {"198.51.100.7/32", f"{STRANGER}/32"}
    await root.AddAddressRule(list=ALLOW, network="203.0.113.0/24")
    await report(admin, bans=[ban])
    assert [ban.network for ban in (await root.ListBans()).bans] == ["198.51.100.7/32"], "allowed by name"
    refusals = (await root.ListSecurityEvents(kind="key_refused", address="203.0.113.0/24")).events
    assert [(one.count, one.key_id, one.source) for one in refusals] == [(40, "0123456789ab", "g1")]
    with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
        await report(admin, events=[event(address="nowhere")])


async def test_nobody_locks_themselves_out_but_who_says_that_it_is_meant(proxied: Running) -> None:
    root = await proxied.operator()
    for wrong in (
        root.SetAddressPolicy(mode=RESTRICTIVE),
        root.AddAddressRule(list=DENY, network="127.0.0.0/8"),
        root.AddAddressRule(list=DENY, network="::1"),
        root.AddBan(network="127.0.0.1", lasts_s=60),
    ):
        assert "FAILED_PRECONDITION: This would lock out" in await refused(wrong)
    url = f"http://{proxied.http_address}/api/v1/security"
    headers = {"authorization": f"Bearer {proxied.site.first_key}", "x-forwarded-for": f"10.0.0.1, {STRANGER}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def ask(verb: str, path: str, body: Any = None) -> tuple[int, Any]:
            async with session.request(verb, f"{url}{path}", json=body) as answer:
                return answer.status, await answer.json()

        status, told = await ask("PUT", "/address-rules", {"list": "deny", "network": "203.0.113.0/24"})
        assert (status, "lock out you, who come from 203.0.113.9" in told["error"]["message"]) == (409, True)
        for network in ("127.0.0.1", "::1"):
            assert (await ask("PUT", "/address-rules", {"list": "allow", "network": network}))[0] == 200
        status, told = await ask("PATCH", "/address-policy", {"mode": "restrictive"})
        assert (status, told["error"]["code"]) == (409, "not_possible")
        assert (await ask("PUT", "/address-rules", {"list": "allow", "network": "203.0.113.0/24", "note": "us"}))[
            0
        ] == 200
        status, told = await ask("PATCH", "/address-policy", {"mode": "restrictive", "ban_after": 3})
        assert (status, told["policy"]["mode"], told["policy"]["ban_first_s"]) == (200, "restrictive", 60)
        status, told = await ask("DELETE", "/address-rules?list=allow&network=203.0.113.0/24")
        assert (status, "force" in told["error"]["message"]) == (409, True)
        status, told = await ask("DELETE", "/address-rules?list=allow&network=203.0.113.0/24&force=true")
        assert (status, told["rule"]["note"]) == (200, "us")
        status, told = await ask("GET", "/address-rules")
        assert (status, told["error"]["code"]) == (403, "address_denied")
        async with session.get(f"http://{proxied.http_address}/sign-in") as page:
            assert page.status == 403
    await root.SetAddressPolicy(mode=PERMISSIVE)
    acts = [entry.action for entry in (await root.ListAudit(action="address")).entries]
    assert acts == ["address.policy", "address.allow", "address.policy", *["address.allow"] * 3]


async def test_wrong_passwords_and_keys_ban_at_the_http_port_and_who_is_signed_in_stays_in(proxied: Running) -> None:
    root = await proxied.operator()
    await root.SetAddressPolicy(ban_after=4, ban_window_s=3600, ban_first_s=600)
    await root.AddUser(name="alice")
    url = f"http://{proxied.http_address}"
    there = {"x-forwarded-for": STRANGER}
    wrong, forwards = new_key(), Forwards((proxied.site.directory / "pepper").read_bytes())
    async with aiohttp.ClientSession() as session:

        async def status(path: str, *, key: object = None, address: str = STRANGER, body: Any = None) -> int:
            headers = {"x-forwarded-for": address} | ({"authorization": f"Bearer {key}"} if key else {})
            async with session.request("POST" if body else "GET", f"{url}{path}", json=body, headers=headers) as answer:
                return answer.status

        # Octal in a cookie's quotes: it may say what Postgres keeps nowhere.
        poison = {**there, "cookie": 'forebay_session="fbses-\\000bcdefghijkl-secret"'}
        async with session.get(f"{url}/api/v1/me", headers=poison) as answer:
            assert answer.status == 401
        for _ in range(2):
            assert await status("/sign-in/token", body={"name": "alice", "password": "not hers at all"}) == 401
            assert await status("/api/v1/me", key=wrong) == 401
        async with asyncio.timeout(60):
            while await status("/api/v1/me", key=wrong) != 429:
                await asyncio.sleep(0.02)
        async with session.get(f"{url}/sign-in", headers=there) as answer:
            assert answer.status == 429
            assert 0 < int(answer.headers["retry-after"]) <= 600
            assert "is banned until" in (await answer.json())["error"]
        async with session.get(f"{url}/api/admin/users", headers=there) as answer:
            assert "is banned until" in (await answer.json())["detail"]
        assert await status("/api/v1/me", key=proxied.site.first_key) == 200
        assert await status("/api/v1/me", key=wrong, address="203.0.113.10") == 401
        assert await status("/") == 200, "by which a proxy sees whether we are well"
        for client, gateway, code in ((STRANGER, "198.51.100.1", 429), ("198.51.100.1", STRANGER, 200)):
            told = forwards.tell(client, "GET", "/status", time.time())
            headers = {HEADER: told, "x-forwarded-for": gateway}
            async with session.get(f"{url}/status", headers=headers) as answer:
                assert answer.status == code, "what a gateway passes on comes from its client"
        member = await status("/api/v1/me", key=proxied.site.first_key, address="203.0.113.10, not-an-address")
        assert member == 200, "a proxy that does not know speaks for itself"
    kinds: set[str] = set()

    async def seen() -> bool:
        kinds.update(one.kind for one in (await root.ListSecurityEvents(address=STRANGER)).events)
        return kinds >= {"login_failed", "key_refused", "banned", "address_refused"}

    async with asyncio.timeout(60):
        while not await seen():
            await asyncio.sleep(0.05)
    (failed,) = (await root.ListSecurityEvents(kind="login_failed", user="alice")).events[:1]
    assert (failed.reason, failed.address) == ("wrong_password", STRANGER)
    refusals = (await root.ListSecurityEvents(kind="key_refused", key_id=wrong.public_id)).events
    assert sum(one.count for one in refusals if one.address == STRANGER) >= 2
    entries = (await root.ListAudit(action="session.refuse")).entries
    assert {entry.address for entry in entries} == {STRANGER}


async def read_on(told: Any) -> None:
    """Until it is refused."""
    async with asyncio.timeout(60):
        while True:
            await told.read()


async def test_events_are_told_as_they_happen_and_acts_are_among_them(admin: Running) -> None:
    root, auditor = await admin.operator(), await somebody(admin, "the-auditor", Role.AUDITOR)
    assert "PERMISSION_DENIED" in await refused(auditor.AddBan(network=STRANGER))
    peer = await admin.peer(admin.site.first_key)
    stub: Any = admin_pb2_grpc.OperatorStub(peer.channel)
    live = stub.WatchSecurityEvents(security_pb2.WatchSecurityEventsRequest(), metadata=peer.metadata)
    assert not (await live.read()).events
    key = await root.CreateKey(user="the-auditor")
    theirs = await admin.peer(key.secret)
    listening: Any = admin_pb2_grpc.OperatorStub(theirs.channel)
    until_revoked = listening.WatchSecurityEvents(
        security_pb2.WatchSecurityEventsRequest(kind="banned"), metadata=theirs.metadata
    )
    assert not (await until_revoked.read()).events
    await root.RevokeKey(key_id=key.key.id)
    await root.AddBan(network=STRANGER, lasts_s=3600, reason="scans us")
    await report(
        admin, events=[event(kind="quota_refused", reason="quota_spent", user="alice", address="2001:db8::/64")]
    )
    heard: list[security_pb2.SecurityEvent] = []
    async with asyncio.timeout(60):
        while not {one.kind for one in heard} >= {"banned", "quota_refused", "admin_act", "permission_refused"}:
            heard += (await live.read()).events
    with pytest.raises(grpc.aio.AioRpcError, match="This key was revoked"):
        await read_on(until_revoked)  # the ban may have been told before the key was known to be revoked
    (banned,) = [one for one in heard if one.kind == "banned"]
    assert (banned.address, banned.user, banned.reason) == (f"{STRANGER}/32", "admin", "scans us")
    assert "ban.add" not in {one.reason for one in heard}, "told once, as a ban"
    assert [one.user for one in (await root.ListSecurityEvents(address="2001:db8::/32")).events] == ["alice"]
    await root.AddUser(name="carol")
    async with asyncio.timeout(60):
        while not any(one.reason == "user.add" and one.detail == "carol" for one in heard):
            heard += (await live.read()).events
    listed, page = [], ""
    for _ in range(20):
        answer = await root.ListSecurityEvents(limit=2, page=page)
        listed += answer.events
        page = answer.next_page
        if not page:
            break
    assert {one.id for one in heard} <= {one.id for one in listed}
    assert len(listed) == len({one.id for one in listed})
    assert [one.at_us for one in listed] == sorted((one.at_us for one in listed), reverse=True)
    for wrong in ({"kind": "x"}, {"address": "x"}, {"page": "x"}, {"limit": 1001}):
        assert "INVALID_ARGUMENT" in await refused(root.ListSecurityEvents(**wrong))


async def test_bans_lists_and_events_from_the_command_line(admin: Running) -> None:
    async def forebay(*words: str, code: int = 0) -> str:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        result = await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)
        assert result.exit_code == code, (words, result.output, result.exception)
        return result.output

    assert "Nobody is banned." in await forebay("ban", "list")
    assert "is banned until 20" in await forebay("ban", "add", "203.0.113.7", "--for", "24h", "--reason", "scans us")
    assert "203.0.113.7/32" in await forebay("ban", "list")
    (told,) = json.loads(await forebay("ban", "list", "--json"))
    assert (told["network"], told["made_by"], told["spares_valid"]) == ("203.0.113.7/32", "admin", False)
    assert "is banned no more" in await forebay("ban", "remove", "203.0.113.7")
    await forebay("ban", "remove", "203.0.113.7", code=1)
    assert "taken back by admin" in await forebay("ban", "list", "--all")
    assert "203.0.113.0/24 is denied." in await forebay("security", "lists", "deny", "203.0.113.0/24", "--note", "bad")
    assert "10.0.0.0/8 is allowed." in await forebay("security", "lists", "allow", "10.1.2.3/8")
    await forebay("security", "policy", "--mode", "restrictive", code=1)
    policy = json.loads(await forebay("security", "policy", "--ban-after", "0", "--ban-first", "5m", "--json"))
    assert (policy["mode"], policy["ban_after"], policy["ban_first_s"]) == ("permissive", 0, 300)
    shown = await forebay("security", "lists", "show")
    assert "Nobody is banned for wrong keys." in shown
    assert "bad" in shown
    assert "is denied no more" in await forebay("security", "lists", "remove", "deny", "203.0.113.0/24")
    assert "scans us" in await forebay("security", "events", "--kind", "banned", "--last", "1h")
    events = json.loads(await forebay("security", "events", "--json", "--limit", "1"))
    assert len(events["events"]) == 1
    assert events["next_page"]


async def test_old_days_and_bans_are_forgotten_and_acts_are_told_once(admin_database_url: str) -> None:
    clock = ManualClock()
    now = datetime.fromtimestamp(clock.now(), UTC)
    async with open_database(admin_database_url, SCHEMA) as database:
        book = EventBook(database, Outbox(clock), MemoryBus(clock.now), clock)
        keeping = SecurityKeeping(database, book, clock, keep_days=30)
        await keeping.tell_some()
        async with database.writing() as connection:
            await make_partitions(connection, EVENTS, [now.date() - timedelta(days=days) for days in (31, 30, 1)])
            for name, until in (("old", now - timedelta(days=2)), ("young", now - timedelta(hours=1)), ("held", None)):
                await connection.execute(
                    text(
                        "INSERT INTO admin.address_bans (network, begun_at, until, reason, made_by, strikes, spares_valid,"
                        " lifted_by, version) VALUES (:network, now(), :until, '', '', 1, true, '', 1)"
                    ),
                    {"network": f"192.0.2.{len(name)}/32", "until": until},
                )
        await keeping.drop_old()
        async with database.writing() as connection:
            days = await partitions_of(connection, EVENTS)
            assert min(days) == now.date() - timedelta(days=30)
            bans = await connection.scalars(text("SELECT network FROM admin.address_bans ORDER BY network"))
            assert list(bans) == ["192.0.2.4/32", "192.0.2.5/32"]
            await connection.execute(
                text(
                    "INSERT INTO admin.audit_log (at, actor, actor_key_id, interface, address, action, subject)"
                    " VALUES (now(), 'alice', '', 'rest', 'fe80::1%eth0', 'key.revoke', 'k1')"
                )
            )
        for _ in range(2):
            await keeping.tell_some()
        async with database.reading() as connection:
            told = await connection.execute(text('SELECT "user", reason, detail FROM admin.security_events'))
            assert [tuple(row) for row in told] == [("alice", "key.revoke", "k1")]
            found = await search(connection, Sought(network="fe80::/10"), 9)
            assert [event.address for event in found] == ["fe80::1"], "an interface is no part of it"
