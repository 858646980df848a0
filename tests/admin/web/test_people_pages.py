"""Pages about people, over HTTP: what each role sees, what forms do, and what becomes of one with something wrong in it."""

from __future__ import annotations

import csv
import io
import re

import aiohttp
import pytest

from forebay_admin.people.people import Role
from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import HTML, House, page, send
from tests.admin.web.refused import Wrong, demand_refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


# --- users --------------------------------------------------------------------------------------------------------------


async def test_users_are_found_by_name_group_role_and_state(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="Findable-Fay", group="finders")
    await house.root.AddUser(name="findable-finn", group="others", role="ROLE_AUDITOR")
    await house.root.SetUserRights(name="findable-finn", disabled=True)
    assert _named(await page(admin, "/console/users?text=FINDABLE")) == ["Findable-Fay", "findable-finn"]
    assert _named(await page(admin, "/console/users?text=findable&group=finders")) == ["Findable-Fay"]
    assert _named(await page(admin, "/console/users?text=findable&role=auditor")) == ["findable-finn"]
    assert _named(await page(admin, "/console/users?text=findable&state=enabled")) == ["Findable-Fay"]
    assert "Nobody here fits" in await page(admin, "/console/users?text=unfindable")


async def test_many_users_are_told_page_by_page(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    told = "name,group\n" + "".join(f"crowd-{number:03},crowd\n" for number in range(60))
    plan = (await house.root.ImportUsers(csv=told)).plan
    await house.root.ImportUsers(csv=told, plan=plan)
    first = await page(admin, "/console/users?group=crowd")
    assert len(_named(first)) == 50
    found = re.search(r'href="(/console/users\?group=crowd&amp;after=[^"]+)"', first)
    assert found is not None
    rest = await page(admin, found[1].replace("&amp;", "&"))
    assert _named(rest) == [f"crowd-{number:03}" for number in range(50, 60)]
    assert 'href="/console/users?group=crowd"' in rest


async def test_a_filter_of_users_that_cannot_be_says_so(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert 'id="f-filter-role-error"' in await page(admin, "/console/users?role=emperor", status=400)
    assert 'id="f-filter-group-error"' in await page(admin, "/console/users?group=no-such", status=400)
    await page(admin, "/console/users?text=a&text=b&name=c&usual=d&self=e")


async def test_users_as_a_file(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="filed-fred", group="filed")
    status, text, _ = await admin.get("/console/users.csv?group=filed", headers=HTML)
    assert status == 200
    assert [(row["name"], row["role"]) for row in csv.DictReader(io.StringIO(text))] == [("filed-fred", "member")]


async def test_a_user_and_a_service_account_are_added(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    status, _, after = await send(admin, "/console/users", name="new-nina", group="newcomers", role="operator")
    assert (status, after) == (303, "/console/users/new-nina")
    text = await page(admin, after)
    assert "new-nina was added to newcomers" in text
    assert "new-nina was added" not in await page(admin, after), "it is said once"
    sent = {"name": "robot", "owner_group": "newcomers", "role": "member"}
    status, _, after = await send(admin, "/console/service-accounts", **sent)
    assert status == 303
    assert "service account" in await page(admin, after)
    assert (await house.root.ShowUser(name="robot")).user.owner_group == "newcomers"


async def test_what_a_user_may_and_how_much_they_count_is_changed(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="changing-chris")
    await house.root.AddGroup(name="changed")
    await house.root.SetCustomRole(name="reader", permissions=["users:read"])
    path = "/console/users/changing-chris"
    assert (await send(admin, f"{path}/rights", role="auditor", custom_roles="reader"))[0] == 303
    assert (await send(admin, f"{path}/share", group="changed", weight="2.5", max_queued="7", paused="yes"))[0] == 303
    told = (await house.root.ShowUser(name="changing-chris")).user
    assert (told.role, list(told.custom_roles)) == ("auditor", ["reader"])
    (user,) = (await house.root.ListUsers(name="changing-chris")).users
    assert (user.group_name, user.weight_milli, user.max_queued, user.paused) == ("changed", 2500, 7, True)


async def test_a_user_is_disabled_once_that_is_ticked_and_let_in_again(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="off-olga")
    path = "/console/users/off-olga"
    status, text, _ = await send(admin, f"{path}/disable")
    assert (status, 'id="f-disable-sure-error"' in text) == (400, True)
    assert (await send(admin, f"{path}/disable", sure="yes"))[0] == 303
    assert (await house.root.ShowUser(name="off-olga")).user.disabled
    assert (await send(admin, f"{path}/enable"))[0] == 303
    assert not (await house.root.ShowUser(name="off-olga")).user.disabled


async def test_a_link_to_set_a_password_is_shown_once(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="lost-lara")
    status, text, _ = await send(admin, "/console/users/lost-lara/password")
    assert status == 200
    assert re.search(r"/sign-in/password\?token=[\w-]{20,}", text)
    assert "token=" not in await page(admin, "/console/users/lost-lara")


async def test_somebodys_sessions_and_tokens_are_ended(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.signed_in("ended-emil")
    token = (await house.root.CreateToken(user="ended-emil", name="narrow", permissions=["keys:read:own"])).token
    path = "/console/users/ended-emil"
    assert "narrow" in await page(admin, path)
    (session,) = (await house.root.ListSessions(user="ended-emil")).sessions
    assert (await send(admin, f"{path}/sessions/{session.id}/end"))[0] == 303
    assert not (await house.root.ListSessions(user="ended-emil")).sessions
    assert (await send(admin, f"{path}/sessions/end", sure="yes"))[0] == 303
    status, text, _ = await send(admin, f"{path}/tokens/{token.id}/revoke")
    assert (status, f'id="f-token-{token.id}-sure-error"' in text) == (400, True)
    assert (await send(admin, f"{path}/tokens/{token.id}/revoke", sure="yes"))[0] == 303
    assert not (await house.root.ListTokens(user="ended-emil")).tokens


async def test_an_auditor_sees_users_and_is_offered_nothing_to_change(house: House) -> None:
    auditor = await house.of(Role.AUDITOR)
    text = await page(auditor, "/console/users/some-admin")
    assert "/rights" not in text
    assert "/disable" not in text
    assert (await send(auditor, "/console/users/some-admin/disable", sure="yes"))[0] == 403


async def test_a_member_sees_no_list_of_others_whose_own_they_may_see(house: House) -> None:
    member = await house.of(Role.MEMBER)
    for path in ("/console/users", "/console/keys", "/console/requests", "/console/events", "/console/keys/new"):
        await page(member, path, status=403)


async def test_a_file_of_users_is_shown_as_a_plan_first(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    status, text, _ = await _send_file(admin, "/console/import/users", b"name,group\nplanned-pia,planned\n")
    assert status == 200
    assert "Nothing is done yet" in text
    assert "planned-pia" in text
    assert not (await house.root.ListUsers(name="planned-pia")).users
    plan = re.search(r'name="plan" value="([^"]+)"', text)
    assert plan is not None
    sent = {"csv": "name,group\nplanned-pia,planned\n", "plan": plan[1]}
    assert (await send(admin, "/console/import/users", **sent))[0] == 303
    assert len((await house.root.ListUsers(name="planned-pia")).users) == 1


async def test_a_file_with_something_wrong_in_it_says_where(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    status, text, _ = await send(admin, "/console/import/users", csv="name,role\nbad-bert,emperor\n")
    assert status == 400
    assert "emperor" in text
    assert "The file does not fit" in text
    status, text, _ = await _send_file(admin, "/console/import/users", b"name\n\xff\xfe\n")
    assert (status, "UTF-8" in text) == (400, True)
    status, text, _ = await send(admin, "/console/import/users", csv="name\nsome-admin\n", plan="forged")
    assert status == 400


# --- groups and roles ---------------------------------------------------------------------------------------------------


async def test_groups_are_a_tree_with_shares(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert (await send(admin, "/console/groups", name="faculty", weight="3"))[0] == 303
    assert (await send(admin, "/console/groups", name="physics", parent="faculty", weight="1"))[0] == 303
    assert (await send(admin, "/console/groups", name="optics", parent="faculty", weight="3"))[0] == 303
    text = await page(admin, "/console/groups")
    assert '<span class="unseen"> in faculty</span>' in text
    assert "75 %" in text
    assert (await send(admin, "/console/groups/optics/change", parent="physics", weight="2", paused="yes"))[0] == 303
    (group,) = (one for one in (await house.root.ListGroups()).groups if one.name == "optics")
    assert (group.parent_name, group.weight_milli, group.paused) == ("physics", 2000, True)
    assert (await send(admin, "/console/groups/optics/remove"))[0] == 400
    assert (await send(admin, "/console/groups/optics/remove", sure="yes"))[0] == 303
    await page(admin, "/console/groups/optics", status=404)


async def test_what_new_members_start_with_is_set(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddGroup(name="freshmen")
    path = "/console/groups/freshmen"
    assert (await send(admin, f"{path}/members", requests_per_minute="30", concurrency="2"))[0] == 303
    budget = {"unit": "tokens", "amount": "500000", "period": "month", "time_zone": "Europe/Berlin"}
    assert (await send(admin, f"{path}/member-budgets", **budget))[0] == 303
    text = await page(admin, path)
    assert "500k tokens a month, Europe/Berlin" in text
    (limits,) = (await house.root.ShowMemberLimits(group="freshmen")).limits
    assert (limits.requests_per_minute, limits.concurrency) == (30, 2)
    assert not limits.HasField("tokens_per_minute")
    assert (await send(admin, f"{path}/member-budgets/remove", sure="yes"))[0] == 303
    assert not (await house.root.ShowMemberLimits(group="freshmen")).limits[0].budgets


async def test_the_university_set_is_made_once_that_is_ticked(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    assert (await send(admin, "/console/group-presets", preset="university"))[0] == 400
    assert (await send(admin, "/console/group-presets", preset="university", sure="yes"))[0] == 303


async def test_a_role_of_ones_own_is_made_changed_and_removed(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    sent = {"name": "night-watch", "about": "looks at night", "permissions": "fleet:read", "others": "ShowUsage:own"}
    status, _, after = await send(admin, "/console/roles", **sent)
    assert (status, after) == (303, "/console/roles/night-watch")
    assert "ShowUsage:own" in await page(admin, after)
    assert (await send(admin, f"{after}/change", about="at day", permissions="queue:read"))[0] == 303
    (role,) = (one for one in (await house.root.ListCustomRoles()).roles if one.name == "night-watch")
    assert (role.about, list(role.permissions)) == ("at day", ["queue:read"])
    assert (await send(admin, f"{after}/remove", sure="yes"))[0] == 303
    await page(admin, after, status=404)


async def test_the_matrix_says_which_role_may_what(house: House) -> None:
    text = await page(await house.of(Role.AUDITOR), "/console/roles")
    row = text.partition("<code>recordings:read</code>")[2].partition("</tr>")[0]
    assert [cell for cell in re.findall(r">(all|own|part|—)<", row)] == ["—", "all", "—", "all"]


# --- keys ---------------------------------------------------------------------------------------------------------------


async def test_a_key_is_made_for_somebody_and_its_secret_shown_once(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    sent = {
        "user": "some-member",
        "name": "for them",
        "expires_in": "30d",
        "allowed_models": "tiny\nllama*",
        "band": "batch",
    }
    await house.of(Role.MEMBER)
    status, text, _ = await send(admin, "/console/keys/new", **sent, calls="chat", labels="team=core")
    assert status == 200
    secret = re.search(r"fb-[\w]+-[\w]+", text)
    assert secret is not None
    (key,) = (await house.root.ListKeys(user="some-member", text="for them")).keys
    assert (list(key.allowed_models), dict(key.labels), list(key.terms.calls)) == (
        ["tiny", "llama*"],
        {"team": "core"},
        ["chat"],
    )
    assert secret[0] not in await page(admin, f"/console/keys/{key.id}")
    assert "for them" in await page(admin, "/console/keys?text=for+them&state=active&label=team%3Dcore")


async def test_a_keys_life_is_changed_from_its_page(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    key = (await house.root.CreateKey(user="some-admin", name="living", description="d", labels={"a": "b"})).key
    path = f"/console/keys/{key.id}"

    async def now() -> str:
        (found,) = (await house.root.ListKeys(text=key.id, include_revoked=True)).keys
        return str(found)

    terms = {"name": "renamed", "pools": "default\nother", "max_output_tokens": "100", "labels": "c=d", "audit": "full"}
    assert (await send(admin, f"{path}/terms", **terms))[0] == 303
    changed = await now()
    assert 'name: "renamed"' in changed
    assert "max_output_tokens: 100" in changed
    assert '"a"' not in changed
    assert (await send(admin, f"{path}/weight", weight="0.5"))[0] == 303
    assert "weight_milli: 500" in await now()
    assert (await send(admin, f"{path}/renew", expires_in="7d"))[0] == 303
    assert "expires soon" in await page(admin, path)
    assert (await send(admin, f"{path}/renew", expires_in=""))[0] == 303
    assert "expires_at_us" not in await now()
    status, text, _ = await send(admin, f"{path}/rotate", overlap="1h")
    assert status == 200
    assert "The secret before works until" in text
    assert (await send(admin, f"{path}/block", **{"reason": "asks too much", "for": "2h"}))[0] == 303
    assert "asks too much" in await page(admin, path)
    assert (await send(admin, f"{path}/unblock"))[0] == 303
    assert (await send(admin, f"{path}/revoke"))[0] == 400
    assert (await send(admin, f"{path}/revoke", sure="yes", now="yes"))[0] == 303
    assert "revoked" in await page(admin, path)
    assert key.id in await page(admin, "/console/keys?state=revoked")


async def test_a_file_of_keys_tells_each_secret_once(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    told = "user,name\nsome-admin,from a file\n"
    _, text, _ = await send(admin, "/console/import/keys", csv=told)
    plan = re.search(r'name="plan" value="([^"]+)"', text)
    assert plan is not None
    status, text, _ = await send(admin, "/console/import/keys", csv=told, plan=plan[1])
    assert status == 200
    assert re.search(r"fb-[\w]+-[\w]+", text)


async def test_keys_as_a_file_run_no_formula(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.CreateKey(user="some-admin", name="filed", description="=HYPERLINK(1)")
    status, text, _ = await admin.get("/console/keys.csv?text=HYPERLINK", headers=HTML)
    (row,) = csv.DictReader(io.StringIO(text))
    assert (status, row["description"]) == (200, "'=HYPERLINK(1)")


# --- limits, budgets, balances ------------------------------------------------------------------------------------------


async def test_limits_and_budgets_of_a_user_are_set_and_shown(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="limited-leo")
    path = "/console/limits/user/limited-leo"
    assert (await send(admin, path, requests_per_minute="60", tokens_per_minute="1,000"))[0] == 303
    budget = {"unit": "money", "amount": "25.50", "period": "month", "time_zone": "Europe/Berlin", "carry_most": "5"}
    assert (await send(admin, f"{path}/budgets", **budget))[0] == 303
    (quota,) = (one for one in (await house.root.ListQuotas()).quotas if one.name == "limited-leo")
    assert (quota.requests_per_minute, quota.tokens_per_minute) == (60, 1000)
    (made,) = quota.budgets
    assert (made.amount, made.time_zone, made.carry_most) == (25_500_000, "Europe/Berlin", 5_000_000)
    text = await page(admin, "/console/budgets?text=limited-leo")
    assert "0.00 spent, 25.50 free of 25.50" in text
    one = f"/console/budgets/{made.id}"
    assert (await send(admin, f"{one}/size", amount="30", carry_most=""))[0] == 303
    (quota,) = (one for one in (await house.root.ListQuotas()).quotas if one.name == "limited-leo")
    assert (quota.budgets[0].amount, quota.budgets[0].HasField("carry_most")) == (30_000_000, False)
    assert (await send(admin, f"{one}/thresholds", way="these", percents="60, 90"))[0] == 303
    assert "at 60 %, 90 %" in await page(admin, one)
    assert (await send(admin, f"{one}/thresholds", way="usual"))[0] == 303
    _, text, _ = await admin.get("/console/budgets.csv?text=limited-leo", headers=HTML)
    assert [row["amount"] for row in csv.DictReader(io.StringIO(text))] == ["30000000"]
    assert (await send(admin, f"{one}/remove"))[0] == 400
    assert (await send(admin, f"{one}/remove", sure="yes"))[0] == 303
    await page(admin, one, status=404)


async def test_limits_of_what_there_is_not_are_not_found(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await page(admin, "/console/limits/planet/mars", status=404)
    await page(admin, "/console/limits/user/nobody-here", status=404)


async def test_a_balance_is_opened_posted_to_and_closed(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.root.AddUser(name="paying-paula")
    status, _, path = await send(admin, "/console/balances", kind="user", name="paying-paula", amount="100")
    assert status == 303
    assert (await send(admin, f"{path}/post", kind="top_up", amount="12.34", reference="bill 7", note="thanks"))[
        0
    ] == 303
    assert (await send(admin, f"{path}/post", kind="adjustment", amount="-2.34"))[0] == 303
    text = await page(admin, path)
    assert "110.00" in text
    assert "bill 7" in text
    assert (await send(admin, f"{path}/post", kind="top_up", amount="12.34", reference="bill 7", note="thanks"))[
        0
    ] == 303
    assert "nothing changed" in await page(admin, path)
    assert "paying-paula" in await page(admin, "/console/balances")
    assert (await send(admin, f"{path}/close"))[0] == 400
    assert (await send(admin, f"{path}/close", sure="yes"))[0] == 303
    assert "paying-paula" not in (await page(admin, "/console/balances")).partition("<table")[2]
    assert "paying-paula" in (await page(admin, "/console/balances?closed=yes")).partition("<table")[2]


# --- requests -----------------------------------------------------------------------------------------------------------


async def test_what_somebody_asks_for_is_done_or_refused_with_a_word(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    await house.signed_in("asking-anna")
    key = await house.root.CreateKey(user="asking-anna", name="k")
    theirs = await house.admin.operator(key.secret)
    first = (await theirs.RequestQuota(wish={"limits": {"requests_per_minute": 77}}, reason="a demo on Friday")).request
    second = (await theirs.RequestQuota(wish={"limits": {"concurrency": 9}}, reason="more at once")).request
    text = await page(admin, "/console/requests")
    assert "Requests per minute: 77" in text
    assert "a demo on Friday" in text
    path = "/console/requests/quota"
    assert (await send(admin, f"{path}/{first.id}", decision="approve", answer="good luck"))[0] == 303
    status, text, _ = await send(admin, f"{path}/{second.id}", decision="refuse")
    assert (status, f'id="f-quota-{second.id}-answer-error"' in text) == (400, True)
    assert (await send(admin, f"{path}/{second.id}", decision="refuse", answer="not now"))[0] == 303
    assert "Nobody asks for more" in await page(admin, "/console/requests")
    text = await page(admin, "/console/requests?decided=yes")
    assert "good luck" in text
    assert "not now" in text
    status, text, _ = await send(admin, f"{path}/{first.id}", decision="approve")
    assert status == 400


async def test_who_asks_to_be_let_in_is_let_in_or_refused(house: House) -> None:
    admin, nobody = await house.of(Role.ADMIN), await house.nobody()
    for name in ("Ada", "Bob"):
        asked = {"name": name, "mail": f"{name.lower()}@example.org", "reason": "<b>a thesis</b>"}
        assert (await nobody.submit("/request-access", **asked))[0] == 303
    text = await page(admin, "/console/requests")
    assert "&lt;b&gt;a thesis&lt;/b&gt;" in text
    asked_by = {one.name: one.id for one in (await house.root.ListAccessRequests()).requests}
    path = "/console/requests/access"
    status, text, _ = await send(admin, f"{path}/{asked_by['Ada']}", decision="approve", user="ada", group="students")
    assert status == 200
    assert "token=" in text
    assert "token=" not in await page(admin, "/console/requests")
    assert (await house.root.ListUsers(name="ada")).users[0].group_name == "students"
    status, text, _ = await send(admin, f"{path}/{asked_by['Bob']}", decision="refuse")
    assert (status, f'id="f-access-{asked_by["Bob"]}-answer-error"' in text) == (400, True)
    assert (await send(admin, f"{path}/{asked_by['Bob']}", decision="refuse", answer="no thesis"))[0] == 303
    assert "Nobody asks to be let in" in await page(admin, "/console/requests")
    assert "no thesis" in await page(admin, "/console/requests?decided=yes")


WRONG = (
    Wrong("/console/users", "add", "name", {"group": "kept-group"}),
    Wrong("/console/users", "add", "name", {"name": "no/slash*", "group": "kept"}),
    Wrong("/console/users", "add", "name", {"name": "some-admin"}),
    Wrong("/console/users", "add", "role", {"name": "fine", "role": "emperor"}),
    Wrong("/console/service-accounts", "service", "owner_group", {"name": "fine-robot"}),
    Wrong("/console/service-accounts", "service", "name", {"name": "fine-robot", "owner_group": "no-such"}),
    Wrong("/console/users/some-admin/rights", "rights", "role", {"role": "emperor"}),
    Wrong("/console/users/some-admin/share", "share", "weight", {"group": "everyone", "weight": "heavy"}),
    Wrong("/console/users/some-admin/share", "share", "weight", {"group": "everyone", "weight": "0"}),
    Wrong("/console/users/some-admin/share", "share", "weight", {"group": "everyone", "weight": "NaN"}),
    Wrong("/console/users/some-admin/share", "share", "max_queued", {"group": "everyone", "max_queued": "-3"}),
    Wrong("/console/users/some-admin/share", "share", "group", {"group": "no-such"}),
    Wrong("/console/users/some-admin/disable", "disable", "sure", {}),
    Wrong("/console/groups", "add", "name", {"weight": "2"}),
    Wrong("/console/groups", "add", "name", {"name": "everyone", "weight": "2"}),
    Wrong("/console/groups", "add", "weight", {"name": "fine", "weight": "1.2345"}),
    Wrong("/console/groups/everyone/change", "change", "parent", {"parent": "everyone", "weight": "3"}),
    Wrong("/console/groups/everyone/members", "members", "concurrency", {"concurrency": "few"}),
    Wrong("/console/groups/everyone/member-budgets", "member-budget", "amount", {"unit": "tokens", "amount": "none"}),
    Wrong("/console/groups/everyone/member-budgets", "member-budget", "window", {"amount": "5", "period": "window"}),
    Wrong("/console/groups/everyone/remove", "remove", "sure", {"sure": "yes"}),
    Wrong("/console/roles", "add", "name", {"about": "kept"}),
    Wrong("/console/roles", "add", "name", {"name": "admin", "permissions": "users:read", "about": "kept"}),
    Wrong("/console/roles", "add", "name", {"name": "fine", "others": "FlyToTheMoon", "about": "kept"}),
    Wrong("/console/keys/new", "new", "user", {"name": "kept"}),
    Wrong("/console/keys/new", "new", "name", {"user": "some-admin"}),
    Wrong("/console/keys/new", "new", "expires_in", {"user": "some-admin", "name": "k", "expires_in": "soon"}),
    Wrong("/console/keys/new", "new", "labels", {"user": "some-admin", "name": "k", "labels": "no equals"}),
    Wrong("/console/keys/new", "new", "band", {"user": "some-admin", "name": "k", "band": "vip"}),
    Wrong("/console/keys/new", "new", "max_output_tokens", {"user": "some-admin", "name": "k", "max_output_tokens": "0"}),
    Wrong("/console/keys/new", "new", "name", {"user": "no-such", "name": "k"}),
    Wrong("/console/limits/user/some-admin", "limits", "requests_per_minute", {"requests_per_minute": "0"}),
    Wrong("/console/limits/user/some-admin/budgets", "budget", "amount", {"unit": "money", "amount": "1.2345678"}),
    Wrong("/console/limits/user/some-admin/budgets", "budget", "period", {"amount": "5", "period": "eon"}),
    Wrong("/console/limits/user/some-admin/budgets", "budget", "unit", {"amount": "5", "unit": "bananas"}),
    Wrong("/console/limits/user/some-admin/budgets", "budget", "amount", {"amount": "5", "time_zone": "Mars/Base"}),
    Wrong("/console/balances", "open", "name", {"amount": "5"}),
    Wrong("/console/balances", "open", "kind", {"name": "some-admin", "kind": "key"}),
    Wrong("/console/balances", "open", "amount", {"name": "some-admin", "amount": "-5"}),
    Wrong("/console/balances", "open", "name", {"name": "no-such", "amount": "5"}),
    Wrong("/console/import/users", "import", "csv", {}),
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
async def test_what_is_wrong_in_a_form_stands_beside_its_field_and_what_was_typed_stays(
    house: House, wrong: Wrong
) -> None:
    await demand_refused(await house.of(Role.ADMIN), wrong)


async def test_what_is_wrong_in_a_form_of_a_key_stands_beside_its_field(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    key = (await house.root.CreateKey(user="some-admin", name="wronged")).key
    path = f"/console/keys/{key.id}"
    for wrong in (
        Wrong(f"{path}/terms", "terms", "name", {"description": "kept"}),
        Wrong(f"{path}/terms", "terms", "audit", {"name": "k", "audit": "some"}),
        Wrong(f"{path}/weight", "weight", "weight", {"weight": ""}),
        Wrong(f"{path}/renew", "renew", "expires_in", {"expires_in": "never"}),
        Wrong(f"{path}/rotate", "rotate", "overlap", {"overlap": "x"}),
        Wrong(f"{path}/block", "block", "reason", {"for": "2h"}),
        Wrong(f"{path}/block", "block", "for", {"reason": "kept", "for": "two hours"}),
        Wrong(f"{path}/revoke", "revoke", "sure", {}),
    ):
        await demand_refused(admin, wrong)


async def test_what_is_wrong_in_a_form_of_a_budget_or_balance_stands_beside_its_field(house: House) -> None:
    admin = await house.of(Role.ADMIN)
    subject = {"user": "some-admin"}
    budget = (await house.root.AddBudget(subject=subject, unit="BUDGET_UNIT_TOKENS", amount=5)).budget
    balance = (await house.root.OpenBalance(owner=subject)).balance
    path, account = f"/console/budgets/{budget.id}", f"/console/balances/{balance.id}"
    for wrong in (
        Wrong(f"{path}/size", "size", "amount", {"amount": "0"}),
        Wrong(f"{path}/size", "size", "carry_most", {"amount": "7", "carry_most": "much"}),
        Wrong(f"{path}/thresholds", "thresholds", "percents", {"percents": "fifty"}),
        Wrong(f"{path}/remove", "remove", "sure", {}),
        Wrong(f"{account}/post", "post", "amount", {"kind": "top_up", "amount": "-1", "note": "kept"}),
        Wrong(f"{account}/post", "post", "kind", {"kind": "gift", "amount": "1"}),
        Wrong(f"{account}/close", "close", "sure", {}),
    ):
        await demand_refused(admin, wrong)


def _named(text: str) -> list[str]:
    """Users in the list of a page."""
    table = text.partition("<tbody>")[2].partition("</tbody>")[0]
    return re.findall(r'<th scope="row"><a href="[^"]+">([^<]+)</a>', table)


async def _send_file(browser: Browser, path: str, content: bytes) -> tuple[int, str, str]:
    """As a browser sends a form with a file in it."""
    form = aiohttp.FormData()
    form.add_field("csrf", await browser.csrf())
    form.add_field("csv", "")
    form.add_field("file", content, filename="people.csv", content_type="text/csv")
    headers = {**HTML, "origin": browser.url}
    async with browser.session.post(
        f"{browser.url}{path}", data=form, headers=headers, allow_redirects=False
    ) as answer:
        return answer.status, await answer.text(), answer.headers.get("location", "")
