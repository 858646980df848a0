"""Every page, by everybody who may see it: it comes without a mishap, fits, is accessible in both themes and loads little
script; a picture of each is left in build/web/screens."""

from __future__ import annotations

import pytest

from tests.browser.tour import ONE_LOOK_EACH, STOPS, Stop, furnish, stops_for
from tests.browser.visiting import NOBODY, ROLES, House, Visitor

pytestmark = pytest.mark.timeout(1200)  # some hundred pages

MOST_SCRIPT_BYTES = 150_000


@pytest.fixture(scope="module")
def furnished(house: House) -> House:
    furnish(house)
    return house


@pytest.mark.parametrize("role", ONE_LOOK_EACH, ids=lambda role: role or "nobody")
def test_everybody_sees_every_page_that_is_theirs(furnished: House, role: str) -> None:
    for theme, width in ONE_LOOK_EACH[role]:  # in all ways: `make targets-web`
        _walk(furnished, role, theme, width)


@pytest.mark.parametrize("role", [NOBODY, *ROLES], ids=lambda role: role or "nobody")
def test_and_no_other(furnished: House, role: str) -> None:
    others = [stop for stop in STOPS if not stop.is_for(role)]
    with furnished.visitor(role) as visitor:
        visitor.may_fail = True  # a page that is refused is an error to the browser's console
        for stop in others:
            answer = visitor.page.goto(f"{furnished.url}{stop.address(furnished)}")
            assert answer is not None
            if role == NOBODY:
                assert "/sign-in?next=" in visitor.page.url, stop
            else:
                assert answer.status == 403, stop


def _walk(house: House, role: str, theme: str, width: int) -> None:
    """All problems are told together, each with its page."""
    problems = []
    with house.visitor(role, theme=theme, width=width) as visitor:
        for stop in stops_for(role):
            try:
                _look(visitor, stop)
            except AssertionError as error:
                problems.append(f"{stop.path}: {error}")
            if visitor.mishaps:
                problems.append(f"{stop.path}: {visitor.mishaps}")
                visitor.mishaps.clear()
    assert not problems, "\n\n".join(problems)


def _look(visitor: Visitor, stop: Stop) -> None:
    visitor.may_fail = stop.path == "/nowhere"
    visitor.go(stop.address(visitor.house), status=404 if visitor.may_fail else 200)
    if visitor.may_fail:
        visitor.mishaps.clear()
    visitor.look_over(stop.name)
    assert visitor.script_bytes() <= MOST_SCRIPT_BYTES
