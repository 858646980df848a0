"""The usage explorer: what its address may say, what it shows, the same as a plot and as a file, and row by row."""

from __future__ import annotations

import csv
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from forebay.wire.v1 import types_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.people.people import Role
from forebay_admin.web.forms import WrongField
from forebay_admin.web.work.usage_query import Asked, read_asked
from forebay_admin.web.work.usage_view import MOST_SERIES, OTHERS, change, file_columns, file_rows, plot_of, usage_view
from tests.admin.test_usage_queries import enter, opened, record
from tests.admin.web.conftest import House, page

NOW = 1_800_000_000.0
asynchronous = pytest.mark.asyncio(loop_scope="module")


def sums(tokens: int, **more: int) -> wire.UsageSums:
    return wire.UsageSums(requests=1, prompt_tokens=tokens, **more)


# --- what the address says --------------------------------------------------------------------------------------------


def test_a_view_is_its_address_and_what_is_usual_is_left_out() -> None:
    asked = read_asked({"by": "day", "then": "user", "last": "30d", "compare": "1", "model": "a b&c"})
    assert (asked.part, asked.columns, asked.only) == ("day", ("user",), {"model": "a b&c"})
    assert asked.query() == "by=day&then=user&last=30d&model=a+b%26c&compare=1"
    assert read_asked({}).query() == ""
    assert Asked(model="x").query(page="5") == "model=x&page=5"


def test_narrowing_to_one_value_tells_the_rest_apart_by_something_else() -> None:
    assert read_asked({"by": "model"}).narrowed("model", "m") == "by=user&model=m"
    assert read_asked({"by": "day", "then": "user"}).narrowed("user", "alice") == "by=day&user=alice"
    assert read_asked({"by": "user"}).narrowed("user", "alice") == "user=alice"


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"by": "colour"}, "by"),
        ({"then": "colour"}, "then"),
        ({"by": "day", "then": "week"}, "then"),
        ({"last": "3 moons"}, "last"),
        ({"since": "yesterday"}, "since"),
        ({"until": "0001-01-01"}, "until"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
        ({"order": "colour"}, "order"),
        ({"outcome": "colour"}, "outcome"),
        ({"top": "-1"}, "top"),
        ({"top": "101"}, "top"),
        ({"top": "9" * 40}, "top"),
        ({"user": "x" * 300}, "user"),
        ({"model": "a\nb"}, "model"),
    ],
)
def test_each_field_that_is_wrong_is_named(query: dict[str, str], name: str) -> None:
    with pytest.raises(WrongField) as raised:
        read_asked(query)
    assert raised.value.name == name


def test_a_span_ends_after_it_begins_and_one_that_is_named_goes_before_a_length() -> None:
    asked = read_asked({"since": "2026-11-01", "until": "2026-11-02T12:00", "last": "7d"})
    assert asked.last == ""
    begin, end = asked.span(NOW)
    assert (begin.isoformat(), end.isoformat()) == ("2026-11-01T00:00:00+00:00", "2026-11-02T12:00:00+00:00")
    begin, end = read_asked({"last": "24h"}).span(NOW)
    assert end - begin == timedelta(days=1)
    with pytest.raises(WrongField, match="ends before it begins"):
        read_asked({"since": "2026-11-02", "until": "2026-11-01"}).span(NOW)


def test_spans_are_compared_as_a_whole_and_never_in_parts() -> None:
    assert read_asked({"by": "user", "compare": "1"}).asking(NOW).compare
    assert not read_asked({"by": "day", "compare": "1"}).asking(NOW).compare


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_difference_is_a_number_and_a_percentage_where_there_was_something() -> None:
    assert (change(80, 100).by, change(80, 100).percent, change(80, 100).sign) == (20, 25.0, "+")
    assert (change(100, 50).percent, change(100, 50).sign) == (-50.0, "−")
    assert (change(0, 5).percent, change(5, 5).sign) == (None, "±")


def test_lines_are_set_against_the_period_before_but_for_what_is_added_up() -> None:
    asked = read_asked({"by": "user", "compare": "1", "top": "1"})
    told = wire.QueryUsageResponse(
        lines=[
            wire.UsageLine(user_id="u1", user_name="alice", sums=sums(30), before=sums(10)),
            wire.UsageLine(user_id="u2", sums=sums(20)),
            wire.UsageLine(rest=True, sums=sums(50)),
        ],
        total=sums(100),
    )
    alice, gone, rest = usage_view(told, asked, {}, sums(50)).lines
    assert alice.tokens_change == change(10, 30)
    assert gone.tokens_change == change(0, 20)
    assert (rest.tokens_change, rest.whose[0].name, rest.whose[0].asked_as) == (None, OTHERS, "")
    assert (alice.share, alice.whose[0].asked_as) == (0.3, "alice")
    assert (gone.whose[0].name, gone.whose[0].asked_as) == ("u2", ""), "who is gone has no name to be asked by"
    assert usage_view(told, asked, {}, sums(50)).changes["tokens"] == change(50, 100)
    assert usage_view(told, asked, {}, None).changes == {}


