"""Asking to be let in: the rules, and the commands with which somebody decides."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from forebay.database import open_database
from forebay.errors import NotPossible
from forebay_admin.sign_in.access_request_store import (
    add_access_request,
    forget_access_requests,
    keep_access_decision,
    list_access_requests,
    open_access_requests,
)
from forebay_admin.sign_in.access_requests import (
    KEPT,
    MOST_OPEN,
    MOST_OPEN_OF_ADDRESS,
    AccessState,
    WrongAnswer,
    decided,
    demand_room,
    order_access,
)
from forebay_admin.tables import SCHEMA
from tests.admin.replica import Running
from tests.admin.test_cli import Invoke, forebay, told

__all__ = ["forebay"]  # the fixture

NOW = datetime(2027, 1, 15, tzinfo=UTC)
ASKED = {"name": " Ada ", "mail": "ada@example.org", "reason": "A course."}


def test_what_is_asked_is_trimmed_and_kept() -> None:
    made = order_access(**ASKED, address="192.0.2.1", now=NOW)
    assert (made.name, made.mail, made.state) == ("Ada", "ada@example.org", AccessState.OPEN)


@pytest.mark.parametrize("mail", ["", "a", "a@b", "a b@example.org", "@example.org", "ä@example.org", "a@example..org"])
def test_a_mail_address_is_one_that_a_user_can_be_called_by(mail: str) -> None:
    with pytest.raises(WrongAnswer) as wrong:
        order_access(**{**ASKED, "mail": mail}, address="", now=NOW)
    assert wrong.value.field == "mail"


def test_there_is_room_until_there_is_none() -> None:
    demand_room(MOST_OPEN - 1, MOST_OPEN_OF_ADDRESS - 1)
    for full in ((MOST_OPEN, 0), (0, MOST_OPEN_OF_ADDRESS)):
        with pytest.raises(NotPossible):
            demand_room(*full)


def test_a_request_is_decided_once() -> None:
    made = order_access(**ASKED, address="", now=NOW)
    done = decided(made, approve=False, answer=" no ", user_name="", by="root", now=NOW)
    assert (done.state, done.answer, done.decided_by) == (AccessState.DENIED, "no", "root")
    with pytest.raises(NotPossible, match="already"):
        decided(done, approve=True, answer="", user_name="ada", by="root", now=NOW)


async def test_decided_ones_are_forgotten_after_a_while_and_open_ones_are_not(admin: Running) -> None:
    first = order_access(**ASKED, address="192.0.2.1", now=NOW)
    async with open_database(admin.site.database_url, SCHEMA) as database, database.writing() as connection:
        assert await add_access_request(connection, first)
        assert not await add_access_request(connection, replace(first, id="access_other", mail="ADA@example.org"))
        assert await open_access_requests(connection, "192.0.2.1") == (1, 1)
        assert await open_access_requests(connection, "192.0.2.2") == (1, 0)
        await forget_access_requests(connection, NOW + timedelta(days=3650))
        (kept,) = await list_access_requests(connection, include_decided=True)
        assert kept == first
        await keep_access_decision(
            connection, decided(first, approve=False, answer="", user_name="", by="root", now=NOW)
        )
        await forget_access_requests(connection, NOW + KEPT - timedelta(seconds=1))
        assert len(await list_access_requests(connection, include_decided=True)) == 1
        await forget_access_requests(connection, NOW + KEPT + timedelta(seconds=1))
        assert not await list_access_requests(connection, include_decided=True)


async def test_the_commands_list_approve_and_deny(admin: Running, forebay: Invoke) -> None:
    async with aiohttp.ClientSession() as session:
        for name in ("ada", "bob"):
            form = {**ASKED, "name": name, "mail": f"{name}@example.org"}
            async with session.post(f"http://{admin.http_address}/request-access", data=form) as answer:
                assert answer.status == 200, await answer.text()
    assert "ada@example.org" in (await forebay("user", "requests")).output
    ids = {one["name"]: one["id"] for one in told(await forebay("user", "requests", "--json"))}
    made = await forebay("user", "approve", ids["ada"], "--user", "ada", "--group", "students")
    assert made.output.startswith("User ada added. Send to ada@example.org:   http")
    assert "/sign-in/password?token=fbpwd-" in made.output
    denied = told(await forebay("user", "deny", ids["bob"], "--answer", "not now", "--json"))
    assert (denied["request"]["state"], denied["request"]["answer"]) == ("denied", "not now")
    assert (await forebay("user", "requests")).output == "Nobody asks to be let in.\n"
    assert {one["state"] for one in told(await forebay("user", "requests", "--all", "--json"))} == {
        "approved",
        "denied",
    }
    (row,) = [one for one in told(await forebay("user", "list", "--json")) if one["name"] == "ada"]
    assert (row["group_name"], row["role"]) == ("students", "member")
