"""What a key allows beyond its models: from where, for what, how much; its second secret, its block, and ephemeral keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from forebay.ephemeral_keys import Narrowing
from forebay.errors import NotAllowed
from forebay.keys import ForebayKey, new_key, seal_secret
from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_gateway.callers.ephemeral import EphemeralKeys, narrowed
from forebay_gateway.callers.key_terms import AuditPolicy, KeyTerms, read_networks
from forebay_gateway.callers.principals import KeyState, KnownKey, Principal, Principals
from forebay_gateway.callers.principals_watch import PrincipalsWatch
from forebay_gateway.canonical.forms import CHAT, EMBEDDING
from forebay_gateway.dialects.openai.ephemeral_key import parse_ephemeral_key
from forebay_gateway.refused import BadField, InvalidKey, KeyBlocked, KeyExpired
from forebay_gateway.rules.catalogue import may_ask
from forebay_gateway.rules.key_rules import demand_call, rule_for
from forebay_gateway.rules.model_rules import ModelRules, Rule, ScopedRule, ScopeKind
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import PEPPER, House, ask, open_house

QUICK = Pace(tokens_per_s=2000, answer_tokens=5)
CALLER = Principal("k", "u")


def restricted(**terms: Any) -> Principal:
    return replace(CALLER, terms=KeyTerms(**terms))


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("10.1.2.3, 11.0.0.1", False),
        ("localhost", False),
    ],
)
def test_a_key_with_networks_works_only_from_these(address: str, may: bool) -> None:
    caller = restricted(networks=read_networks(["10.0.0.0/8", "2001:db8::/32", "fe80::/64"]))
    if may:
        caller.demand_address(address)
    else:
        with pytest.raises(NotAllowed):
            caller.demand_address(address)
    CALLER.demand_address(address)


def test_a_network_that_this_version_cannot_read_lets_nobody_in() -> None:
    with pytest.raises(NotAllowed):
        restricted(networks=read_networks(["10.0.0.0/8 and more"])).demand_address("10.0.0.1")


@pytest.mark.parametrize(
    ("asked", "model", "may"),
    [
        ("llama3", "llama3", True),
        ("gpt-x", "gpt-x", False),
        ("secret-1", "secret-1", False),
        ("fast", "llama3", True),
        ("fast", "secret-1", False),
        ("hidden", "llama3", False),
        ("hidden:latest", "llama3", False),
        ("small:latest", "small:latest", False),
    ],
)
def test_what_a_key_denies_goes_before_what_it_allows_by_any_name(asked: str, model: str, may: bool) -> None:
    caller = replace(
        restricted(denied_models=("secret*", "hidden", "small")),
        allowed_models=frozenset({"llama*", "secret*", "hidden", "fast", "small"}),
    )
    assert may_ask(caller, asked, model) is may


def test_an_ephemeral_key_for_an_alias_gets_what_the_alias_stands_for_and_nothing_else() -> None:
    caller = replace(CALLER, only_models=frozenset({"fast"}))
    assert may_ask(caller, "fast", "llama3")
    assert not may_ask(caller, "llama3", "llama3")


def test_a_key_goes_to_its_own_pool_and_to_those_that_it_names() -> None:
    caller = replace(restricted(other_pools=frozenset({"night"})), pool="day", is_bound=True)
    assert caller.within("night").pool == "night"
    assert caller.within(None).pool == caller.within("day").pool == "day"
    with pytest.raises(NotAllowed, match="pool day"):
        caller.within("weekend")


def test_a_key_asks_only_for_what_it_is_for() -> None:
    caller = restricted(calls=frozenset({"embedding"}))
    demand_call(caller, EMBEDDING)
    with pytest.raises(NotAllowed, match="embedding, not for chat"):
        demand_call(caller, CHAT)
    demand_call(CALLER, CHAT)


@pytest.mark.parametrize(
    ("rule", "own", "output"), [(None, 10, 10), (5, 10, 5), (50, 10, 10), (50, None, 50), (None, None, None)]
)
def test_a_keys_limit_holds_within_that_of_a_rule(rule: int | None, own: int | None, output: int | None) -> None:
    rules = ModelRules()
    if rule is not None:
        rules.replace_all((), [ScopedRule(ScopeKind.KEY, "k", Rule(max_output_tokens=rule))], 1)
    found = rule_for(rules, "m", restricted(max_output_tokens=own), generates=True)
    assert (found.max_output_tokens if found is not None else None) == output


# --- secrets and states -----------------------------------------------------------------------------------------------


def principals_with(key: ForebayKey, **changes: Any) -> Principals:
    principals = Principals(PEPPER)
    known = KnownKey(Principal(key.public_id, "u"), seal_secret(PEPPER, key.secret), **changes)
    principals.replace_all([known], 1)
    return principals


def test_the_secret_before_works_until_the_overlap_is_over() -> None:
    key, old = new_key(), new_key()
    before = ForebayKey(key.public_id, old.secret)
    principals = principals_with(key, old_secret_hmac=seal_secret(PEPPER, old.secret), old_secret_until=100.0)
    assert principals.verify(str(before), 99.9) == principals.verify(str(key), 99.9)
    with pytest.raises(InvalidKey):
        principals.verify(str(before), 100.0)
    assert principals.verify(str(key), 100.0).key_id == key.public_id


def test_a_blocked_key_says_why_and_works_again_when_its_time_is_over() -> None:
    key = new_key()
    for until in (None, 100.0):
        principals = principals_with(key, state=KeyState.BLOCKED, blocked_until=until, block_reason="looked into.")
        with pytest.raises(KeyBlocked, match=r"blocked: looked into\. Ask"):
            principals.verify(str(key), 99.9)
        assert isinstance(principals.why_ended(key.public_id), KeyBlocked)
    assert principals.verify(str(key), 100.0).key_id == key.public_id


class Heard:
    """A watch that is told updates by hand."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.cut: list[str] = []
        self.principals = Principals(PEPPER)
        peer: Any = SimpleNamespace(channel=Anything(), metadata=())
        self.watch = PrincipalsWatch(peer, self.principals, self.ended.extend, self.cut.extend)

    def tell(self, *keys: admin_pb2.KeyPrincipal, snapshot: bool = False, removed: tuple[str, ...] = ()) -> None:
        version = self.principals.version + 1
        self.watch.apply(
            admin_pb2.PrincipalsUpdate(version=version, snapshot=snapshot, keys=keys, removed_key_ids=removed)
        )


