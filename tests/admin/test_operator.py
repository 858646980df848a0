"""Operators' calls: who may make which, what is refused and in which words, and that every act is audited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest

from forebay.wire.v1 import admin_pb2
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, calls, reach
from tests.admin.replica import TOKENS, OperatorCalls, Running

ROLES = {
    Role.MEMBER: admin_pb2.ROLE_MEMBER,
    Role.AUDITOR: admin_pb2.ROLE_AUDITOR,
    Role.OPERATOR: admin_pb2.ROLE_OPERATOR,
    Role.ADMIN: admin_pb2.ROLE_ADMIN,
}
HARMLESS: Mapping[str, dict[str, Any]] = {
    "CreateKey": {},
    "WatchSecurityEvents": {"kind": "nothing"},  # it would not end
    "RevokeKey": {"key_id": "000000000000"},
    "SetKeyTerms": {"key_id": "000000000000", "name": "x"},
    "RenewKey": {"key_id": "000000000000"},
    "RotateKey": {"key_id": "000000000000"},
    "BlockKey": {"key_id": "000000000000", "reason": "x"},
    "UnblockKey": {"key_id": "000000000000"},
    "DecideQuotaRequest": {"id": "nothing"},
    "DecideAccessRequest": {"id": "nothing"},
    "AddSigningKey": {"key_id": "000000000000", "public_key": bytes(32)},
    "RemoveSigningKey": {"fingerprint": "SHA256:nothing"},
    "AddUser": {"name": "carol"},
    "RegisterBackend": {"name": "engine", "url": "http://127.0.0.1:1"},
    "UnregisterBackend": {"name": "nothing"},
    "ChangeBackend": {"name": "nothing", "slots": 1},
    "ChangeNode": {"name": "nothing", "note": "x"},
    "ChangePool": {"name": "nothing"},
    "AddBackendCredential": {"backend": "nothing", "bearer": "x"},
    "ListBackendCredentials": {"backend": "nothing"},
    "RemoveBackendCredential": {"backend": "nothing", "label": "x"},
    "InviteNode": {"name": "box"},
    "ChangeUser": {"name": "nobody", "paused": True},
    "EndSession": {"id": "000000000000"},
    "RevokeToken": {"id": "000000000000"},
    "ChangeKey": {"key_id": "000000000000", "weight_milli": 1},
    "AddGroup": {"name": "research"},
    "ChangeGroup": {"name": "nothing", "paused": True},
    "RemoveGroup": {"name": "nothing"},
    "PresetGroups": {"preset": "nothing"},
    "RemoveBudget": {"id": "nothing"},
    "RemoveModelTerms": {"model": "nothing"},
    "RemovePoolTerms": {"pool": "nothing"},
    "SetPrice": {"model": "nothing"},
    "CancelPrice": {"id": "1"},
    "ShowCost": {"request_id": "nothing"},
    "CloseBalance": {"owner": {"id": "nothing"}},
    "RemoveModelAlias": {"alias": "nothing"},
    "RemoveModelRule": {"scope": {"model": "nothing"}},
    "RemoveModelFallback": {"model": "nothing"},
    "NameBackendModels": {"name": "nothing"},
    "ViewExplanation": {"request_id": "nothing"},
    "FollowModelJob": {"id": "nothing"},
    "CancelModelJob": {"id": "nothing"},
    "DrainBackend": {"name": "nothing"},
    "DrainNode": {"node": "nothing"},
    "CancelMaintenance": {"id": "nothing"},
    "ShowBackendHealth": {"name": "nothing"},
    "ProbeBackend": {"name": "nothing"},
    "AckAlert": {"id": "nothing"},
    "UnsilenceAlerts": {"subject": "nothing"},
    "ShowDeadLetter": {"id": "00"},
    "RemoveSubscription": {"id": "nothing"},
    "TestSubscription": {"id": "nothing"},
    "ShowEvent": {"id": "nothing"},
    "RetryDeliveries": {"event_id": "nothing"},
    "SetBudgetThresholds": {"id": "nothing"},
}
_OWN_WAY_IN = {
    *("WhoAmI", "ShowUser", "CreateToken", "ListTokens", "RevokeToken"),
    *("ListSessions", "EndSession", "EndSessions", "ChangePassword"),
}
_OWN_EVENTS = {
    *("AddSubscription", "ListSubscriptions", "RemoveSubscription", "TestSubscription", "ListEvents", "ShowEvent"),
}
ALLOWED = {
    Role.MEMBER: {
        *_OWN_WAY_IN,
        *("CreateKey", "ListKeys", "RevokeKey", "ShowUsage", "QueryUsage", "ReadLedger", "ShowQuota"),
        *("ShowCost", "ShowBalance"),
        *("SetKeyTerms", "RenewKey", "RotateKey", "ImportKeys", "RequestQuota", "ListQuotaRequests"),
        *("AddSigningKey", "ListSigningKeys", "RemoveSigningKey"),
        *_OWN_EVENTS,
    },
    Role.AUDITOR: {
        *_OWN_WAY_IN,
        "ListCustomRoles",
        *("CreateKey", "ListKeys", "RevokeKey", "ShowUsage", "QueryUsage", "ReadLedger", "ShowQuota"),
        *("ShowCost", "ShowBalance"),
        *("SetKeyTerms", "RenewKey", "RotateKey", "ImportKeys", "RequestQuota", "ListQuotaRequests"),
        *("AddSigningKey", "ListSigningKeys", "RemoveSigningKey"),
        *_OWN_EVENTS,
        *("ListUsers", "ShowBackends", "ListBackendCredentials", "ShowNodes", "ShowModels"),
        *("ListGroups", "ListQuotas", "ShowMemberLimits", "ListModelTerms", "ListModelRules", "ListPools"),
        *("ViewQueue", "ViewExplanation", "ListAccessRequests"),
        *("ListPrices", "ListBalances"),
        *("ListModelJobs", "FollowModelJob", "DescribeModel", "ListModelPins"),
        *("ShowMaintenance", "ShowBackendHealth"),
        *("ShowHistory", "ShowSeries", "ShowEnergy"),
        *("ListDeadLetters", "ShowDeadLetter"),
        *("ExportFleet", "ShowFleetVersions", "ShowFoundBackends"),
        *("ListAlerts", "ShowAlert", "WatchAlerts", "ShowStatus"),
        *("ListAddressRules", "ListBans", "ListSecurityEvents", "WatchSecurityEvents"),
        *("ListAudit", "VerifyAudit", "SearchRecordings", "ShowRecording", "ListRecordingPolicies"),
    },
    Role.OPERATOR: set(calls())
    - {
        *("AddUser", "ImportUsers", "ChangeUser", "ChangeKey"),
        *("AddServiceAccount", "SetUserRights", "SetCustomRole", "RemoveCustomRole", "ResetPassword"),
        *("AddGroup", "ChangeGroup", "RemoveGroup", "PresetGroups"),
        *("SetLimits", "AddBudget", "ChangeBudget", "RemoveBudget", "DecideQuotaRequest", "SetMemberLimits"),
        *("SetBudgetThresholds", "DecideAccessRequest"),
        *("SetModelTerms", "RemoveModelTerms"),
        *("SetPrice", "CancelPrice", "OpenBalance", "CloseBalance", "PostBalance"),
        *("SearchRecordings", "ShowRecording", "DeleteRecordings", "SetRecordingPolicy"),
        *("SetAddressPolicy", "AddAddressRule", "RemoveAddressRule"),
    },
    Role.ADMIN: set(calls()),
}

WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("CreateKey", {"user": "nobody"}, "NOT_FOUND: There is no user nobody."),
    ("CreateKey", {"expires_in_s": 0}, "INVALID_ARGUMENT: A key that expires in 0 seconds has expired already."),
    ("CreateKey", {"band_cap": 99}, "INVALID_ARGUMENT: There is no band 99"),
    ("AddUser", {"name": "ADMIN"}, "ALREADY_EXISTS: There is a user ADMIN already."),
    ("AddUser", {"name": "two words"}, "INVALID_ARGUMENT: A user's name is"),
    ("AddUser", {"name": "a\0b"}, "INVALID_ARGUMENT: name: no text here may hold a NUL character."),
    ("CreateKey", {"labels": {"team": "\0"}}, "INVALID_ARGUMENT: labels.team: no text here may hold a NUL character."),
    ("AddUser", {"name": "x", "role": 99}, "INVALID_ARGUMENT: There is no role 99"),
    ("RevokeKey", {"key_id": "0" * 12}, "NOT_FOUND: There is no key 000000000000."),
    (
        "RegisterBackend",
        {"name": "x", "url": "127.0.0.1:8000"},
        "INVALID_ARGUMENT: '127.0.0.1:8000' is not the URL",
    ),
    ("RegisterBackend", {"name": "x", "url": "http://u:p@h"}, "INVALID_ARGUMENT: A URL is shown to everybody"),
    ("RegisterBackend", {"name": "x", "url": "http://h:99999"}, "INVALID_ARGUMENT: 'http://h:99999' is not a URL"),
    ("RegisterBackend", {"url": "http://h"}, "INVALID_ARGUMENT: A backend needs a name."),
    ("RegisterBackend", {"name": "x", "url": "http://h", "bearer": "a\r\nb"}, "INVALID_ARGUMENT: An engine's key"),
    ("UnregisterBackend", {"name": "x"}, "NOT_FOUND: There is no backend x."),
    ("AddBackendCredential", {"backend": "x", "bearer": "k"}, "NOT_FOUND: There is no backend 'x'"),
    ("AddBackendCredential", {"backend": "x"}, "INVALID_ARGUMENT: The key is empty."),
    ("AddBackendCredential", {"backend": "x", "bearer": "a\nb"}, "INVALID_ARGUMENT: An engine's key"),
    ("InviteNode", {"name": "no_underscores"}, "INVALID_ARGUMENT: A node's name is"),
    ("InviteNode", {"name": "x" * 64}, "INVALID_ARGUMENT: A node's name is"),
    ("InviteNode", {"name": "x", "valid_s": 8 * 86_400}, "INVALID_ARGUMENT: An invitation is valid for at most"),
    ("ShowUsage", {"user": "nobody"}, "NOT_FOUND: There is no user nobody."),
    ("ShowUsage", {"limit": 10_001}, "INVALID_ARGUMENT: At most 10000 rows"),
    ("ShowUsage", {"since_us": -1}, "INVALID_ARGUMENT: since_us is before 1970."),
    ("ShowUsage", {"since_us": 2**62}, "INVALID_ARGUMENT: 4611686018427387904 µs since 1970 is not a time."),
)


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def refused(call: Any) -> str:
    """The words of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return f"{error.value.code().name}: {error.value.details()}"


