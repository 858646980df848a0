"""What somebody tries who means no good, or whose program is broken: it is refused, and nobody else notices."""

from __future__ import annotations

import asyncio
import io
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from yarl import URL

from forebay.clock import ManualClock
from forebay.ephemeral_keys import EphemeralSeal, Narrowing
from forebay.errors import Unavailable
from forebay.wire.v1 import usage_queries_pb2
from forebay_admin import service
from forebay_admin.chat import chat_desk, chat_store, conversation
from forebay_admin.chat.at_once import AtOnce
from forebay_admin.lately import FAILED_S, Lately
from forebay_admin.operator import OperatorServicer
from forebay_admin.people.people import Role
from forebay_admin.sign_in.access_requests_desk import AccessRequestsDesk
from forebay_admin.sign_in.badges import Badges
from forebay_admin.sign_in.bearers import BearerKind, csrf_token, is_csrf_token, new_bearer
from forebay_admin.sign_in.door import Door
from forebay_admin.sign_in.origin import ForeignPage, demand_own_page, own_page
from forebay_admin.sign_in.pace import Pace, TooOften
from forebay_admin.web import live
from forebay_admin.web.chat import chat_calls
from forebay_admin.web.fleet.model_forms import read_weight
from forebay_admin.web.fleet.orders_form import read_window
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.pages import Pages, open_pages
from forebay_admin.web.visit import LEFT_OPEN_HEADER
from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import HTML, House, send
from tests.admin.web.test_chat import ask, begun, words

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUERY = (
    *(
        "a",
        "actor",
        "action",
        "address",
        "after",
        "anchor",
        "as",
        "b",
        "before",
        "begins",
        "by",
        "can",
        "column",
        "deadline",
    ),
    *(
        "desc",
        "event",
        "for",
        "from",
        "group",
        "key",
        "kind",
        "kwh",
        "last",
        "metric",
        "mode",
        "model",
        "name",
        "network",
    ),
    *(
        "node",
        "of",
        "order",
        "outcome",
        "page",
        "pool",
        "q",
        "reason",
        "role",
        "since",
        "sort",
        "span",
        "state",
        "subject",
    ),
    *("subscription", "tab", "text", "then", "through", "to", "top", "until", "user", "version", "window", "zone"),
)
"""What pages read of their addresses."""
NASTY = (
    "%00",
    "%ED%A0%80",
    "a%0D%0Aset-cookie:x=1",
    "9" * 30,
    "%F0%9F%98%80",
    "9999-12-31T23:59:59",
    "0001-01-01",
    "-1",
)


FIELDS = (
    *(
        "action",
        "address",
        "addresses",
        "allowed_models",
        "amount",
        "answer",
        "band",
        "ban_after",
        "ban_first",
        "ban_longest",
    ),
    *("ban_window", "begins", "calls", "carry_most", "channel", "csv", "custom_roles", "days", "deadline", "decision"),
    *(
        "description",
        "expires_in",
        "file",
        "for",
        "gpus",
        "group",
        "id",
        "key",
        "kinds",
        "labels",
        "lasts",
        "list",
        "mail",
    ),
    *(
        "max_queued",
        "mode",
        "model",
        "models",
        "name",
        "network",
        "note",
        "order",
        "others",
        "overlap",
        "parent",
        "percents",
    ),
    *(
        "period",
        "permissions",
        "placement",
        "plan",
        "pool",
        "pools",
        "preset",
        "prompt",
        "reason",
        "reference",
        "required",
    ),
    *(
        "role",
        "scope",
        "slots",
        "subject",
        "sure",
        "tiers",
        "time_zone",
        "unit",
        "user",
        "valid",
        "version",
        "weight",
        "where",
    ),
    *(
        "window",
        "owner_group",
        "locality_window",
        "of",
        "after",
        "destination",
        "source",
        "alias",
        "defaults",
        "pinned",
    ),
)
WRONG = ("9" * 18, "\N{GRINNING FACE}" * 90, "a\nb: [c, {d")


@pytest.fixture(scope="module")
def opened() -> Iterator[list[Pages]]:
    """The pages of each admin that is started from here on."""
    found: list[Pages] = []

    @asynccontextmanager
    async def opening(*means: Any, **named: Any) -> AsyncIterator[Pages]:
        async with open_pages(*means, **named) as pages:
            found.append(pages)
            yield pages

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "open_pages", opening)
        yield found