class Anything:
    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *args, **options: None


def wire(key_id: str, **fields: Any) -> admin_pb2.KeyPrincipal:
    return admin_pb2.KeyPrincipal(key_id=key_id, user_id="u", **{"state": admin_pb2.KEY_STATE_ACTIVE, **fields})


def test_every_word_of_a_keys_terms_is_read_when_somebody_calls_with_it() -> None:
    heard = Heard()
    terms = key_terms_pb2.KeyTerms(
        denied_models=["a*"],
        other_pools=["night"],
        addresses=["10.0.0.0/8"],
        calls=["chat"],
        max_output_tokens=7,
        max_context_tokens=9,
        audit=key_terms_pb2.AUDIT_POLICY_SAMPLED,
    )
    heard.tell(wire("one", terms=terms), wire("two"), snapshot=True)
    assert heard.principals.find("one", 0.0).terms == KeyTerms(
        ("a*",),
        frozenset({"night"}),
        read_networks(["10.0.0.0/8"]),
        frozenset({"chat"}),
        7,
        9,
        AuditPolicy.SAMPLED,
    )
    assert heard.principals.find("two", 0.0).terms is None


def test_what_is_written_down_is_what_was_told_and_what_changed_since() -> None:
    heard = Heard()
    long = wire("long", allowed_models=["m" * 200] * 100, signing_keys=[b"s" * 32])
    heard.tell(long, wire("gone"), wire("other", user_name="before"), snapshot=True)
    assert heard.principals.find("other", 0.0).user_name == "before"
    heard.tell(wire("other", user_name="after"), removed=("gone",))
    assert heard.principals.find("other", 0.0).user_name == "after"
    restored = Heard()
    restored.watch.restore(heard.watch.dump())
    assert restored.principals.version == heard.principals.version
    assert len(restored.principals.find("long", 0.0).allowed_models) == 1
    assert restored.principals.find_signer(b"s" * 32, 0.0).key_id == "long"
    assert restored.principals.find("other", 0.0).user_name == "after"
    with pytest.raises(InvalidKey):
        restored.principals.find("gone", 0.0)
    assert restored.watch.dump() == heard.watch.dump()


