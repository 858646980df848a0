"""Custom roles, service accounts and narrow tokens on a real admin: who may do what, and makes nobody more than that."""

from __future__ import annotations

import json

import grpc

from forebay.wire.v1 import admin_pb2, identity_pb2
from forebay_admin.people.permissions import GROUPS
from forebay_admin.people.roles import calls
from tests.admin.replica import Running
from tests.admin.test_operator import HARMLESS, code_of, query, refused


async def test_a_custom_role_gives_what_it_names_from_then_on_and_is_taken_again(admin: Running) -> None:
    root = await admin.operator()
    await root.AddUser(name="alice")
    alice = await admin.operator((await root.CreateKey(user="alice")).secret)
    assert await code_of(alice.ListUsers()) is grpc.StatusCode.PERMISSION_DENIED
    made = (
        await root.SetCustomRole(name="Helpdesk", permissions=["users:read", "access:read"], about="first line")
    ).role
    assert list(made.permissions) == ["access:read", "users:read"]
    await root.SetUserRights(name="alice", custom_roles=identity_pb2.CustomRoleNames(names=["helpdesk"]))
    assert [user.name for user in (await alice.ListUsers()).users] == ["admin", "alice"]
    me = await alice.WhoAmI()
    assert (me.user, me.role, list(me.custom_roles)) == ("alice", "member", ["Helpdesk"])
    assert {"ListUsers", "ListKeys:own"} <= set(me.may)
    # The role grows, and everybody who has it with it.
    await root.SetCustomRole(name="helpdesk", permissions=["users:read", "status:read"])
    assert (await alice.ShowStatus()).version
    assert (await refused(root.RemoveCustomRole(name="helpdesk"))).startswith("INVALID_ARGUMENT: 1 user")
    await root.SetUserRights(name="alice", custom_roles=identity_pb2.CustomRoleNames())
    assert await code_of(alice.ListUsers()) is grpc.StatusCode.PERMISSION_DENIED
    assert (await root.RemoveCustomRole(name="HELPDESK")).role.name == "Helpdesk"
    listed = await root.ListCustomRoles()
    assert (list(listed.roles), set(listed.permissions)) == ([], set(GROUPS))
    for fields, words in (
        ({"name": "admin", "permissions": ["keys:read"]}, "INVALID_ARGUMENT: admin is one of the built-in roles"),
        ({"name": "x", "permissions": ["moon:land"]}, "INVALID_ARGUMENT: There is no permission 'moon:land'"),
        ({"name": "x"}, "INVALID_ARGUMENT: Name at least one permission"),
    ):
        assert (await refused(root.SetCustomRole(**fields))).startswith(words)
    assert (await refused(root.SetUserRights(name="admin", disabled=True))).startswith(
        "INVALID_ARGUMENT: admin is the last"
    )
    assert (await refused(root.SetUserRights(name="admin", role="king"))).startswith(
        "INVALID_ARGUMENT: There is no role"
    )


