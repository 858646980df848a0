"""What everybody sees: how the cluster is, which models there are, and how one asks to be let in."""

from __future__ import annotations

import asyncio

import pytest

from forebay.wire.v1 import access_requests_pb2
from forebay_admin.people.people import Role
from tests.admin.test_operator import query
from tests.admin.web.conftest import HTML, House, page

pytestmark = pytest.mark.asyncio(loop_scope="module")

# --- pages -------------------------------------------------------------------------------------------------------------


async def test_the_status_page_is_everybodys_and_lives_on(house: House) -> None:
    await house.root.RegisterBackend(name="status-one", url="http://127.0.0.1:1", pool="default")
    nobody = await house.nobody()
    text = await page(nobody, "/")
    assert 'data-live="status"' in text
    assert "Engines well" in text
    assert "status-one" not in text, "no name of a backend"
    assert "127.0.0.1:1" not in text
    async with nobody.session.get(f"{nobody.url}/live?topics=status") as answer:
        assert answer.status == 200
        async with asyncio.timeout(60):
            told = b""
            while b"event: status" not in told:
                told += await answer.content.readany()
    for span in ("hour", "day", "week", "nonsense"):
        assert "Trends" in await page(nobody, f"/?span={span}")


async def test_plots_are_to_be_had_as_numbers(house: House) -> None:
    nobody = await house.nobody()
    for of in ("tokens", "requests", "users"):
        status, told = await nobody.call("GET", f"/status/{of}.json?span=hour")
        assert status == 200
        assert len(told["t"]) == len(told["series"][0]["values"]) == 60
    for path in ("/status/nonsense.json", "/status/tokens.json?span=year"):
        assert (await nobody.get(path))[0] == 400


async def test_models_are_listed_for_everybody_with_prices_for_who_is_signed_in(house: House) -> None:
    await house.root.RegisterBackend(name="models-one", url="http://127.0.0.1:2", pool="default")
    await house.root.SetPrice(model="tiny", terms={"prompt_micros": 1_500_000})
    nobody, member, operator = await house.nobody(), await house.of(Role.MEMBER), await house.of(Role.OPERATOR)
    async with asyncio.timeout(60):
        while "models-one" not in (await operator.get("/models/tiny", headers=HTML))[1]:
            await asyncio.sleep(0.1)  # what was found out for others is told for a while
    text = await page(nobody, "/models?q=tiny")
    assert "tiny" in text
    assert "1.50" not in text
    assert "models-one" not in text
    text = await page(member, "/models/tiny")
    assert "1.50 for a million tokens" in text
    assert "models-one" not in text
    assert "/v1/chat/completions" in text
    assert "No model is like that" in await page(nobody, "/models?q=%3Cscript%3E")
    await page(nobody, "/models/nonsense", status=404)
    await page(nobody, f"/models?q={'x' * 300}", status=400)


async def test_where_the_status_is_nobodys_business_one_signs_in_first(house: House) -> None:
    # A second replica of the same admin, which is told so.
    async with house.another(public_status=False) as private:
        nobody = await house.nobody(private)
        assert (await nobody.get("/", headers=HTML))[0::2] == (303, "/sign-in")
        assert (await nobody.get("/models", headers=HTML))[0::2] == (303, "/sign-in?next=%2Fmodels")
        assert (await nobody.get("/live?topics=status"))[0] == 403
        assert (await nobody.get("/status/tokens.json"))[0] == 403


# --- asking for access -------------------------------------------------------------------------------------------------

ASKED = {"name": "Ada L.", "mail": "ada@example.org", "reason": "A course on\nmachines."}