async def somebody(admin: Running, name: str, role: Role) -> OperatorCalls:
    operator = await admin.operator()
    await operator.AddUser(name=name, role=ROLES[role])
    return await admin.operator((await operator.CreateKey(user=name)).secret)


async def test_each_role_may_make_its_calls_and_no_others(admin: Running) -> None:
    for role in Role:
        them = await somebody(admin, f"the-{role}", role)
        may = set()
        for call in calls():
            code = await code_of(getattr(them, call)(**HARMLESS.get(call, {})))
            assert code is not grpc.StatusCode.UNAUTHENTICATED
            if code is not grpc.StatusCode.PERMISSION_DENIED:
                may.add(call)
        assert may == ALLOWED[role], role


def test_a_call_that_nobody_thought_of_is_nobodys() -> None:
    assert {reach(role, "DropEverything") for role in Role} == {Reach.NONE}
    operator_calls = {method.name for method in admin_pb2.DESCRIPTOR.services_by_name["Operator"].methods}
    assert operator_calls == set(calls())


async def test_a_member_sees_and_touches_only_what_is_their_own(admin: Running) -> None:
    operator = await admin.operator()
    alice, bob = await somebody(admin, "alice", Role.MEMBER), await somebody(admin, "bob", Role.MEMBER)
    bobs = (await bob.ListKeys()).keys[0]
    assert {key.user_name for key in (await alice.ListKeys()).keys} == {"alice"}
    assert "PERMISSION_DENIED" in await refused(alice.ListKeys(user="bob"))
    assert "PERMISSION_DENIED" in await refused(alice.CreateKey(user="bob"))
    assert "PERMISSION_DENIED" in await refused(alice.ShowUsage(user="bob"))
    assert await refused(alice.RevokeKey(key_id=bobs.id)) == f"NOT_FOUND: There is no key {bobs.id} of yours."
    nothing = "0" * 12
    assert await refused(alice.RevokeKey(key_id=nothing)) == f"NOT_FOUND: There is no key {nothing} of yours."
    assert [key.state for key in (await operator.ListKeys(user="bob")).keys] == [admin_pb2.KEY_STATE_ACTIVE]
    own = (await alice.CreateKey(name="second")).key
    assert (await alice.RevokeKey(key_id=own.id)).key.state == admin_pb2.KEY_STATE_REVOKED