async def test_no_page_fails_whatever_stands_in_its_address(opened: list[Pages], house: House) -> None:
    admin, failed, looked = await house.of(Role.ADMIN), [], 0
    for path in sorted({guard.path for verb, guard in opened[0].visits.guards if verb == "GET"}):
        for nasty in NASTY:
            asked = re.sub(r"\{[^}]*\}", nasty, path)
            asked = asked if asked != path else f"{path}?{'&'.join(f'{name}={nasty}' for name in QUERY)}"
            async with admin.session.get(
                URL(f"{admin.url}{asked}", encoded=True), headers=HTML, allow_redirects=False
            ) as answer:
                looked += 1
                if answer.status >= 500 and answer.status != 503:
                    failed.append(f"{answer.status} {asked[:200]}")
    assert not failed, "\n".join(failed)
    assert looked > 300


async def test_no_form_fails_whatever_stands_in_it(opened: list[Pages], house: House) -> None:
    admin, failed, answered = await house.of(Role.ADMIN), [], Counter[int]()
    for path in sorted({guard.path for verb, guard in opened[0].visits.guards if verb == "POST"}):
        for wrong in WRONG:
            asked = re.sub(r"\{[^}]*\}", "nothing", path)
            status, _, _ = await send(admin, asked, **dict.fromkeys(FIELDS, wrong))
            answered[status] += 1
            if status >= 500 and status != 503:
                failed.append(f"{status} {asked} {wrong!r}")
    assert not failed, "\n".join(failed)
    assert answered[400] + answered[404] > 200
    assert answered[403] == 0


@pytest.mark.parametrize("name", ["key", "model"])
async def test_a_filter_that_no_database_keeps_is_refused(house: House, name: str) -> None:
    assert (await (await house.of(Role.MEMBER)).get(f"/me/usage?{name}=%00", headers=HTML))[0] == 400


@pytest.mark.parametrize("page", ["", ".json", ".csv", "/rows"])
@pytest.mark.parametrize("name", ["since", "until"])
async def test_a_span_that_no_calendar_holds_is_refused(house: House, page: str, name: str) -> None:
    path = f"/console/usage{page}?{name}=9999-12-31T23:59:59"
    assert (await (await house.of(Role.AUDITOR)).get(path, headers=HTML))[0] == 400


# --- what stays open -----------------------------------------------------------------------------------------------------


async def test_a_topic_is_made_once_whatever_is_written_behind_its_name(house: House) -> None:
    nobody = await house.nobody()
    assert (await nobody.get("/live?topics=status:1"))[0] == 400
    assert (await (await house.of(Role.AUDITOR)).get("/live?topics=overview:1"))[0] == 400


async def test_an_address_of_nobody_has_only_so_many_streams_open(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_MOST_PER_ADDRESS", 2)
    nobody = await house.nobody()
    address = f"{nobody.url}/live?topics=status"
    async with nobody.session.get(address) as one, nobody.session.get(address) as other:
        assert (one.status, other.status) == (200, 200)
        assert (await nobody.get("/live?topics=status"))[0] == 204
        async with (await house.of(Role.AUDITOR)).session.get(address) as known:
            assert known.status == 200


async def test_an_open_page_ends_with_the_rights_that_it_was_opened_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.2)
    browser = await house.signed_in("rising", Role.AUDITOR)
    async with browser.session.get(f"{browser.url}/live?topics=nodes") as stream:
        assert stream.status == 200
        await house.root.SetUserRights(name="rising", role="operator")
        async with asyncio.timeout(60):
            async for line in stream.content:
                if line == b"event: ended\n":
                    return
    raise AssertionError("It ended without a word.")


