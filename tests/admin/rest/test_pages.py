"""Lists in pages: whole in the end, however long a page is and whatever is added or removed meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.errors import BadInput
from forebay.wire.v1.admin_pb2 import Pool, PoolPolicy
from forebay_admin.rest.pages import Page, asked_page, cut
from forebay_admin.rest.routes import Pages

BY_NAME = Pages("pools", ("terms.pool",))


def pools(*names: str) -> list[Pool]:
    return [Pool(terms=PoolPolicy(pool=name)) for name in names]


@settings(max_examples=30)
@given(st.integers(0, 7), st.integers(1, 5))
def test_the_pages_together_are_the_list(length: int, size: int) -> None:
    things = pools(*(f"p{number}" for number in range(length)))
    told: list[Pool] = []
    token: str | None = None
    is_last = False
    while not is_last:
        shown, token = cut(things, BY_NAME, asked_page(str(size), token))
        assert len(shown) <= size
        told += shown
        is_last = token is None
    assert told == things


@pytest.mark.parametrize(
    ("then", "shown"),
    [
        (["new", "a", "b", "c", "d"], ["c", "d"]),
        (["b", "c", "d"], ["c", "d"]),
        (["a", "c", "d"], ["d"]),  # what it began after is gone: its place counts
        ([], []),
    ],
)
def test_a_page_goes_on_after_the_thing_where_the_last_ended(then: list[str], shown: list[str]) -> None:
    _, token = cut(pools("a", "b", "c", "d"), BY_NAME, asked_page("2", None))
    told, _ = cut(pools(*then), BY_NAME, asked_page("2", token))
    assert [pool.terms.pool for pool in told] == shown


@pytest.mark.parametrize(
    "token", ["", "x", "1-", "0-0123456789abcdef", "-1-0123456789abcdef", "1-0123456789abcdef\n", "9" * 5000]
)
def test_a_token_that_no_list_gave_is_refused(token: str) -> None:
    with pytest.raises(BadInput, match="page_token"):
        asked_page(None, token)


@pytest.mark.parametrize("token", ["", "a b", "key\n", "x" * 65, "\u0663"])
def test_a_token_of_a_list_that_its_call_tells_is_an_id(token: str) -> None:
    assert asked_page("7", "u-1_Z", from_call=True) == Page(7, 0, "u-1_Z")
    with pytest.raises(BadInput, match="page_token"):
        asked_page(None, token, from_call=True)


@pytest.mark.parametrize("size", ["0", "1001", "-1", "x", "", "٣", "9" * 50])
def test_a_page_has_a_size(size: str) -> None:
    with pytest.raises(BadInput, match="page_size"):
        asked_page(size, None)