def test_only_a_key_that_does_not_work_is_cut_and_only_one_that_worked_ends() -> None:
    heard, revoked, blocked = Heard(), admin_pb2.KEY_STATE_REVOKED, admin_pb2.KEY_STATE_BLOCKED
    heard.tell(wire("a"), wire("b"), wire("c"), wire("d", state=revoked), snapshot=True)
    heard.tell(wire("a", state=revoked, cut_running=True), wire("b", cut_running=True), wire("d", state=blocked))
    assert (heard.ended, heard.cut) == (["a"], ["a"])
    heard.tell(wire("a", state=revoked), wire("b", state=blocked), snapshot=True)
    assert heard.ended == ["a", "b", "c"]


# --- ephemeral keys ---------------------------------------------------------------------------------------------------


def test_an_ephemeral_key_is_its_makers_until_its_end_and_nobody_elses_to_make() -> None:
    keys = EphemeralKeys(PEPPER)
    text = keys.issue("k", 100, Narrowing(frozenset({"m"}), 5, "https://a", "::1"))
    read = keys.read(text, 99.9)
    assert (read.key_id, read.expires_at, len(read.id)) == ("k", 100, 16)
    assert read.narrowing == Narrowing(frozenset({"m"}), 5, "https://a", "::1")
    assert keys.read(keys.issue("k", 100, Narrowing()), 0).id != read.id
    with pytest.raises(KeyExpired):
        keys.read(text, 100)
    changed = text[:20] + ("A" if text[20] != "A" else "B") + text[21:]
    for wrong in (changed, "fbe-", "fbe-é", "fbe-****", "fbe-" + "A" * 9000, text[4:]):
        with pytest.raises(InvalidKey):
            keys.read(wrong, 0)
    with pytest.raises(InvalidKey):
        EphemeralKeys(b"another pepper").read(text, 0)


def test_an_ephemeral_key_is_never_wider_than_its_maker() -> None:
    keys = EphemeralKeys(PEPPER)
    maker = restricted(denied_models=("secret",), max_output_tokens=10)
    narrow = keys.read(keys.issue("k", 9, Narrowing(frozenset({"secret", "m"}), 5)), 0)
    caller = narrowed(maker, narrow, origin="", address="")
    assert caller.terms == KeyTerms(("secret",), max_output_tokens=5)
    assert [name for name in ("secret", "m", "other") if caller.may_use(name)] == ["m"]
    wide = keys.read(keys.issue("k", 9, Narrowing(max_output_tokens=50)), 0)
    assert narrowed(maker, wide, origin="", address="").terms == maker.terms


@pytest.mark.parametrize(
    ("origin", "address"), [("https://b", "::1"), ("", "::1"), ("https://a", "::2"), ("https://a", "")]
)
def test_an_ephemeral_key_works_from_where_it_is_for(origin: str, address: str) -> None:
    keys = EphemeralKeys(PEPPER)
    bound = keys.read(keys.issue("k", 9, Narrowing(origin="https://a", address="::1")), 0)
    assert narrowed(CALLER, bound, origin="https://a", address="::1").key_id == "k"
    with pytest.raises(NotAllowed):
        narrowed(CALLER, bound, origin=origin, address=address)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'{"expires_after": {"seconds": 601}}',
        b'{"expires_after": {"seconds": true}}',
        b'{"expires_after": {"anchor": "last_used"}}',
        b'{"models": []}',
        b'{"models": [1]}',
        b'{"max_output_tokens": 0}',
        b'{"origin": "example.org"}',
        b'{"address": "here"}',
        b'{"adress": "::1"}',
    ],
)
def test_a_wish_for_an_ephemeral_key_that_cannot_be_meant_is_refused(body: bytes) -> None:
    with pytest.raises(BadField):
        parse_ephemeral_key(body)