async def test_what_an_open_page_asks_by_itself_is_no_use_of_its_session(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    uses: list[bool] = []
    demand = Badges.demand

    def noted(self: Badges, text: str, *, is_use: bool = True) -> Any:
        uses.append(is_use)
        return demand(self, text, is_use=is_use)

    monkeypatch.setattr(Badges, "demand", noted)
    auditor = await house.of(Role.AUDITOR)
    history = "/console/data/history.json?kind=node&metric=cpu_percent"
    for path in ("/me/usage/tokens.json", history):
        await auditor.get(path, headers={LEFT_OPEN_HEADER: "yes"})
    async with auditor.session.get(f"{auditor.url}/live?topics=nodes") as stream:
        assert stream.status == 200
    assert uses
    assert not any(uses)
    await auditor.get(history)
    assert any(uses)


async def test_who_waits_for_what_cannot_be_found_out_does_not_wait_for_each_other() -> None:
    clock, tried = ManualClock(), 0
    lately = Lately(clock)

    async def away() -> int:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0)
        raise Unavailable("The registry is away.")

    told = await asyncio.gather(*(lately.told("models", 5.0, away) for _ in range(20)), return_exceptions=True)
    assert {str(one) for one in told} == {"The registry is away."}
    assert tried == 1
    clock.advance(FAILED_S)
    with pytest.raises(Unavailable):
        await lately.told("models", 5.0, away)
    assert tried == 2


# --- what strangers are told ---------------------------------------------------------------------------------------------


async def test_a_stranger_does_not_learn_where_the_database_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("Postgres cannot be reached: 10.1.2.3, port 5432.")

    monkeypatch.setattr(AccessRequestsDesk, "ask", away)
    nobody = await house.nobody()
    told = {"name": "Ada", "mail": "ada@example.org", "reason": "Research."}
    monkeypatch.setattr(Door, "by_password", away)
    for path, fields in (("/request-access", told), ("/sign-in", {"name": "ada", "password": "x"})):
        status, text, _ = await nobody.submit(path, **fields)
        assert status == 503
        assert "10.1.2.3" not in text
        assert "try again" in text


async def test_one_address_of_nobody_gets_only_so_many_pages(
    opened: list[Pages], house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened[0].visits, "_strangers", Pace(2, 60.0))
    nobody = await house.nobody()
    assert [(await nobody.get("/models", headers=HTML))[0] for _ in range(3)] == [200, 200, 429]
    assert (await (await house.of(Role.MEMBER)).get("/models", headers=HTML))[0] == 200


# --- forms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1e999999", "sNaN", "1e99999999999999999999"])
async def test_an_amount_that_no_number_holds_is_a_wrong_one(text: str) -> None:
    form = Form([("amount", text), ("weight", text), ("model", "m")])
    with pytest.raises(WrongField):
        form.micro("amount")
    with pytest.raises(WrongField):
        form.weight()
    with pytest.raises(WrongField):
        read_weight(form)


@pytest.mark.parametrize("text", ["9999-12-31T23:59", "3000-01-01", "0001-01-01", "1969-12-31T23:59:59"])
async def test_a_moment_that_nobody_lives_to_see_is_a_wrong_one(text: str) -> None:
    with pytest.raises(WrongField):
        read_window(Form([("begins", text), ("lasts", "90d")]), "node", "gpu-1", now=0.0)


async def test_a_form_whose_parts_have_no_end_of_headers_is_refused(house: House) -> None:
    nobody = await house.nobody()
    body = b"--x\r\n" + b"a: b\r\n" * 5000 + b"\r\n\r\n--x--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=x", "origin": nobody.url, **HTML}
    async with nobody.session.post(f"{nobody.url}/request-access", data=io.BytesIO(body), headers=headers) as answer:
        assert answer.status == 400


async def test_a_token_in_no_letters_is_a_wrong_one() -> None:
    session = new_bearer(BearerKind.SESSION)
    assert is_csrf_token(b"p" * 64, session, csrf_token(b"p" * 64, session))
    assert not is_csrf_token(b"p" * 64, session, "\udcff")


async def test_an_origin_that_is_none_is_a_foreign_one() -> None:
    for origin in ("http://[", "null", "", "https://elsewhere.example"):
        with pytest.raises(ForeignPage):
            demand_own_page({"origin": origin, "host": "here.example"}, "http://here.example")
        assert own_page({"origin": origin, "host": "here.example"}, "http://here.example") == ""
    assert own_page({"origin": "http://here.example"}, "http://here.example") == "http://here.example"


