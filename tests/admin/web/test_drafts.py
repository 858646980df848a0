"""Forms that are shown again, and addresses of lists. Pure."""

from __future__ import annotations

import pytest

from forebay.errors import BadInput, NotFound
from forebay_admin.web.drafts import NO_DRAFTS, Drafts, demand_sure, demand_typed, refused
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.navigation import menu
from forebay_admin.web.paging import address, piece_of, step


def test_a_form_that_nobody_sent_has_what_is_usual() -> None:
    draft = NO_DRAFTS("add", name="n", number=3, many=("a", "b"), ticked=True, unticked=False, missing=None)
    assert (draft.value("name"), draft.value("number"), draft.value("missing")) == ("n", "3", "")
    assert list(draft.many("many")) == ["a", "b"]
    assert (draft.is_ticked("ticked"), draft.is_ticked("unticked")) == (True, False)
    assert NO_DRAFTS.status == 200


def test_a_refused_form_has_what_was_typed_and_what_is_wrong_beside_its_field() -> None:
    drafts = refused("add", Form((("name", " x "), ("tick", "yes"))), WrongField("name", "No."))
    draft = drafts("add", name="usual", other=True)
    assert (draft.value("name"), draft.error("name"), draft.error("other")) == (" x ", "No.", "")
    assert not draft.is_ticked("other"), "it was not ticked when it was sent"
    assert drafts.status == 400
    assert (drafts.is_open("add"), drafts.is_open("change")) == (True, False)
    assert drafts("change", name="usual").value("name") == "usual"


def test_an_error_that_names_no_field_is_told_at_the_one_that_is_meant() -> None:
    drafts = refused("add", Form(), NotFound("There is no group."), "group")
    assert drafts("add").error("group") == "There is no group."
    assert refused("add", Form(), BadInput("As a whole."))("add").why == "As a whole."


def test_a_form_of_the_address_may_have_any_names() -> None:
    query = Form((("self", "a"), ("name", "b"), ("name", "c")))
    assert Drafts().filled("filter", query).value("name") == "c"


def test_what_cannot_be_taken_back_is_ticked_or_typed() -> None:
    demand_sure(Form((("sure", "yes"),)))
    demand_typed(Form((("typed", "alice"),)), "alice")
    with pytest.raises(WrongField, match="Tick"):
        demand_sure(Form())
    with pytest.raises(WrongField, match="alice"):
        demand_typed(Form((("typed", "Alice"),)), "alice")


def test_an_address_keeps_what_was_asked_for_and_leaves_out_what_is_empty() -> None:
    given = {"text": "a b&c", "page": "3", "empty": ""}
    assert address("/x", given) == "/x?text=a+b%26c&page=3"
    assert address("/x", given, page="", text=None) == "/x"
    assert address("/x", {}, before=12) == "/x?before=12"
    assert step("a/b?c") == "a%2Fb%3Fc"


@pytest.mark.parametrize(
    ("page", "shown", "before", "after"),
    [
        ("", [0, 1, 2], "", "2"),
        ("2", [3, 4, 5], "1", "3"),
        ("3", [6], "2", ""),
        ("4", [0, 1, 2], "", "2"),
        ("-1", [0, 1, 2], "", "2"),
        ("²", [0, 1, 2], "", "2"),
    ],
)
def test_a_long_list_is_told_piece_by_piece(page: str, shown: list[int], before: str, after: str) -> None:
    assert piece_of(list(range(7)), page, 3) == (shown, before, after)


def test_a_page_that_lies_elsewhere_marks_the_place_that_it_belongs_to() -> None:
    def here(path: str) -> list[str]:
        return [item.path for section in menu(path, lambda _: True) for item in section.items if item.is_here]

    assert here("/console/limits/user/ann") == ["/console/budgets"]
    assert here("/console/import/keys") == ["/console/keys"]
    assert here("/console/users/ann") == ["/console/users"]
    assert here("/console") == ["/console"]
    assert here("/elsewhere") == []


def test_no_list_has_no_pages() -> None:
    assert piece_of([], "1", 3) == ([], "", "")


def test_what_is_secret_is_not_sent_back() -> None:
    draft = refused("add", Form((("secret", "whsec_x"), ("old", "o"), ("name", "n"))), BadInput("No."))("add")
    assert (draft.value("secret"), draft.value("old"), draft.value("name")) == ("", "", "n")
