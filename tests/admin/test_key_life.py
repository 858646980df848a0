"""The life of keys on a real admin: what gateways are told, who may do what, ephemeral keys, and requests for more."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import grpc

from forebay.wire.v1 import admin_pb2, ephemeral_keys_pb2, ephemeral_keys_pb2_grpc, key_terms_pb2
from tests.admin.replica import TOKENS, OperatorCalls, Running
from tests.admin.test_operator import code_of, query, refused


async def principal(admin: Running, key_id: str) -> admin_pb2.KeyPrincipal:
    """As a gateway is told it."""
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    update = await stream.read()
    stream.cancel()
    found: admin_pb2.KeyPrincipal = next(key for key in update.keys if key.key_id == key_id)
    return found


async def alices(admin: Running) -> tuple[OperatorCalls, Any, OperatorCalls]:
    """The admin's calls, a key of Alice's, and her calls with another."""
    operator = await admin.operator()
    await operator.AddUser(name="alice")
    own = await operator.CreateKey(user="alice")
    return operator, own.key, await admin.operator((await operator.CreateKey(user="alice")).secret)


async def test_what_a_key_may_reaches_the_gateways_and_its_lists(admin: Running) -> None:
    operator = await admin.operator()
    made = await operator.CreateKey(
        name="ci",
        pool="day",
        description="for builds",
        labels={"team": "core"},
        terms={"addresses": ["10.0.0.7"], "calls": ["embedding"], "other_pools": ["night"], "audit": 3},
    )
    wanted = key_terms_pb2.KeyTerms(
        addresses=["10.0.0.7/32"], calls=["embedding"], other_pools=["night"], audit=key_terms_pb2.AUDIT_POLICY_FULL
    )
    assert made.key.terms == wanted
    assert (await principal(admin, made.key.id)).terms == wanted
    after = await operator.SetKeyTerms(
        key_id=made.secret,
        name="builds",
        labels={"kind": "bot"},
        removed_labels=["team"],
        pools={"words": ["night"]},
        addresses={},
        denied_models={"words": ["big*"]},
        max_output_tokens={"tokens": 100},
        band_cap=4,
    )
    told = await principal(admin, made.key.id)
    assert (told.pool, list(told.terms.denied_models), told.terms.max_output_tokens) == ("night", ["big*"], 100)
    assert (list(told.terms.addresses), list(told.terms.calls), told.band_cap) == ([], ["embedding"], 4)
    assert (after.key.name, dict(after.key.labels), after.key.description) == ("builds", {"kind": "bot"}, "for builds")

    async def found(**wish: Any) -> list[str]:
        return [key.name for key in (await operator.ListKeys(**wish)).keys]

    await operator.AddUser(name="alice", group="lab")
    alices = (await operator.CreateKey(user="alice", name="laptop")).key
    await operator.BlockKey(key_id=alices.id, reason="lost")
    assert await found(labels=["kind=bot"]) == ["builds"]
    assert await found(text="BUILD") == ["builds"]
    assert await found(group="lab") == await found(state=admin_pb2.KEY_STATE_BLOCKED) == ["laptop"]
    first = await operator.ListKeys(limit=2)
    assert (len(first.keys), first.has_more) == (2, True)
    rest = await operator.ListKeys(limit=2, after=first.keys[-1].id)
    assert ([key.name for key in rest.keys], rest.has_more) == (["laptop"], False)
    assert "NOT_FOUND" in await refused(operator.ListKeys(after="0" * 12))
    assert "INVALID_ARGUMENT" in await refused(operator.ListKeys(limit=1001))
    assert "INVALID_ARGUMENT" in await refused(operator.ListKeys(labels=["kind"]))


async def test_a_key_is_rotated_renewed_and_blocked_and_stays_the_same_key(admin: Running) -> None:
    operator, key, alice = await alices(admin)
    rotated = await alice.RotateKey(key_id=key.id, overlap_s=3600)
    assert rotated.secret.startswith(f"fb-{key.id}-")
    told = await principal(admin, key.id)
    assert told.old_secret_hmac
    assert told.old_secret_hmac != told.secret_hmac
    assert told.old_secret_until_us == rotated.key.old_secret_until_us > time.time() * 1e6
    assert len((await (await admin.operator(rotated.secret)).ListKeys()).keys) == 2
    await alice.RotateKey(key_id=key.id)
    assert not (await principal(admin, key.id)).old_secret_hmac
    renewed = (await alice.RenewKey(key_id=key.id, expires_in_s=60)).key
    assert renewed.HasField("expires_at_us")
    assert not (await alice.RenewKey(key_id=key.id)).key.HasField("expires_at_us")
    assert "PERMISSION_DENIED" in await refused(alice.BlockKey(key_id=key.id, reason="x"))
    await operator.BlockKey(key_id=key.id, reason="looked into", for_s=3600)
    told = await principal(admin, key.id)
    assert (told.state, told.block_reason) == (admin_pb2.KEY_STATE_BLOCKED, "looked into")
    assert told.HasField("blocked_until_us")
    assert (await operator.UnblockKey(key_id=key.id)).key.state == admin_pb2.KEY_STATE_ACTIVE
    acts = await query(admin, "SELECT action, before, after FROM admin.audit_log WHERE action ~ '^key' ORDER BY id")
    assert [act["action"] for act in acts][-6:] == [
        *("key.rotate", "key.rotate", "key.renew", "key.renew", "key.block", "key.unblock"),
    ]
    assert json.loads(acts[-2]["after"])["block_reason"] == "looked into"
    assert rotated.secret.rpartition("-")[2] not in json.dumps([dict(act) for act in acts])


async def test_a_blocked_key_opens_nothing_at_admin_either(admin: Running) -> None:
    operator = await admin.operator()
    made = await operator.CreateKey()
    with_it = await admin.operator(made.secret)
    await operator.BlockKey(key_id=made.key.id, reason="looked into")
    async with asyncio.timeout(20):
        while await code_of(with_it.ListUsers()) is grpc.StatusCode.OK:
            await asyncio.sleep(0.01)
    assert await refused(with_it.ListUsers()) == "PERMISSION_DENIED: This key is blocked: looked into"


async def test_a_narrow_key_gives_no_other_key_of_its_owner_away(admin: Running) -> None:
    operator, key, _ = await alices(admin)
    narrow = await admin.operator((await operator.CreateKey(user="alice", allowed_models=["tiny"])).secret)
    assert "PERMISSION_DENIED" in await refused(narrow.RotateKey(key_id=key.id))
    assert "PERMISSION_DENIED" in await refused(narrow.RenewKey(key_id=key.id, expires_in_s=60))
    assert "PERMISSION_DENIED" in await refused(narrow.CreateKey(terms={"audit": 1}))
    assert "NOT_FOUND" in await refused(narrow.RotateKey(key_id="0" * 12))


async def test_an_ephemeral_key_is_spent_once_whichever_gateway_asks(admin: Running) -> None:
    peer = await admin.peer(TOKENS["gateway"])
    stub: Any = ephemeral_keys_pb2_grpc.EphemeralKeysStub(peer.channel)

    async def spend(id: bytes, expires_in_s: float) -> bool:
        expires_at_us = int((time.time() + expires_in_s) * 1e6)
        request = ephemeral_keys_pb2.SpendEphemeralKeyRequest(id=id, expires_at_us=expires_at_us)
        answer = await stub.Spend(request, metadata=peer.metadata, timeout=10)
        return bool(answer.was_free)

    at_once = await asyncio.gather(*(spend(b"a" * 16, 60) for _ in range(8)))
    assert sorted(at_once) == [False] * 7 + [True]
    assert await spend(b"b" * 16, 60)
    assert not await spend(b"c" * 16, -2 * 3600)
    assert await spend(b"d" * 16, -60)
    assert [len(row["id"]) for row in await query(admin, "SELECT id FROM admin.spent_ephemeral_keys")] == [16] * 3
    other = await admin.peer(TOKENS["scheduler"])
    request = ephemeral_keys_pb2.SpendEphemeralKeyRequest(id=b"e" * 16)
    theirs: Any = ephemeral_keys_pb2_grpc.EphemeralKeysStub(other.channel)
    assert "PERMISSION_DENIED" in await refused(theirs.Spend(request, metadata=other.metadata, timeout=10))


async def test_more_is_asked_for_and_done_when_it_is_approved(admin: Running) -> None:
    operator, key, alice = await alices(admin)
    budget = (await operator.AddBudget(subject={"user": "alice"}, unit=1, amount=100)).budget
    await operator.SetLimits(subject={"user": "alice"}, requests_per_minute={"most": 5})
    await operator.SetKeyTerms(key_id=key.id, max_output_tokens={"tokens": 10})
    secret = f"fb-{key.id}-{'s' * 43}"
    wishes: list[dict[str, Any]] = [
        {"limits": {"requests_per_minute": 50}},
        {"budget": {"id": budget.id, "amount": 1000}},
        {"key_terms": {"key_id": secret, "max_output_tokens": {"tokens": 99}}},
    ]
    asked = [(await alice.RequestQuota(wish=wish, reason="a deadline")).request for wish in wishes]
    assert len((await operator.ListQuotaRequests()).requests) == len((await alice.ListQuotaRequests()).requests) == 3
    assert "PERMISSION_DENIED" in await refused(alice.DecideQuotaRequest(id=asked[0].id, approve=True))
    for one in asked:
        await operator.DecideQuotaRequest(id=one.id, approve=True)
    quota = (await operator.ShowQuota(subject={"user": "alice"})).quotas[0]
    assert (quota.requests_per_minute, quota.budgets[0].amount) == (50, 1000)
    assert (await principal(admin, key.id)).terms.max_output_tokens == 99
    denied = (await alice.RequestQuota(wish=wishes[0], reason="again")).request
    told = (await operator.DecideQuotaRequest(id=denied.id, answer="not this month")).request
    assert (told.state, told.answer) == (key_terms_pb2.QUOTA_REQUEST_STATE_DENIED, "not this month")
    assert "FAILED_PRECONDITION" in await refused(operator.DecideQuotaRequest(id=denied.id, approve=True))
    assert not (await alice.ListQuotaRequests()).requests
    assert len((await alice.ListQuotaRequests(include_decided=True)).requests) == 4
    acts = await query(admin, "SELECT action FROM admin.audit_log WHERE action ~ '^(quota|budget|key)' ORDER BY id")
    assert [act["action"] for act in acts][-8:] == [
        *("quota.set", "quota.approve", "budget.set", "quota.approve", "key.terms", "quota.approve"),
        *("quota.request", "quota.deny"),
    ]
    kept = await query(admin, "SELECT wish FROM admin.quota_requests")
    assert "s" * 43 not in json.dumps([dict(row) for row in kept])


async def test_what_cannot_be_asked_for_is_said_before_anybody_decides(admin: Running) -> None:
    operator, _, alice = await alices(admin)
    await operator.AddUser(name="bob")
    bobs = (await operator.CreateKey(user="bob")).key
    theirs = (await operator.AddBudget(subject={"user": "bob"}, unit=1, amount=100)).budget
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "INVALID_ARGUMENT"),
        ({"limits": {}}, "INVALID_ARGUMENT"),
        ({"limits": {"concurrency": 0}}, "INVALID_ARGUMENT"),
        ({"limits": {"key_id": bobs.id, "concurrency": 1}}, "NOT_FOUND"),
        ({"budget": {"id": theirs.id, "amount": 1000}}, "PERMISSION_DENIED"),
        ({"budget": {"id": "nothing", "amount": 1}}, "NOT_FOUND"),
        ({"key_terms": {"key_id": bobs.id, "name": "x"}}, "NOT_FOUND"),
        ({"key_terms": {"key_id": bobs.id}}, "NOT_FOUND"),
    ]
    for wish, words in wrong:
        assert words in await refused(alice.RequestQuota(wish=wish, reason="x")), wish