def test_a_plot_has_a_line_for_the_most_and_one_for_the_others() -> None:
    asked = read_asked({"by": "day", "then": "model"})
    many = [
        wire.UsageLine(at_us=day * 86_400_000_000, model=f"m{n}", sums=sums(100 - n))
        for day in (1, 2)
        for n in range(MOST_SERIES + 3)
    ]
    told = wire.QueryUsageResponse(lines=[*many, wire.UsageLine(at_us=86_400_000_000, rest=True, sums=sums(5))])
    plot = plot_of(told, asked, {})
    assert plot["t"] == [86_400, 172_800]
    assert [one["label"] for one in plot["series"]] == [*(f"m{n}" for n in range(MOST_SERIES)), OTHERS]
    assert plot["series"][-1]["values"] == [5 + 93 + 92 + 91, 93 + 92 + 91]
    assert sum(sum(one["values"]) for one in plot["series"]) == sum(line.sums.prompt_tokens for line in told.lines)
    assert plot_of(wire.QueryUsageResponse(), asked, {}) == {"t": [], "series": []}


def test_a_file_has_names_and_ids_and_says_who_the_others_are() -> None:
    asked = read_asked({"by": "month", "then": "backend"})
    assert [column.name for column in file_columns(asked)][:3] == ["begins_at", "backend", "backend_id"]
    told = [wire.UsageLine(backend_id="b1", sums=sums(3)), wire.UsageLine(rest=True, sums=sums(4))]
    one, rest = file_rows(told, asked, {"b1": "big-gpu"})
    assert (one["backend"], one["backend_id"], one["prompt_tokens"]) == ("big-gpu", "b1", 3)
    assert (rest["backend"], rest["backend_id"]) == (OTHERS, "")


# --- the pages --------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(house: House) -> AsyncIterator[House]:
    """Alice used `small` today and the week before, somebody used `=large` today, and one request was never billed."""
    alice = (await house.root.AddUser(name="alice")).user
    now = datetime.now(UTC) - timedelta(minutes=5)
    async with opened(house.admin.site) as database:
        await enter(
            database,
            [
                *(record(now - timedelta(hours=h), user_id=alice.id, request_id=f"today-{h}") for h in range(3)),
                record(now - timedelta(days=8), user_id=alice.id),
                record(now, model="=large", outcome=types_pb2.OUTCOME_FAILED, request_id="=dear"),
            ],
        )
    yield house


@asynchronous
async def test_usage_is_added_up_and_compared(used: House) -> None:
    auditor = await used.of(Role.AUDITOR)
    text = await page(auditor, "/console/usage?by=user&then=model&compare=1")
    assert '<a href="/console/usage?user=alice&amp;' in text or "user=alice" in text
    assert "+30 " in text, "three requests of 15 tokens against one of 15"
    assert "(+200 %)" in text
    assert "nothing before" in text
    shown = await page(auditor, "/console/usage?by=day&then=model&last=24h&zone=Europe%2FBerlin")
    assert 'data-plot="/console/usage.json?by=day&amp;then=model&amp;last=24h&amp;zone=Europe%2FBerlin"' in shown


@asynchronous
async def test_the_plot_and_the_file_are_of_the_same(used: House) -> None:
    auditor = await used.of(Role.AUDITOR)
    status, text, _ = await auditor.get("/console/usage.json?by=hour&then=model&last=24h&user=alice")
    plot = json.loads(text)
    assert status == 200
    assert sum(plot["series"][0]["values"]) == 45
    async with auditor.session.get(f"{auditor.url}/console/usage.csv?by=model&last=24h") as answer:
        assert answer.status == 200
        assert answer.headers["content-disposition"].startswith('attachment; filename="usage-')
        rows = list(csv.DictReader((await answer.text()).splitlines()))
    assert {row["model"]: row["requests"] for row in rows} == {"small": "3", "'=large": "1"}, "no formula gets in"


@asynchronous
async def test_rows_are_read_one_by_one_and_those_that_were_not_billed_alone(used: House) -> None:
    auditor = await used.of(Role.AUDITOR)
    text = await page(auditor, "/console/usage/rows?user=alice&last=24h")
    assert text.count("today-") == 3
    assert "=dear" not in text
    assert "not billed" in await page(auditor, "/console/usage/rows?unbilled=1&last=24h")
    assert "No such rows" in await page(auditor, "/console/usage/rows?since=2020-01-01&until=2020-01-02")


@asynchronous
async def test_members_see_what_they_used_and_nothing_of_others(used: House) -> None:
    member = await used.of(Role.MEMBER)
    text = await page(member, "/console/usage?by=user")
    assert "alice" not in text
    assert "Nothing was used then" in text
    await page(member, "/console/usage?user=alice", status=403)
    await page(member, "/console/usage/rows?user=alice", status=403)
    assert (await member.get("/console/usage.csv?user=alice"))[0] == 403
    assert (await member.get("/console/usage.json?user=alice"))[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        "by=colour",
        "last=never",
        "since=yesterday",
        "since=2026-11-02&until=2026-11-01",
        "user=nobody-of-that-name",
        "group=none-such",
        "zone=Mars%2FOlympus",
        "by=hour&since=1980-01-01",
        "page=none",
    ],
)
@asynchronous
async def test_what_is_wrong_with_a_question_is_said_on_its_form(used: House, query: str) -> None:
    auditor = await used.of(Role.AUDITOR)
    text = await page(auditor, f"/console/usage?{query}", status=400)
    assert "What to add up" in text
    assert 'role="alert"' in text or 'aria-invalid="true"' in text
    assert (await auditor.get(f"/console/usage.csv?{query}"))[0] in (400, 404) or query == "page=none"
    if query.partition("=")[0] != "by":
        await page(auditor, f"/console/usage/rows?{query}", status=400)
