"""One's own pages, on a real admin: what they show, what their forms do, and that they are nobody else's."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from forebay_admin.people.people import Role
from tests.admin.test_operator import query
from tests.admin.test_usage_queries import enter, opened, record
from tests.admin.web.conftest import HTML, PASSWORD, House, page, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = (
    "/me",
    "/me/keys",
    "/me/keys/new",
    "/me/usage",
    "/me/limits",
    "/me/sessions",
    "/me/preferences",
    "/me/export",
)


@pytest.mark.parametrize("role", list(Role))
async def test_everybody_has_their_own_pages(house: House, role: Role) -> None:
    browser = await house.of(role)
    for path in PAGES:
        text = await page(browser, path)
        assert "<h1>" in text


async def test_nobody_is_sent_to_sign_in_and_comes_back(house: House) -> None:
    nobody = await house.nobody()
    for path in PAGES:
        status, _, onward = await nobody.get(path, headers=HTML)
        assert (status, onward) == (303, f"/sign-in?next={path.replace('/', '%2F')}")


# --- keys --------------------------------------------------------------------------------------------------------------


async def test_a_key_is_made_shown_once_changed_rotated_and_revoked(house: House) -> None:
    await house.root.RegisterBackend(name="keys-one", url="http://127.0.0.1:7", pool="default")
    browser = await house.signed_in("kay")
    status, text, _ = await send(
        browser, "/me/keys/new", name="laptop", models="tiny", days="3", addresses="127.0.0.0/8", max_output="100"
    )
    assert status == 200
    secret = re.search(r"fb-[0-9a-f]+-[A-Za-z0-9_-]{20,}", text)
    assert secret is not None
    key_id = secret[0].split("-")[1]
    for snippet in ("chat/completions", f"/k/{secret[0]}", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "ollama run tiny"):
        assert snippet in text, snippet
    for path in ("/me/keys", f"/me/keys/{key_id}", "/me"):
        text = await page(browser, path)
        assert secret[0] not in text
        assert "expires soon" in text
    (kept,) = (await house.root.ListKeys(user="kay")).keys
    assert (kept.name, list(kept.allowed_models), kept.terms.max_output_tokens) == ("laptop", ["tiny"], 100)
    # Renamed and narrowed; wider is refused beside the form, and what was typed stays.
    path = f"/me/keys/{key_id}"
    same = {"models": "tiny", "addresses": "127.0.0.0/8", "max_output": "50"}
    assert (await send(browser, f"{path}/terms", name="desk", **same))[0::2] == (303, path)
    assert (await house.root.ListKeys(user="kay")).keys[0].name == "desk"
    status, text, _ = await send(browser, f"{path}/terms", name="desk", models="tiny, huge", max_output="50")
    assert status in (400, 403)
    assert (await house.root.ListKeys(user="kay")).keys[0].terms.max_output_tokens == 50
    assert (await send(browser, f"{path}/renew", days="365"))[0] == 303
    assert "expires soon" not in await page(browser, path)
    status, text, _ = await send(browser, f"{path}/rotate", overlap="3600")
    assert status == 200
    assert f"fb-{key_id}-" in text
    assert secret[0] not in text
    assert "works until" in text
    # Revoked only when it is meant.
    status, text, _ = await send(browser, f"{path}/revoke")
    assert (status, "Tick this first" in text) == (400, True)
    assert (await send(browser, f"{path}/revoke", sure="yes", now="yes"))[0::2] == (303, "/me/keys")
    assert "/me/keys/" + key_id not in await page(browser, "/me/keys")
    assert "revoked" in await page(browser, "/me/keys?revoked=1")
    rows = await query(
        house.admin,
        "SELECT action, interface FROM admin.audit_log WHERE actor = 'kay' AND action LIKE 'key.%' ORDER BY id",
    )
    assert [(row["action"], row["interface"]) for row in rows] == [
        ("key.create", "web"),
        ("key.terms", "web"),
        ("key.renew", "web"),
        ("key.rotate", "web"),
        ("key.revoke", "web"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": "x" * 101},
        {"name": "x", "addresses": "nonsense"},
        {"name": "x", "models": "a\x01b"},
        {"name": "x", "days": "99999999"},
        {"name": "x", "calls": "dance"},
        {"name": "x", "band": "system"},
        {"name": "x", "max_output": "-1"},
        {"name": "x", "description": "y" * 1001},
    ],
)
async def test_a_key_that_cannot_be_is_told_on_the_same_page(house: House, fields: dict[str, str]) -> None:
    browser = await house.signed_in("kim")
    status, text, _ = await send(browser, "/me/keys/new", **fields)
    assert status == 400, text
    assert "That was not accepted" in text
    assert f'value="{fields.get("name", "")}"' in text
    assert not (await house.root.ListKeys(user="kim")).keys


async def test_nobody_sees_or_changes_anothers_key_not_even_an_admin_here(house: House) -> None:
    await house.signed_in("owner")
    made = await house.root.CreateKey(user="owner", name="precious")
    for role in Role:
        browser = await house.of(role)
        await page(browser, f"/me/keys/{made.key.id}", status=404)
        for what in ("terms", "renew", "rotate", "revoke"):
            status, _, _ = await send(browser, f"/me/keys/{made.key.id}/{what}", name="x", sure="yes")
            assert status == 404, (role, what)
    assert (await house.root.ListKeys(user="owner")).keys[0].name == "precious"


async def test_names_are_escaped(house: House) -> None:
    browser = await house.signed_in("mallory")
    await send(browser, "/me/keys/new", name="<script>alert(1)</script>")
    for path in ("/me/keys", "/me", "/me/limits"):
        assert "<script>alert" not in await page(browser, path)


# --- usage and limits --------------------------------------------------------------------------------------------------


async def test_usage_is_a_page_a_plot_and_a_file(house: House) -> None:
    browser = await house.signed_in("ursula")
    for span in ("day", "week", "month", "year"):
        await page(browser, f"/me/usage?span={span}&key=none&model=tiny")
        for of in ("tokens", "requests", "cost"):
            status, told = await browser.call("GET", f"/me/usage/{of}.json?span={span}")
            assert (status, len(told["t"])) == (200, len(told["series"][0]["values"]))
    status, text, _ = await browser.get("/me/usage.csv?span=month")
    assert status == 200
    assert next(csv.reader(io.StringIO(text)))[:4] == ["day", "model", "key_id", "key_name"]
    for path in (
        "/me/usage?span=century",
        "/me/usage/nonsense.json",
        "/me/usage.csv?span=x",
        f"/me/usage?key={'k' * 200}",
    ):
        assert (await browser.get(path, headers=HTML))[0] == 400, path


async def test_the_ledger_is_asked_once_for_usage_and_all_that_is_drawn_of_it(house: House) -> None:
    browser = await house.signed_in("una")
    user = (await query(house.admin, "SELECT id FROM admin.users WHERE name = 'una'"))[0][0]
    now = datetime.now(UTC)
    rows = [("small", "k1", 0), ("large", "k1", 0), ("small", "k2", 1), ("small", "k2", 1)]
    async with opened(house.admin.site) as database:
        records = [
            record(now - timedelta(days=days, minutes=5), user_id=user, model=model, key_id=key)
            for model, key, days in rows
        ]
        await enter(database, records)
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "WITH sums AS" in statement:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        text = await page(browser, "/me/usage?span=week")
        drawn = [await browser.call("GET", f"/me/usage/{of}.json?span=week") for of in ("tokens", "requests", "cost")]
        assert len(asked) == 1
        narrowed = await browser.call("GET", "/me/usage/requests.json?span=week&model=small")
        assert len(asked) == 2
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    found = {name: tuple(numbers) for name, *numbers in _ROW.findall(text)}
    assert found == {"small": ("3", "45"), "large": ("1", "15"), "k1": ("2", "30"), "k2": ("2", "30")}
    assert [status for status, _ in drawn] == [200, 200, 200]
    assert sum(drawn[1][1]["series"][0]["values"]) == 4
    assert sum(narrowed[1]["series"][0]["values"]) == 3


async def test_each_of_the_latest_requests_leads_to_what_became_of_it(house: House) -> None:
    browser = await house.signed_in("ottilie")
    user = (await query(house.admin, "SELECT id FROM admin.users WHERE name = 'ottilie'"))[0][0]
    async with opened(house.admin.site) as database:
        await enter(database, [record(datetime.now(UTC), user_id=user, request_id="a/b c", model="tiny-of-ottilie")])
    for path in ("/me", "/me/usage"):
        (explained,) = re.findall(r'<a href="(/console/explain/[^"]+)">a/b c</a>', await page(browser, path))
        assert "tiny-of-ottilie" in await page(browser, explained)
    await page(await house.signed_in("ulf"), explained, status=404)


_ROW = re.compile(
    r'<a href="/me/usage\?[^"]*(?:model|key)=[^"]*">(\w+)</a>.*?<td class="number">(\d+)</td><td class="number">(\d+)</td>'
)


async def test_what_is_drawn_of_somebody_is_not_drawn_for_another(house: House) -> None:
    one, other = await house.signed_in("una"), await house.signed_in("ulf")
    await page(one, "/me/usage?span=week")
    _, told = await other.call("GET", "/me/usage/requests.json?span=week")
    assert sum(told["series"][0]["values"]) == 0


async def test_limits_are_shown_and_more_is_asked_for(house: House) -> None:
    browser = await house.signed_in("lin")
    await house.root.SetLimits(subject={"user": "lin"}, requests_per_minute={"most": 60})
    budget = (await house.root.AddBudget(subject={"user": "lin"}, unit="BUDGET_UNIT_TOKENS", amount=5000)).budget
    await house.root.OpenBalance(owner={"user": "lin"}, amount_micros=12_500_000)
    text = await page(browser, "/me/limits")
    for shown in ("Requests a minute", "0 tokens of 5,000 tokens", "12.50"):
        assert shown in text, shown
    assert (await send(browser, "/me/limits/limits", concurrency="9", reason="a demo"))[0] == 303
    assert (await send(browser, "/me/limits/budget", budget=budget.id, amount="9000", reason="a thesis"))[0] == 303
    asked = (await house.root.ListQuotaRequests(user="lin")).requests
    assert {one.reason for one in asked} == {"a demo", "a thesis"}
    demo = next(one for one in asked if one.reason == "a demo")
    await house.root.DecideQuotaRequest(id=demo.id, approve=False, answer="not this week")
    text = await page(browser, "/me/limits")
    assert "not this week" in text
    assert "Requests at once" in text


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("limits", {"reason": "x"}),
        ("limits", {"concurrency": "9"}),
        ("limits", {"concurrency": "many", "reason": "x"}),
        ("limits", {"concurrency": str(2**40), "reason": "x"}),
        ("limits", {"concurrency": "9", "reason": "x" * 1001}),
        ("limits", {"concurrency": "9", "reason": "x", "key": "nonsense"}),
        ("budget", {"budget": "nonsense", "amount": "1", "reason": "x"}),
    ],
)
async def test_a_wish_that_cannot_be_is_told_on_the_same_page(house: House, path: str, fields: dict[str, str]) -> None:
    browser = await house.signed_in("lou")
    status, text, _ = await send(browser, f"/me/limits/{path}", **fields)
    assert status == 400, text
    assert "That was not accepted" in text
    assert not (await house.root.ListQuotaRequests(user="lou")).requests


# --- sessions ----------------------------------------------------------------------------------------------------------


async def test_sessions_are_ended_one_and_all_but_this(house: House) -> None:
    browser = await house.signed_in("sam")
    others = [await house.nobody() for _ in range(3)]
    for other in others:
        assert (await other.submit("/sign-in", name="sam", password=PASSWORD))[0::2] == (303, "/me")
    text = await page(browser, "/me/sessions")
    assert text.count("a browser") == 4
    ids = re.findall(r'name="id" value="([0-9a-f]+)"', text)
    this = (await browser.call("GET", "/sign-in/me"))[1]["session_id"]
    one = next(found for found in ids if found != this)
    assert (await send(browser, "/me/sessions/end", id=one))[0] == 303
    assert (await send(browser, "/me/sessions/end", id="nonsense"))[0] == 404
    assert (await send(browser, "/me/sessions/end-others"))[0] == 400
    assert (await send(browser, "/me/sessions/end-others", sure="yes"))[0] == 303
    assert [(await other.call("GET", "/sign-in/me"))[0] for other in others] == [401, 401, 401]
    assert (await browser.call("GET", "/sign-in/me"))[0] == 200
    # This one itself.
    assert (await send(browser, "/me/sessions/end", id=this))[0::2] == (303, "/sign-in")
    assert (await browser.call("GET", "/sign-in/me"))[0] == 401


async def test_nobody_ends_anothers_session_here(house: House) -> None:
    victim, admin = await house.signed_in("victim"), await house.of(Role.ADMIN)
    theirs = (await victim.call("GET", "/sign-in/me"))[1]["session_id"]
    assert (await send(admin, "/me/sessions/end", id=theirs))[0] == 404
    assert (await victim.call("GET", "/sign-in/me"))[0] == 200


async def test_a_narrow_token_is_made_shown_once_and_revoked(house: House) -> None:
    browser = await house.signed_in("tom")
    status, text, _ = await send(browser, "/me/sessions/tokens", name="ci", permissions="keys:read:own", days="7")
    assert status == 200
    secret = re.search(r"fbadm-[0-9a-f]+-[A-Za-z0-9_-]+", text)
    assert secret is not None, text
    headers = {"authorization": f"Bearer {secret[0]}"}
    nobody = await house.nobody()
    assert (await nobody.call("GET", "/api/v1/me", **headers))[0] == 200
    text = await page(browser, "/me/sessions")
    assert secret[0] not in text
    token_id = secret[0].split("-")[1]
    assert token_id in text
    for fields in ({"permissions": "keys:read:own"}, {"name": "x"}, {"name": "x", "permissions": "nonsense"}):
        status, _, _ = await send(browser, "/me/sessions/tokens", **fields)
        assert status in (400, 403), fields
    assert (await send(browser, "/me/sessions/tokens/revoke", id="nonsense"))[0] == 404
    assert (await send(browser, "/me/sessions/tokens/revoke", id=token_id))[0] == 303
    assert (await nobody.call("GET", "/api/v1/me", **headers))[0] == 401


# --- preferences and export --------------------------------------------------------------------------------------------


async def test_the_theme_is_kept_in_the_browser(house: House) -> None:
    browser = await house.signed_in("theo")
    assert (await send(browser, "/me/preferences/theme", theme="dark"))[0] == 303
    assert 'data-theme="dark"' in await page(browser, "/me/preferences")
    assert 'data-theme="dark"' in await page(browser, "/sign-in?next=%2Fme")
    assert (await send(browser, "/me/preferences/theme", theme="pink"))[0] == 400
    assert (await send(browser, "/me/preferences/theme", theme=""))[0] == 303
    assert "data-theme=" not in (await page(browser, "/me/preferences")).partition("<body")[0]


async def test_a_password_is_changed_by_who_knows_it(house: House) -> None:
    browser = await house.signed_in("pat")
    new = "staple and paper clip"
    for fields in (
        {"old": "", "new": new, "again": new},
        {"old": PASSWORD, "new": "", "again": ""},
        {"old": PASSWORD, "new": new, "again": "another one than that"},
        {"old": "wrong wrong wrong", "new": new, "again": new},
        {"old": PASSWORD, "new": "short", "again": "short"},
    ):
        status, text, _ = await send(browser, "/me/preferences/password", **fields)
        assert status == 400, fields
        assert "That was not accepted" in text
        assert not any(value in text for value in (new, PASSWORD, "wrong wrong wrong")), "none is shown again"
    assert (await send(browser, "/me/preferences/password", old=PASSWORD, new=new, again=new))[0] == 303
    other = await house.nobody()
    assert (await other.submit("/sign-in", name="pat", password=new))[0] == 303


async def test_ones_data_is_one_file_without_secrets_and_of_nobody_else(house: House) -> None:
    browser = await house.signed_in("eve")
    _, text, _ = await send(browser, "/me/keys/new", name="exported")
    secret = re.search(r"fb-[0-9a-f]+-([A-Za-z0-9_-]{20,})", text)
    assert secret is not None
    await house.root.CreateKey(user="admin", name="not-eves")
    csrf = {"x-forebay-csrf": await browser.csrf()}
    for title in ('About "stars"', "About fish"):
        status, _ = await browser.call("POST", "/chat/api/conversations", {"title": title}, **csrf)
        assert status in (200, 201)
    async with browser.session.get(f"{browser.url}/me/export.json") as answer:
        assert answer.status == 200
        assert "attachment" in answer.headers["content-disposition"]
        text = await answer.text()
    told = json.loads(text)
    assert told["user"] == "eve"
    assert [key["name"] for key in told["keys"]["keys"]] == ["exported"]
    assert told["identity"]["user"]["name"] == "eve"
    assert told["sessions"]["sessions"][0]["user_name"] == "eve"
    assert {one["title"] for one in told["conversations"]} == {'About "stars"', "About fish"}
    assert secret[1] not in text
    assert "not-eves" not in text
    admin = await house.of(Role.ADMIN)
    async with admin.session.get(f"{admin.url}/me/export.json") as answer:
        told = json.loads(await answer.text())
    assert {session["user_name"] for session in told["sessions"]["sessions"]} == {"some-admin"}
    assert not told["keys"]["keys"]
    assert not told["conversations"]
    assert {one["event"]["user_name"] for one in told["events"]} <= {"some-admin"}
