"""Every address of the pages by every role: who is let in is what the role's rights say, and nothing is changed by a form
that is not ours. The addresses are those that the running admin has, so that a new page is asked for too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from forebay_admin import service
from forebay_admin.people.people import Role
from forebay_admin.people.roles import Reach, reach
from forebay_admin.sign_in.bearers import SESSION_COOKIE
from forebay_admin.web.pages import Pages, open_pages
from forebay_admin.web.visit import Guard
from tests.admin.sign_in.browser import Browser
from tests.admin.web.conftest import HTML, House

pytestmark = pytest.mark.asyncio(loop_scope="module")

LET_IN = {200, 303, 400, 404, 503}
"""What who is let in may get at an address with a name in it, of which there may be nothing."""
NO_SUCH = "no-such-thing"


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


@dataclass(frozen=True)
class Samples:
    """What stands in an address for what is named there."""

    key: str
    budget: str
    balance: str

    def filled(self, path: str) -> str:
        for place, name in (
            ("/console/users/{name}", "some-member"),
            ("/console/groups/{name}", "everyone"),
            ("/console/roles/{name}", "sampled"),
            ("/console/limits/{kind}/{name}", "user/some-member"),
            ("/console/keys/{id}", self.key),
            ("/console/budgets/{id}", self.budget),
            ("/console/balances/{id}", self.balance),
        ):
            if path.startswith(place):
                path = f"{place.partition('{')[0]}{name}{path.removeprefix(place)}"
        while "{" in path:
            before, _, rest = path.partition("{")
            path = f"{before}{NO_SUCH}{rest.partition('}')[2]}"
        return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def samples(opened: list[Pages], house: House) -> Samples:
    for role in Role:
        await house.of(role)
    await house.root.SetCustomRole(name="sampled", permissions=["users:read"])
    key = (await house.root.CreateKey(user="some-member", name="sample")).key
    budget = (await house.root.AddBudget(subject={"user": "some-member"}, unit="BUDGET_UNIT_TOKENS", amount=5)).budget
    balance = (await house.root.OpenBalance(owner={"user": "some-member"})).balance
    return Samples(key.id, budget.id, balance.id)


async def test_every_page_is_there_for_whoever_may_see_it_and_for_nobody_else(
    opened: list[Pages], samples: Samples, house: House
) -> None:
    looked, wrong = 0, []
    for guard in _guards(opened, "GET"):
        path = samples.filled(guard.path)
        for role in Role:
            status, text, _ = await (await house.of(role)).get(path, headers=HTML)
            looked += 1
            expected = _expected(guard, role, NO_SUCH in path)
            if status not in expected:
                wrong.append(f"{role} at {path}: {status}, not {sorted(expected)}: {text[:200]}")
    assert not wrong, "\n".join(wrong)
    assert looked > 100


async def test_whoever_is_not_signed_in_is_sent_to_do_so(opened: list[Pages], samples: Samples, house: House) -> None:
    nobody, wrong = await house.nobody(), []
    for guard in _guards(opened, "GET"):
        path = samples.filled(guard.path)
        status, _, after = await nobody.get(path, headers=HTML)
        if not guard.is_public and (status != 303 or not after.startswith("/sign-in?next=")):
            wrong.append(f"{path}: {status} {after}")
    assert not wrong, "\n".join(wrong)


async def test_no_form_is_taken_without_its_token_or_with_anybody_elses(
    opened: list[Pages], samples: Samples, house: House
) -> None:
    admin, other = await house.of(Role.ADMIN), await house.of(Role.MEMBER)
    own, theirs = await _token(admin), await _token(other)
    wrong, tried = [], 0
    for guard in _guards(opened, "POST"):
        path = samples.filled(guard.path)
        for what, status in (
            ("no token", (await admin.submit(path))[0]),
            ("a wrong token", (await admin.submit(path, csrf="x" * len(own)))[0]),
            ("somebody else's token", (await admin.submit(path, csrf=theirs))[0]),
            ("a page of another site", (await admin.submit(path, origin="https://elsewhere.example", csrf=own))[0]),
        ):
            tried += 1
            if status != 403:
                wrong.append(f"{path} with {what}: {status}")
    assert not wrong, "\n".join(wrong)
    assert tried > 100


async def test_no_call_of_a_script_changes_anything_without_its_token(
    opened: list[Pages], samples: Samples, house: House
) -> None:
    admin, wrong = await house.of(Role.ADMIN), []
    known = {(verb, guard.path) for verb, guard in opened[0].visits.guards}
    for route in opened[0].routes:
        if route.method in ("GET", "HEAD") or (route.method, route.path) in known:
            continue
        path = samples.filled(route.path)
        headers = {"origin": admin.url}
        async with admin.session.request(route.method, f"{admin.url}{path}", headers=headers) as answer:
            if answer.status != 403:
                wrong.append(f"{route.method} {path}: {answer.status}")
    assert not wrong, "\n".join(wrong)


async def test_a_form_is_taken_only_from_whoever_may_make_its_call(
    opened: list[Pages], samples: Samples, house: House
) -> None:
    wrong = []
    for role in (Role.MEMBER, Role.AUDITOR, Role.OPERATOR):
        browser = await house.of(role)
        token = await _token(browser)
        for guard in _guards(opened, "POST"):
            if _is_let_in(guard, role):
                continue
            path = samples.filled(guard.path)
            status = (await browser.submit(path, csrf=token))[0]
            if status != 403:
                wrong.append(f"{role} at {path}: {status}")
    assert not wrong, "\n".join(wrong)


def _guards(opened: list[Pages], verb: str) -> list[Guard]:
    return [guard for found, guard in opened[0].visits.guards if found == verb]


def _expected(guard: Guard, role: Role, names_nothing: bool) -> set[int]:
    if not _is_let_in(guard, role):
        return {403}
    return LET_IN if names_nothing else {200}


def _is_let_in(guard: Guard, role: Role) -> bool:
    """By the table of rights itself."""
    if guard.call is None:
        return True
    far = reach(role, guard.call)
    return far is Reach.ALL or (far is Reach.OWN and not guard.whole)


async def _token(browser: Browser) -> str:
    assert browser.cookie(SESSION_COOKIE) is not None
    return await browser.csrf()