async def test_who_asks_is_kept_told_and_let_in(house: House) -> None:
    nobody = await house.nobody()
    assert "What you need it for" in await page(nobody, "/request-access")
    for _ in range(2):  # the same mail address is kept once, and nobody learns of it
        status, _, onward = await nobody.submit("/request-access", **ASKED)
        assert (status, onward) == (303, "/request-access")
    assert "Your request is kept" in await page(nobody, "/request-access")
    (kept,) = (await house.root.ListAccessRequests()).requests
    assert (kept.name, kept.mail, kept.reason) == (ASKED["name"], ASKED["mail"], ASKED["reason"])
    assert kept.state == access_requests_pb2.ACCESS_REQUEST_STATE_OPEN
    (event,) = (await house.root.ListEvents(kind="access.asked")).events
    assert "ada@example.org" in event.event.summary
    done = await house.root.DecideAccessRequest(id=kept.id, approve=True, group="students", answer="welcome")
    assert done.request.user_name == "ada@example.org"
    token = done.url.partition("?token=")[2]
    assert (await nobody.submit("/sign-in/password", token=token, password="a course on machines"))[0] == 200
    signed = await nobody.submit("/sign-in", name="ada@example.org", password="a course on machines")
    assert signed[0::2] == (303, "/me")
    assert not (await house.root.ListAccessRequests()).requests
    (kept,) = (await house.root.ListAccessRequests(include_decided=True)).requests
    assert (kept.answer, kept.decided_by) == ("welcome", "admin")
    rows = await query(house.admin, "SELECT action, after FROM admin.audit_log WHERE action LIKE 'access.%'")
    assert [row["action"] for row in rows] == ["access.approve"]
    assert token not in repr([dict(row) for row in rows])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "a\x07b"),
        ("mail", ""),
        ("mail", "nonsense"),
        ("mail", "a@b"),
        ("mail", f"{'x' * 70}@example.org"),
        ("mail", "a@example.org\nbcc: b@example.org"),
        ("reason", ""),
        ("reason", "x" * 1001),
    ],
)
async def test_a_wrong_answer_is_told_beside_its_field_and_the_others_stay(
    house: House, field: str, value: str
) -> None:
    nobody = await house.nobody()
    status, text, _ = await nobody.submit("/request-access", **{**ASKED, "mail": "new@example.org", field: value})
    assert status == 400, text
    assert f'id="f-{field}-error"' in text
    assert not [one for one in (await house.root.ListAccessRequests()).requests if one.mail == "new@example.org"]


async def test_a_page_of_another_site_asks_for_nobody(house: House) -> None:
    nobody = await house.nobody()
    assert (await nobody.submit("/request-access", origin="https://evil.example", **ASKED))[0] == 403


async def test_who_asks_again_and_again_waits(house: House) -> None:
    async with house.another() as other:  # whose pace is its own
        nobody = await house.nobody(other)
        statuses = []
        for number in range(8):
            asked = {**ASKED, "mail": f"again-{number}@example.org"}
            statuses.append((await nobody.submit("/request-access", **asked))[0])
        assert statuses[0] == 303
        assert statuses[-1] in (409, 429)
        kept = [one for one in (await house.root.ListAccessRequests()).requests if one.mail.startswith("again-")]
        assert len(kept) <= 5
        for one in kept:
            await house.root.DecideAccessRequest(id=one.id, answer="no")


async def test_who_decides_is_told_what_cannot_be(house: House) -> None:
    nobody = await house.nobody()
    asked = {**ASKED, "mail": "twice@example.org"}
    assert (await nobody.submit("/request-access", **asked))[0] == 303
    (kept,) = (await house.root.ListAccessRequests()).requests
    await house.root.AddUser(name="twice@example.org")
    with pytest.raises(Exception, match="ALREADY_EXISTS"):
        await house.root.DecideAccessRequest(id=kept.id, approve=True)
    await house.root.DecideAccessRequest(id=kept.id)
    with pytest.raises(Exception, match="already"):
        await house.root.DecideAccessRequest(id=kept.id, approve=True)
    with pytest.raises(Exception, match="NOT_FOUND"):
        await house.root.DecideAccessRequest(id="access_nonsense")


async def test_nobody_but_an_admin_decides(house: House) -> None:
    member, auditor = await house.of(Role.MEMBER), await house.of(Role.AUDITOR)
    assert (await member.call("GET", "/api/v1/access-requests"))[0] == 403
    assert (await auditor.call("GET", "/api/v1/access-requests"))[0] == 200
    csrf = {"x-forebay-csrf": await auditor.csrf()}
    body = {"approve": True}
    assert (await auditor.call("PUT", "/api/v1/access-requests/access_x/decision", body, **csrf))[0] == 403