# --- a whole gateway --------------------------------------------------------------------------------------------------


async def refusal(
    house: House, key: object, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, str, str]:
    """Status, word and message of an answer to a chat."""
    headers = {"authorization": f"Bearer {key}", **headers}
    async with house.client.post(f"{house.url}{path}", json=ask(), headers=headers) as response:
        told = await response.json()
        message = told.get("error", {})
        return (
            response.status,
            response.headers.get("x-forebay-reason", ""),
            message if isinstance(message, str) else message.get("message", ""),
        )


async def test_what_a_key_allows_is_enforced_in_the_callers_dialect(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        terms = key_terms_pb2.KeyTerms
        elsewhere = house.admin.add_key(terms=terms(addresses=["10.9.0.0/16"]))
        here = house.admin.add_key(terms=terms(addresses=["127.0.0.0/8", "::1"], max_output_tokens=3))
        embedder = house.admin.add_key(terms=terms(calls=["embedding"]))
        without = house.admin.add_key(terms=terms(denied_models=["fake*"]))
        blocked = house.admin.add_key(state=admin_pb2.KEY_STATE_BLOCKED, block_reason="looked into")
        rotated, old = house.admin.add_key(), new_key()
        house.admin.change_key(
            rotated,
            old_secret_hmac=seal_secret(PEPPER, old.secret),
            old_secret_until_us=int((time.time() + 3600) * 1e6),
        )

        async with asyncio.timeout(20):  # the last that was told
            while (await refusal(house, ForebayKey(rotated.public_id, old.secret)))[0] != 200:
                await asyncio.sleep(0.01)
        assert (await refusal(house, here))[0] == 200
        assert engine.record.requests[-1].body["max_tokens"] == 3
        status, word, message = await refusal(house, elsewhere)
        assert (status, word) == (403, "not_allowed")
        assert "127.0.0.1" in message
        # A forged header counts for nothing.
        assert (await refusal(house, elsewhere, **{"x-forwarded-for": "10.9.0.1"}))[0] == 403
        assert (await refusal(house, embedder))[:2] == (403, "not_allowed")
        assert (await refusal(house, without))[:2] == (403, "not_allowed")
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            status, word, message = await refusal(house, blocked, path)
            assert (status, word) == (403, "key_blocked")
            assert "looked into" in message
        async with house.client.get(
            f"{house.url}/v1/models", headers={"authorization": f"Bearer {without}"}
        ) as response:
            assert (await response.json())["data"] == []


async def test_an_ephemeral_key_serves_one_request(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:

        async def made(**wish: Any) -> dict[str, Any]:
            async with house.client.post(
                f"{house.url}/v1/ephemeral_keys", json=wish, headers=house.headers
            ) as response:
                assert response.status == 200
                assert response.headers["cache-control"] == "no-store"
                told: dict[str, Any] = await response.json()
                return told

        told = await made(expires_after={"anchor": "created_at", "seconds": 60})
        assert told["value"].startswith("fbe-")
        assert 0 < told["expires_at"] - time.time() <= 61
        at_once = await asyncio.gather(*(refusal(house, told["value"]) for _ in range(4)))
        assert sorted(status for status, _, _ in at_once) == [200, 401, 401, 401]
        assert {word for status, word, _ in at_once if status == 401} == {"invalid_key"}
        assert (await refusal(house, (await made(origin="https://a.example"))["value"]))[0] == 403
        bound = (await made(origin="https://a.example"))["value"]
        assert (await refusal(house, bound, origin="https://a.example"))[0] == 200
        assert (await refusal(house, (await made(models=["other"]))["value"]))[0] == 403
        # It opens nothing but models, and makes no other of its kind.
        assert (await refusal(house, (await made())["value"], "/v1/ephemeral_keys"))[:2] == (403, "not_allowed")
        rows = await house.rows(7)
        assert {row.key_id for row in rows if row.http_status == 200} == {house.key.public_id}
        last = (await made())["value"]
        house.admin.revoke(house.key)

        async with asyncio.timeout(20):
            while (await refusal(house, house.key))[0] != 401:
                await asyncio.sleep(0.01)
        assert (await refusal(house, last))[1] == "key_revoked"
