"""Files of users and keys, imported by a real admin: shown first, made as a whole or not at all, audited one by one."""

from __future__ import annotations

from typing import Any

import aiohttp

from forebay_admin.people.people import Role
from tests.admin.replica import OperatorCalls, Running
from tests.admin.test_operator import query, refused, somebody

USERS = "name,group,role\nalice,Faculty,\nbob,faculty,operator\ncarol,,\n"
KEYS = "user,name,allowed_models,expires_in_days\nalice,laptop,tiny,30\nBOB,laptop,,\n"


async def problems(call: Any) -> list[tuple[str, str]]:
    told = await call
    assert not told.done
    assert not told.plan
    return [(problem.path, problem.why) for problem in told.problems]


async def imported(call: Any, csv: str) -> Any:
    plan = (await call(csv=csv)).plan
    return await call(csv=csv, plan=plan)


async def names(operator: OperatorCalls) -> list[str]:
    return [user.name for user in (await operator.ListUsers()).users]


async def test_a_file_of_users_is_shown_and_then_made_as_a_whole(admin: Running) -> None:
    operator = await admin.operator()
    shown = await operator.ImportUsers(csv=USERS)
    assert [(user.line, user.name, user.group, user.role) for user in shown.users] == [
        (2, "alice", "Faculty", "member"),
        (3, "bob", "Faculty", "operator"),
        (4, "carol", "everyone", "member"),
    ]
    assert (list(shown.new_groups), shown.done, await names(operator)) == (["Faculty"], False, ["admin"])

    assert "FAILED_PRECONDITION" in await refused(operator.ImportUsers(csv=USERS + "dan,,\n", plan=shown.plan))
    await operator.AddGroup(name="FACULTY")  # so that it would not be made any more
    assert "FAILED_PRECONDITION" in await refused(operator.ImportUsers(csv=USERS, plan=shown.plan))
    assert await names(operator) == ["admin"]

    await operator.SetMemberLimits(group="faculty", concurrency={"most": 2})
    made = await imported(operator.ImportUsers, USERS)
    assert made.done
    assert made.version > 0
    assert {user.name: user.group_name for user in (await operator.ListUsers()).users} == {
        "admin": "everyone",
        "alice": "FACULTY",
        "bob": "FACULTY",
        "carol": "everyone",
    }
    quotas = {quota.name: quota.concurrency for quota in (await operator.ListQuotas()).quotas if quota.kind == "user"}
    assert quotas == {"alice": 2, "bob": 2}
    rows = await query(admin, "SELECT actor, subject, after FROM admin.audit_log WHERE action = 'user.add' ORDER BY id")
    assert [(row["actor"], row["subject"]) for row in rows] == [
        ("admin", "alice"),
        ("admin", "bob"),
        ("admin", "carol"),
    ]
    assert not (await operator.VerifyAudit())[-1].HasField("fault")
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {admin.site.first_key}"}) as session:
        address = f"http://{admin.http_address}/api/v1/users/import"
        async with session.post(address, json={"csv": "name,role\ndan,boss\n"}) as answer:
            told = (await answer.json())["error"]
            assert (answer.status, told["code"], told["problems"][0]["path"]) == (422, "refused", "2.role")
        async with session.post(address, json={"csv": "name\0"}) as answer:
            assert (answer.status, (await answer.json())["error"]["problems"][0]["path"]) == (400, "csv")
    assert await problems(operator.ImportUsers(csv="name\nAlice\ndan\n")) == [
        ("2.name", "There is a user Alice already.")
    ]
    assert await problems(operator.ImportUsers(csv="name\nalice\n", plan=shown.plan)) == [
        ("2.name", "There is a user alice already.")
    ]


async def test_a_file_of_keys_is_made_with_secrets_that_work(admin: Running) -> None:
    operator = await admin.operator()
    await imported(operator.ImportUsers, USERS)
    shown = await operator.ImportKeys(csv=KEYS)
    assert [(key.line, key.user, key.name, key.secret) for key in shown.keys] == [
        (2, "alice", "laptop", ""),
        (3, "bob", "laptop", ""),
    ]
    assert (shown.keys[0].expires_in_s, list(shown.keys[0].allowed_models)) == (30 * 86_400, ["tiny"])
    assert not (await operator.ListKeys(user="alice")).keys
    made = await operator.ImportKeys(csv=KEYS, plan=shown.plan)
    assert made.done
    alice, bob = [await admin.operator(key.secret) for key in made.keys]
    assert [key.id for key in (await alice.ListKeys()).keys] == [made.keys[0].key_id]
    assert await names(bob) == ["admin", "alice", "bob", "carol"]
    rows = await query(admin, "SELECT subject, after FROM admin.audit_log WHERE action = 'key.create' ORDER BY id")
    assert [row["subject"] for row in rows] == [key.key_id for key in made.keys]
    assert all(key.secret not in str(dict(row)) for key in made.keys for row in rows)

    assert await problems(operator.ImportKeys(csv=KEYS)) == [
        ("2.name", "alice has a key laptop already."),
        ("3.name", "bob has a key laptop already."),
    ]
    await operator.RevokeKey(key_id=made.keys[0].key_id)
    assert await problems(operator.ImportKeys(csv=KEYS.replace("BOB", "nobody"))) == [
        ("3.user", "There is no user 'nobody'.")
    ]


async def test_a_file_makes_nothing_that_a_single_call_would_not(admin: Running) -> None:
    operator = await admin.operator()
    member = await somebody(admin, "mia", Role.MEMBER)
    assert "PERMISSION_DENIED" in await refused(member.ImportUsers(csv=USERS))
    [(path, why)] = await problems(member.ImportKeys(csv="user,name\nmia,one\nadmin,two\n"))
    assert (path, why) == ("3.user", "mia may make keys only for themselves.")
    made = await imported(member.ImportKeys, "user,name\nmia,one\n")
    assert [key.user for key in made.keys] == ["mia"]

    await operator.SetCustomRole(name="clerk", permissions=["users:write", "keys:write", "users:read"])
    await operator.AddUser(name="cleo")
    await operator.SetUserRights(name="cleo", custom_roles={"names": ["clerk"]})
    secret = (await operator.CreateKey(user="cleo")).secret
    cleo = await admin.operator(secret)
    [(path, why)] = await problems(cleo.ImportUsers(csv="name,role\nx,member\ny,admin\n"))
    assert path == "3.role"
    assert why.startswith("With the role admin one may do what you may not")
    found = await problems(cleo.ImportKeys(csv="user,name\nmia,two\nadmin,two\n"))
    assert [path for path, _ in found] == ["3.user"]
    assert "With a key of admin one may do what you may not" in found[0][1]

    narrow = await operator.CreateKey(user="mia", allowed_models=["tiny"], band_cap="BAND_BATCH", expires_in_s=600)
    held = await admin.operator(narrow.secret)
    assert "allows only tiny" in (await problems(held.ImportKeys(csv="user,name,allowed_models\nmia,w,*\n")))[0][1]
    within = await imported(held.ImportKeys, "user,name\nmia,within\n")
    assert list(within.keys[0].allowed_models) == ["tiny"]
    kept = {key.name: key for key in (await operator.ListKeys(user="mia")).keys}
    assert kept["within"].expires_at_us == narrow.key.expires_at_us