async def test_a_list_that_breaks_off_is_not_taken_for_a_whole_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def query(*_: Any) -> usage_queries_pb2.QueryUsageResponse:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Unavailable("Postgres went away.")
        return usage_queries_pb2.QueryUsageResponse(next_page="more")

    auditor = await house.of(Role.AUDITOR)
    monkeypatch.setattr(OperatorServicer, "QueryUsage", query)
    async with auditor.session.get(f"{auditor.url}/console/usage.csv") as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            assert b"Not at the moment" not in await answer.read()
    assert asked == 2


# --- the chat ------------------------------------------------------------------------------------------------------------


async def mint(browser: Browser, **headers: str) -> int:
    return (await ask(browser, "POST", "/key", {"model": "tiny"}, **headers))[0]


async def test_a_key_that_would_work_from_anywhere_is_not_made(house: House) -> None:
    browser = await house.signed_in("nowhere")
    assert await mint(browser) == 403
    assert await mint(browser, **{"origin": "null", "sec-fetch-site": "same-origin"}) == 403
    assert await mint(browser, origin="https://elsewhere.example") == 403
    assert await mint(browser, origin=browser.url) == 200


async def test_a_key_for_models_with_names_of_other_letters_is_one_that_opens() -> None:
    seal, names = EphemeralSeal(b"p" * 64), frozenset(f"{n:02}{'é' * 100}" for n in range(20))
    opened_ = seal.open(seal.issue("0123456789ab", 1, Narrowing(names)))
    assert opened_ is not None
    assert opened_.narrowing.models == names


async def test_nobody_fills_the_audit_log_with_keys(house: House) -> None:
    browser = await house.signed_in("hasty")
    statuses = []
    for _ in range(150):
        statuses.append(await mint(browser, origin=browser.url))
        if statuses[-1] != 200:
            break
    assert statuses[-1] == 429
    assert len(statuses) > 50
    assert await mint(await house.signed_in("patient"), origin=browser.url) == 200


async def test_what_is_said_in_a_conversation_is_bounded_without_its_files(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "MOST_TEXT_BYTES", 3000)
    browser = await house.signed_in("wordy")
    id = await begun(browser)
    statuses = [
        (await ask(browser, "PUT", f"/conversations/{id}/messages/question{n}", words("x" * 1000)))[0] for n in range(4)
    ]
    assert statuses == [200, 200, 409, 409]
    assert (await ask(browser, "PUT", f"/conversations/{id}/messages/question1", words("x" * 900)))[0] == 200


async def test_looking_through_very_much_ends_and_is_done_by_few_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await house.signed_in("curious")
    id = await begun(browser)
    assert (await ask(browser, "PUT", f"/conversations/{id}/messages/question1", words("a needle")))[0] == 200
    status, told = await ask(browser, "GET", "/conversations?q=needle")
    assert (status, [one["id"] for one in told["conversations"]]) == (200, [id])
    under_way, most = 0, 0

    async def slow(connection: AsyncConnection, *_: Any, **__: Any) -> Any:
        nonlocal under_way, most
        under_way, most = under_way + 1, max(most, under_way + 1)
        try:
            return await connection.execute(text("SELECT pg_sleep(30)"))
        finally:
            under_way -= 1

    monkeypatch.setattr(chat_desk, "LONGEST_SEARCH_S", 0.3)
    monkeypatch.setattr(chat_store, "list_conversations", slow)
    found = await asyncio.gather(*(ask(browser, "GET", "/conversations?q=needle") for _ in range(6)))
    assert {status for status, _ in found} == {409, 429}
    assert most <= chat_desk.SEARCHES


async def test_a_file_that_does_not_come_takes_no_place_for_ever(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_calls, "LONGEST_BODY_S", 0.2)
    browser = await house.signed_in("gone")
    id = await begun(browser)

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    headers = {"x-forebay-csrf": await browser.csrf(), "content-type": "text/plain"}
    url = f"{browser.url}/chat/api/conversations/{id}/files"
    async with browser.session.post(url, data=never(), headers=headers) as answer:
        assert answer.status == 400


async def test_one_user_sends_only_so_much_at_once() -> None:
    at_once = AtOnce(2)
    with at_once.one_more("ada"), at_once.one_more("ada"), at_once.one_more("bob"), pytest.raises(TooOften):
        at_once.one_more("ada").__enter__()
    with at_once.one_more("ada"):
        pass
