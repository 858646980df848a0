"""What scripts say is read name by name; all that does not fit is told at once. And numbers stand for ids."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import AlreadyExists, BadInput, NotFound, Unavailable
from forebay.forwarded import HEADER, Forwards
from forebay_admin.rest.failures import BodyTooLarge
from forebay_admin.seeds.fields import Fields, as_body
from forebay_admin.seeds.http import ROUTES
from forebay_admin.seeds.numbers import find, number_of
from forebay_admin.seeds.refusals import BadFields, Dialect, Misfit, NoCounterpart, status_of, told

MINDROUTER, OLLAMAFLOW = Dialect.MINDROUTER, Dialect.OLLAMAFLOW


def test_what_fits_is_read_as_it_is() -> None:
    body = Fields(
        {"a": "x", "n": 3, "f": 2.0, "yes": True, "list": ["b"], "gpus": [0, 1], "which": 7, "none": None}, "body"
    )
    assert (body.text("a", needed=True), body.whole("n"), body.whole("f"), body.flag("yes")) == ("x", 3, 2, True)
    assert (body.texts("list"), body.wholes("gpus", most=9), body.which("which")) == (["b"], [0, 1], "7")
    assert (body.text("absent", "d"), body.number("n"), body.is_cleared("none")) == ("d", 3.0, True)
    query = Fields(
        {"skip": "10", "at": "2026-03-01T00:00:00 01:00", "day": "2026-03-01"}, "query"
    )  # a + that was a space
    assert (query.whole("skip"), query.moment("at")) == (10, datetime(2026, 2, 28, 23, tzinfo=UTC))
    assert query.moment("day") == datetime(2026, 3, 1, tzinfo=UTC)
    body.done()
    query.done()


def test_all_that_does_not_fit_is_told_at_once() -> None:
    body = Fields({"t": 1, "n": "1", "b": "yes", "l": "x", "g": [True], "w": [], "at": "soon", "nul": "a\0b"}, "body")
    body.text("t"), body.whole("n"), body.flag("b"), body.texts("l"), body.wholes("g", most=9)
    body.which("w"), body.moment("at"), body.text("gone", needed=True), body.text("nul")
    with pytest.raises(BadFields) as error:
        body.done()
    assert [one.place[1] for one in error.value.misfits] == ["t", "n", "b", "l", "g", "w", "at", "gone", "nul"]
    detail = told(error.value, MINDROUTER)["detail"]
    assert detail[-2] == {"type": "missing", "loc": ["body", "gone"], "msg": "It is missing."}
    with pytest.raises(BadInput):
        as_body([])


@pytest.mark.parametrize(
    ("error", "statuses"),
    [
        (NoCounterpart("Use x."), (501, 501)),
        (BadFields([Misfit(("body", "x"), "It is not text.")]), (422, 400)),
        (NotFound("Gone."), (404, 404)),
        (AlreadyExists("There."), (409, 409)),
        (BodyTooLarge("Large."), (413, 413)),
        (Unavailable("Away."), (503, 503)),
    ],
)
def test_a_refusal_has_the_shape_of_the_gateway_that_is_spoken(error: Any, statuses: tuple[int, int]) -> None:
    assert (status_of(error, MINDROUTER), status_of(error, OLLAMAFLOW)) == statuses
    assert set(told(error, MINDROUTER)) == {"detail"}
    shape = told(error, OLLAMAFLOW)
    assert set(shape) == {"Error", "Message", "StatusCode", "Context", "Description"}
    assert shape["StatusCode"] == statuses[1]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_a_number_is_always_the_same_and_exact_in_json(id: str) -> None:
    number = number_of("backend", id)
    assert 1 <= number < 2**53
    assert number == number_of("backend", id)
    things = [(id, "name-of-it"), (f"{id}!", "other")]
    asked = (str(number), "name-of-it")
    assert {find("backend", things, one, lambda t: t[0], lambda t: t[1]) for one in asked} == {things[0]}


def test_what_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="Backend not found"):
        find("backend", [("a", "b")], "²", lambda t: t[0], lambda t: t[1])


def test_only_a_gateway_says_whose_request_it_is() -> None:
    ours, others = Forwards(b"p" * 64), Forwards(b"q" * 64)
    for address in ("192.0.2.7", "2001:db8::1", ""):
        header = {HEADER: ours.tell(address, "GET", "/api/admin/users?skip=1", 1000.0)}
        assert ours.read(header, "GET", "/api/admin/users?skip=1", 1059.0) == address
        assert ours.read(header, "POST", "/api/admin/users?skip=1", 1000.0) is None
        assert ours.read(header, "GET", "/api/admin/users", 1000.0) is None
        assert ours.read(header, "GET", "/api/admin/users?skip=1", 1061.5) is None
        assert others.read(header, "GET", "/api/admin/users?skip=1", 1000.0) is None
        forged = {HEADER: header[HEADER].rpartition(" ")[0] + " 198.51.100.9"}
        assert ours.read(forged, "GET", "/api/admin/users?skip=1", 1000.0) is None
    odd = {HEADER: ours.tell("fe80::1%eth 0", "GET", "/", 1000.0)}
    assert ours.read(odd, "GET", "/", 1000.0) == ""  # told as no address, and not taken for the gateway's own
    for nonsense in ("", "1000", "1000 x 192.0.2.7", "9" * 5000):
        assert ours.read({HEADER: nonsense}, "GET", "/", 1000.0) is None


def test_no_address_stands_twice() -> None:
    addresses = [(route.verb, route.path) for route in ROUTES]
    assert len(addresses) == len(set(addresses))


def test_whoever_is_called_as_anothers_number_does_not_stand_in_for_them() -> None:
    victims = str(number_of("user", "user_1"))
    things = [("user_1", "alice"), ("user_2", victims), ("user_3", "user_1")]
    for asked, id in ((victims, "user_1"), ("user_1", "user_1"), ("user_2", "user_2"), ("alice", "user_1")):
        assert find("user", things, asked, lambda t: t[0], lambda t: t[1])[0] == id