async def test_a_narrow_token_makes_its_calls_and_no_others(admin: Running) -> None:
    root = await admin.operator()
    allowed = GROUPS["fleet:read"] | GROUPS["keys:read"] | {"WhoAmI"}
    made = await root.CreateToken(name="ci", permissions=["fleet:read", "keys:read"], expires_in_s=600)
    token = await admin.operator(made.secret)
    may = set()
    for call in calls():
        code = await code_of(getattr(token, call)(**HARMLESS.get(call, {})))
        assert code is not grpc.StatusCode.UNAUTHENTICATED, call
        if code is not grpc.StatusCode.PERMISSION_DENIED:
            may.add(call)
    assert may == allowed
    assert (await token.WhoAmI()).credential == identity_pb2.CREDENTIAL_KIND_TOKEN
    assert set((await token.WhoAmI()).may) == allowed - {"WhoAmI"} | {"WhoAmI:own"}
    assert "not given the permission" in await refused(token.AddUser(name="eve"))
    wrong = made.secret[:-1] + ("a" if made.secret[-1] != "a" else "b")
    for bearer in (wrong, "fbadm-000000000000-x", "fbadm-", made.secret.replace("fbadm", "fbses")):
        assert await code_of((await admin.operator(bearer)).WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED, bearer
    assert [one.id for one in (await root.ListTokens()).tokens] == [made.token.id]
    assert (await root.RevokeToken(id=made.token.id)).token.revoked_at_us
    assert await code_of(token.WhoAmI()) is grpc.StatusCode.UNAUTHENTICATED
    assert (await root.ListTokens()).tokens == []
    rows = await query(
        admin, "SELECT action, before, after FROM admin.audit_log WHERE action LIKE 'token%' ORDER BY id"
    )
    assert [row["action"] for row in rows] == ["token.create", "token.revoke"]
    assert json.loads(rows[1]["before"])["revoked"] is False
    assert json.loads(rows[1]["after"])["revoked"] is True
    assert made.secret.rpartition("-")[2] not in json.dumps([dict(row) for row in rows])


async def test_nobody_makes_themselves_more_than_they_are(admin: Running) -> None:
    root = await admin.operator()
    await root.SetCustomRole(name="clerk", permissions=["users:write", "keys:write", "access:write"])
    for name in ("carl", "mia"):
        await root.AddUser(name=name)
    await root.SetUserRights(name="carl", custom_roles={"names": ["clerk"]})
    clerk = await admin.operator((await root.CreateKey(user="carl")).secret)
    key = await root.CreateKey(user="admin", name="second")
    narrow = await admin.operator((await root.CreateToken(permissions=["keys:write", "access:write"])).secret)
    for forbidden in (
        clerk.AddUser(name="eve", role=admin_pb2.ROLE_ADMIN),
        clerk.AddServiceAccount(name="eve", role="admin", owner_group="everyone"),
        clerk.SetUserRights(name="carl", role="admin"),
        clerk.SetUserRights(name="admin", disabled=True),
        clerk.SetCustomRole(name="clerk", permissions=["fleet:write"]),
        clerk.ResetPassword(user="admin"),
        clerk.CreateToken(user="admin", permissions=["fleet:write"]),
        clerk.CreateKey(user="admin"),
        clerk.RotateKey(key_id=key.key.id),
        narrow.CreateKey(),
        narrow.RotateKey(key_id=key.key.id),
        narrow.CreateToken(permissions=["fleet:write"]),
        narrow.CreateToken(permissions=["usage:read:own"]),
        narrow.ResetPassword(user="admin"),
    ):
        assert (await refused(forbidden)).startswith("PERMISSION_DENIED: "), forbidden
    # What they may: people who are no more than themselves.
    assert (await clerk.AddUser(name="neo")).user.name == "neo"
    assert (await clerk.CreateKey(user="mia")).secret
    assert (await clerk.ResetPassword(user="mia")).token.startswith("fbpwd-")
    assert (await narrow.CreateKey(user="mia")).secret
    # Members keep to their own.
    mia = await admin.operator((await root.CreateKey(user="mia")).secret)
    assert (await mia.ShowUser()).user.name == "mia"
    for forbidden in (
        mia.ShowUser(name="carl"),
        mia.CreateToken(user="carl", permissions=["keys:read:own"]),
        mia.EndSessions(user="carl"),
        mia.ListTokens(user="carl"),
    ):
        assert (await refused(forbidden)).startswith("PERMISSION_DENIED: "), forbidden
    own = await mia.CreateToken(permissions=["keys:read:own"])
    assert await refused(mia.RevokeToken(id=(await root.ListTokens(user="admin")).tokens[0].id)) != ""
    assert (await mia.RevokeToken(id=own.token.id)).token.revoked_at_us


async def test_a_service_account_is_a_program_that_a_group_answers_for(admin: Running) -> None:
    root = await admin.operator()
    await root.AddGroup(name="platform")
    made = (await root.AddServiceAccount(name="ci-bot", group="platform", role="operator", owner_group="platform")).user
    assert (made.is_service_account, made.owner_group, made.role) == (True, "platform", "operator")
    assert "has no password" in await refused(root.ResetPassword(user="ci-bot"))
    bot = await admin.operator((await root.CreateKey(user="ci-bot")).secret)
    assert (await bot.ShowBackends()).backends == []
    assert "Say which group answers" in await refused(root.AddServiceAccount(name="x"))
    assert "There is no group nowhere" in await refused(root.AddServiceAccount(name="x", owner_group="nowhere"))
    await root.AddServiceAccount(name="other", owner_group="platform")
    assert {u.name for u in (await root.ListUsers()).users if u.is_service_account} == {"ci-bot", "other"}
    await root.SetUserRights(name="ci-bot", disabled=True)
    assert (await refused(bot.ShowBackends())) == "UNAUTHENTICATED: The user ci-bot is disabled."
    await root.ChangeUser(name="ci-bot", group="everyone")
    assert "answers for" in await refused(root.RemoveGroup(name="platform"))