async def test_a_narrow_key_makes_no_wider_one(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice")
    narrow = await operator.CreateKey(user="alice", allowed_models=["tiny"], band_cap="BAND_BATCH", expires_in_s=600)
    alice = await admin.operator(narrow.secret)
    made = (await alice.CreateKey()).key
    assert list(made.allowed_models) == ["tiny"]
    assert made.band_cap == narrow.key.band_cap
    assert made.expires_at_us == narrow.key.expires_at_us
    assert "PERMISSION_DENIED" in await refused(alice.CreateKey(allowed_models=["*"]))
    assert "PERMISSION_DENIED" in await refused(alice.CreateKey(band_cap="BAND_SYSTEM"))
    assert "PERMISSION_DENIED" in await refused(alice.CreateKey(expires_in_s=601))


async def test_a_key_that_is_wrong_revoked_or_absent_opens_nothing(admin: Running) -> None:
    operator = await admin.operator()
    made = await operator.CreateKey()
    with_it = await admin.operator(made.secret)
    assert (await with_it.ListUsers()).users
    await operator.RevokeKey(key_id=made.secret)
    for _ in range(100):
        if await code_of(with_it.ListUsers()) is not grpc.StatusCode.OK:
            break
    assert await refused(with_it.ListUsers()) == "UNAUTHENTICATED: This key was revoked."
    wrong = made.secret[:-1] + ("a" if made.secret[-1] != "a" else "b")
    for token in (wrong, "fb-000000000000-" + "x" * 43, "fb-", "nonsense", ""):
        code = await code_of((await admin.operator(token)).ListUsers())
        assert code is grpc.StatusCode.UNAUTHENTICATED, token


async def test_services_have_no_business_with_operators_calls_except_up(admin: Running) -> None:
    for name, token in TOKENS.items():
        code = await code_of((await admin.operator(token)).ListUsers())
        assert (code is grpc.StatusCode.OK) == (name == "up"), name
    up = await admin.operator(TOKENS["up"])
    await up.RegisterBackend(name="found", url="http://127.0.0.1:11434")
    assert admin.site.registry.actors == ["forebay up"]
    assert "Say for whom" in await refused(up.CreateKey())


async def test_what_is_wrong_is_said(admin: Running) -> None:
    operator = await admin.operator()
    for call, fields, words in WRONG:
        told = await refused(getattr(operator, call)(**fields))
        assert told.startswith(words), (call, fields)


async def test_a_registry_that_is_away_is_said_and_changes_nothing(start: Any) -> None:
    async with start(registry_address="127.0.0.1:1") as admin:
        operator = await admin.operator()
        told = await refused(operator.RegisterBackend(name="engine", url="http://127.0.0.1:8000", bearer="secret"))
        assert told == "UNAVAILABLE: The registry is away; nothing was changed there."
        rows = await query(admin, "SELECT action FROM admin.audit_log WHERE action LIKE 'backend%'")
        assert rows == []


async def test_every_act_is_audited_with_who_what_before_and_after(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice", role=admin_pb2.ROLE_OPERATOR)
    alices = await operator.CreateKey(user="alice", name="laptop")
    alice = await admin.operator(alices.secret)
    await alice.RegisterBackend(name="engine", url="http://127.0.0.1:8000", slots=4)
    await alice.RegisterBackend(name="engine", url="http://127.0.0.1:8000", slots=8, replace=True)
    await alice.UnregisterBackend(name="engine")
    await alice.InviteNode(name="box")
    await operator.RevokeKey(key_id=alices.key.id, now=True)
    rows = await query(
        admin, "SELECT actor, actor_key_id, interface, action, subject, before, after FROM admin.audit_log ORDER BY id"
    )
    assert [(r["actor"], r["action"], r["subject"]) for r in rows] == [
        ("admin service", "user.bootstrap", "admin"),
        ("admin", "user.add", "alice"),
        ("admin", "key.create", alices.key.id),
        ("alice", "backend.add", "engine"),
        ("alice", "backend.replace", "engine"),
        ("alice", "backend.remove", "engine"),
        ("alice", "node.invite", "box"),
        ("admin", "key.revoke", alices.key.id),
    ]
    assert {r["actor_key_id"] for r in rows if r["actor"] == "alice"} == {alices.key.id}
    replaced = rows[4]
    assert (json.loads(replaced["before"])["slots"], json.loads(replaced["after"])["slots"]) == (4, 8)
    revoked = rows[7]
    before, after = json.loads(revoked["before"]), json.loads(revoked["after"])
    assert (before["state"], before["cut_running"]) == ("active", False)
    assert (after["state"], after["cut_running"]) == ("revoked", True)
    everything = json.dumps([dict(r) for r in rows])
    assert alices.secret not in everything
    assert admin.site.first_key not in everything


async def query(admin: Running, sql: str) -> list[Any]:
    connection = await asyncpg.connect(admin.site.database_url)
    try:
        rows: list[Any] = await connection.fetch(sql)
        return rows
    finally:
        await connection.close()
