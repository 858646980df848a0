"""Who is turned away by address, who is banned for trying keys, and what admin hears of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forebay.address_gate import AddressGate, Ban, Mode
from forebay.brute_force import BanPolicy
from forebay.client_addresses import Network, TrustedProxies, parse_network, read_proxies
from forebay.clock import ManualClock
from forebay.errors import ForebayError, NotAllowed, Refusal
from forebay.event_counts import FLOOD, FLOOD_S, Sort
from forebay.keys import new_key, seal_secret
from forebay.wire.v1 import security_pb2
from forebay_gateway.callers.address_rules_watch import AddressRulesWatch
from forebay_gateway.callers.call import Call, read_call
from forebay_gateway.callers.guard import Guard
from forebay_gateway.callers.principals import KnownKey, Principal, Principals
from forebay_gateway.callers.security_news import SecurityNews
from forebay_gateway.refused import (
    AddressBanned,
    AddressDenied,
    InvalidKey,
    KeyExpired,
    ModelUnknown,
    NoKey,
    Refused,
)
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import PEPPER, House, ask, eventually, open_house

NO_PROXIES = TrustedProxies()
QUICK = Pace(tokens_per_s=2000, answer_tokens=5)
STRANGER = "203.0.113.9"


def net(text: str) -> Network:
    network = parse_network(text)
    assert network is not None
    return network


@dataclass
class Heard:
    sorts: list[Sort] = field(default_factory=list)
    bans: list[tuple[str, int]] = field(default_factory=list)

    def note(self, sort: Sort) -> None:
        self.sorts.append(sort)

    def note_ban(self, network: str, failures: int) -> None:
        self.bans.append((network, failures))


class Post:
    """A guard at a gateway with one key."""

    def __init__(self, proxies: TrustedProxies = NO_PROXIES) -> None:
        self.clock, self.heard, self.key = ManualClock(), Heard(), new_key()
        principals = Principals(PEPPER)
        owner = Principal(self.key.public_id, "u", "alice")
        principals.replace_all([KnownKey(owner, seal_secret(PEPPER, self.key.secret))], 1)
        self.guard = Guard(AddressGate(), principals, self.heard, proxies, self.clock)
        self.guard.policy = BanPolicy(after=3, window_s=60, first_s=60)

    def call(self, address: str = STRANGER, key: object = None) -> Call:
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        return read_call("POST", "/v1/chat/completions", headers, address=address)

    def refusal(self, address: str = STRANGER, key: object = None) -> ForebayError | None:
        try:
            self.guard.demand(self.call(address, key))
        except ForebayError as error:
            return error
        return None


# --- decisions --------------------------------------------------------------------------------------------------------


def test_three_wrong_keys_ban_an_address_and_who_has_a_right_one_is_let_in_all_the_same() -> None:
    post = Post()
    for _ in range(3):
        assert post.refusal() is None
        post.guard.note(post.call(key=new_key()), InvalidKey())
    assert post.heard.bans == [(f"{STRANGER}/32", 3)]
    banned = post.refusal(key=new_key())
    assert isinstance(banned, AddressBanned)
    assert banned.retry_after_s == 60
    assert post.refusal() is None, "who brings no key guesses nothing: a proxy's look at whether we are well"
    assert post.refusal(key=post.key) is None
    assert post.refusal("203.0.113.10") is None
    post.clock.advance(60)
    assert post.refusal(key=new_key()) is None


@pytest.mark.parametrize(
    ("address", "proxies", "allowed"),
    [
        ("127.0.0.1", TrustedProxies(), ""),
        ("::1", TrustedProxies(), ""),
        ("10.0.0.7", read_proxies(["10.0.0.7"], "x-forwarded-for"), ""),
        (STRANGER, TrustedProxies(), "203.0.113.0/24"),
        ("2001:db8::5", TrustedProxies(), "2001:db8::5"),
        ("", TrustedProxies(), ""),
    ],
)
def test_this_machine_a_proxy_of_ours_and_who_is_allowed_by_name_are_not_banned(
    address: str, proxies: TrustedProxies, allowed: str
) -> None:
    post = Post(proxies)
    if allowed:
        post.guard.gate.set_lists(Mode.PERMISSIVE, [], [net(allowed)])
    for _ in range(20):
        post.guard.note(post.call(address), InvalidKey())
    assert post.heard.bans == []
    assert post.refusal(address) is None
    # What admin adds up: neither a proxy of ours nor the neighbours of one that is allowed.
    assert {sort.address for sort in post.heard.sorts} == {"" if proxies.networks else address}


def test_who_is_denied_stays_out_with_a_right_key_too_and_so_does_who_was_banned_by_hand() -> None:
    post = Post()
    post.guard.gate.set_lists(Mode.PERMISSIVE, [net(STRANGER)], [])
    assert isinstance(post.refusal(key=post.key), AddressDenied)
    post.guard.gate.set_lists(Mode.PERMISSIVE, [], [])
    post.guard.gate.change_bans([Ban(net(STRANGER), None, "Scans us.", spares_valid=False)], [])
    denied = post.refusal(key=post.key)
    assert isinstance(denied, AddressDenied)
    assert denied.message == "This address is banned: Scans us. Ask your administrator."


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidKey(), "key_refused"),
        (KeyExpired(), "key_refused"),
        (NotAllowed(), "permission_refused"),
        (Refused(Refusal.QUOTA_SPENT, "spent"), "quota_refused"),
        (Refused(Refusal.RATE_LIMITED, "fast"), "quota_refused"),
        (AddressDenied(), "address_refused"),
        (NoKey(), None),
        (ModelUnknown(), None),
    ],
)
def test_what_is_refused_is_told_by_its_kind_and_nothing_of_a_wrong_key_but_its_id(
    error: ForebayError, kind: str | None
) -> None:
    post, wrong = Post(), new_key()
    post.guard.note(post.call("2001:db8::7", wrong), error)
    assert [sort.kind for sort in post.heard.sorts] == ([kind] if kind else [])
    if kind:
        sort = post.heard.sorts[0]
        assert (sort.address, sort.key_id) == ("2001:db8::/64", wrong.public_id)
        assert wrong.secret not in repr(sort)
    post.guard.note(post.call(key="sk-somebody-elses-secret"), InvalidKey())
    assert post.heard.sorts[-1].key_id == ""


def test_bans_and_lists_are_kept_as_they_were_told_and_ended_ones_are_forgotten() -> None:
    post, clock = Post(), ManualClock()
    peer: Any = type("NoPeer", (), {"channel": _Channel(), "metadata": ()})
    watch = AddressRulesWatch(peer, post.guard, clock)

    def ban(network: str, **fields: Any) -> security_pb2.AddressBan:
        return security_pb2.AddressBan(network=network, spares_valid=False, **fields)

    now_us = round(clock.now() * 1e6)
    policy = security_pb2.AddressPolicy(mode=security_pb2.ADDRESS_MODE_RESTRICTIVE, ban_after=7)
    rule = security_pb2.AddressRule(list=security_pb2.ADDRESS_LIST_ALLOW, network="203.0.113.0/24")
    watch.apply(security_pb2.AddressRulesUpdate(version=3, snapshot=True, policy=policy, rules=[rule]))
    watch.apply(security_pb2.AddressRulesUpdate(version=4, bans=[ban(f"{STRANGER}/32", until_us=now_us + 10**7)]))
    watch.apply(security_pb2.AddressRulesUpdate(version=5, bans=[ban("203.0.113.10/32"), ban("203.0.113.11/32")]))
    watch.apply(security_pb2.AddressRulesUpdate(version=6, bans=[ban("203.0.113.11/32", lifted_at_us=1)]))
    watch.apply(security_pb2.AddressRulesUpdate(version=7))

    after = Post()
    restored = AddressRulesWatch(peer, after.guard, clock)
    restored.restore(watch.dump())
    for guard in (post, after):
        assert guard.guard.policy.after == 7
        assert isinstance(guard.refusal("198.51.100.1"), AddressDenied), "not allowed"
        assert isinstance(guard.refusal(key=guard.key), AddressBanned)
        assert isinstance(guard.refusal("203.0.113.10"), AddressDenied), "banned until it is taken back"
        assert guard.refusal("203.0.113.11") is None
    clock.advance(11)
    watch.apply(security_pb2.AddressRulesUpdate(version=8, bans=[ban("203.0.113.12/32")]))
    assert sorted(watch._bans) == ["203.0.113.10/32", "203.0.113.12/32"]
    with pytest.raises(ValueError, match="parsing"):
        restored.restore(b"\xff\xff")


def test_after_a_flood_events_wait_and_bans_are_told_at_once() -> None:
    clock = ManualClock()
    peer: Any = type("NoPeer", (), {"channel": _Channel(), "metadata": ()})
    news = SecurityNews(peer, "g1", clock)
    for number in range(FLOOD):
        news.note(Sort("key_refused", "invalid_key", f"2001:db8:{number:x}::/64"))
    assert len(news._report().events) == FLOOD
    news.note(Sort("key_refused", "invalid_key", STRANGER))
    news.note_ban(f"{STRANGER}/32", 30)
    at_once = news._report()
    assert (len(at_once.events), [ban.network for ban in at_once.bans]) == (0, [f"{STRANGER}/32"])
    clock.advance(FLOOD_S)
    later = news._report()
    assert ([event.address for event in later.events], len(later.bans)) == ([STRANGER], 0)


class _Channel:
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


# --- a gateway --------------------------------------------------------------------------------------------------------


async def test_a_gateway_bans_turns_away_before_the_body_and_tells_admin(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK), trusted_proxies=("127.0.0.1",)) as house:
        security = house.admin.security

        def from_there(key: object, address: str = STRANGER, **headers: str) -> dict[str, str]:
            return {"authorization": f"Bearer {key}", "x-forwarded-for": f"10.0.0.1, {address}", **headers}

        await eventually(lambda: security.is_watched)
        security.tell(bans=[security_pb2.AddressBan(network="192.0.2.1/32")])
        await eventually(lambda: house.metric("forebay_gateway_bans") == 1, "what admin tells is not known")
        wrong = new_key()
        for _ in range(5):
            async with house.post(ask(), headers=from_there(wrong)) as response:
                assert response.status == 401
        await _stays_banned(house, from_there(wrong))
        async with house.post(ask(), headers=from_there(house.key)) as response:
            assert response.status == 200, "whoever has a valid key is served"
        async with house.post(ask(), headers=from_there(wrong, "203.0.113.77")) as response:
            assert response.status == 401, "others are not banned"
        await eventually(lambda: security.bans and {event.kind for event in security.events} >= {"address_refused"})
        assert [(ban.network, ban.failures) for ban in security.bans] == [(f"{STRANGER}/32", 5)]
        refused = [event for event in security.events if event.kind == "key_refused" and event.address == STRANGER]
        assert sum(event.count for event in refused) == 5
        assert {(event.key_id, event.reason, event.source) for event in refused} == {
            (wrong.public_id, "invalid_key", "gateway-1")
        }
        security.tell(bans=[security_pb2.AddressBan(network=f"{STRANGER}/32", lifted_at_us=1)])
        await eventually(lambda: house.metric("forebay_gateway_bans") == 1, "the ban is not taken back")
        async with house.post(ask(), headers=from_there(wrong)) as response:
            assert response.status == 401
        deny = security_pb2.AddressRule(list=security_pb2.ADDRESS_LIST_DENY, network="203.0.113.0/24")
        # A ban beside it, which a metric shows: then the list is known too.
        other = security_pb2.AddressBan(network="192.0.2.2/32")
        security.tell(policy=security.lists.policy, rules=[deny], bans=[other])
        await eventually(lambda: house.metric("forebay_gateway_bans") == 2)
        async with house.post(ask(), headers=from_there(house.key)) as response:
            assert (response.status, response.headers["x-forebay-reason"]) == (403, "address_denied")


async def _stays_banned(house: House, headers: dict[str, str]) -> None:
    """In every dialect, and whatever the body is: nobody waits for it."""
    for path, told in (
        ("/v1/chat/completions", '"code":"address_banned"'),
        ("/v1/messages", '"type":"rate_limit_error"'),
        ("/api/chat", '"error":"This address is banned until'),
        ("/api/admin/users", '"detail":"This address is banned until'),
        ("/v1.0/backends", '"StatusCode":429'),
    ):
        async with house.client.post(f"{house.url}{path}", headers=headers, json=ask()) as response:
            assert (response.status, response.headers["x-forebay-reason"]) == (429, "address_banned")
            assert 0 < int(response.headers["retry-after"]) <= 120
            assert told in await response.text()
    reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    try:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "host: x", "content-length: 1000000", *lines, "", ""])
        writer.write(head.encode())
        async with asyncio.timeout(30):
            assert (await reader.readline()).startswith(b"HTTP/1.1 429"), "before anything of the body has come"
    finally:
        writer.close()
