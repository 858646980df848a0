"""What pages about people show, decided from what the calls tell; without any service."""

from __future__ import annotations

import pytest

from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.people.people import Role
from forebay_admin.people.roles import calls
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.people.amounts import weight
from forebay_admin.web.people.budgets_view import quotas_view
from forebay_admin.web.people.groups_view import group_rows, group_view
from forebay_admin.web.people.keys_view import key_rows, key_view, terms_change_of
from forebay_admin.web.people.limits_view import budget_row, order_of
from forebay_admin.web.people.requests_view import budgets_by_id, wish_words
from forebay_admin.web.people.roles_view import call_matrix, matrix
from forebay_admin.web.people.users_view import asked_for, users_view

NOW = 1_800_000_000.0
DAY_US = 86_400_000_000


def _form(**fields: str) -> Form:
    return Form(tuple(fields.items()))


def test_a_weight_is_written_without_what_says_nothing() -> None:
    assert [weight(milli) for milli in (1000, 1500, 125, 20_000)] == ["1", "1.5", "0.125", "20"]


@pytest.mark.parametrize("text", ["heavy", "0", "-1", "1.0005", "1e9", "inf", "nan"])
def test_what_is_no_weight_is_told_at_its_field(text: str) -> None:
    with pytest.raises(WrongField) as told:
        _form(weight=text).weight()
    assert told.value.name == "weight"


def test_the_next_page_begins_after_the_last_user_and_keeps_what_was_asked_for() -> None:
    told = admin_pb2.ListUsersResponse(users=[admin_pb2.User(id="u1", name="a/b")], has_more=True)
    view = users_view(told, {"text": "a&b", "after": "u0"})
    assert view.next_href == "/console/users?text=a%26b&after=u1"
    assert view.first_href == "/console/users?text=a%26b"
    assert view.rows[0].path == "/console/users/a%2Fb"


def test_a_state_that_users_do_not_have_is_told_at_its_field() -> None:
    with pytest.raises(WrongField) as told:
        asked_for(_form(state="asleep"))
    assert told.value.name == "state"


@pytest.mark.parametrize(("left_days", "state"), [(30, "active"), (7, "expires soon"), (0, "expired"), (-1, "expired")])
def test_a_key_that_expires_within_a_week_says_so(left_days: int, state: str) -> None:
    expires_at_us = int(NOW * 1e6) + left_days * DAY_US
    key = admin_pb2.Key(id="k", state=admin_pb2.KEY_STATE_ACTIVE, expires_at_us=expires_at_us)
    assert key_rows([key], NOW)[0].state == state


def test_a_revoked_key_is_revoked_whenever_it_would_have_expired() -> None:
    key = admin_pb2.Key(id="k", state=admin_pb2.KEY_STATE_REVOKED, expires_at_us=1)
    assert key_rows([key], NOW)[0].state == "revoked"


def test_a_forms_terms_take_away_what_it_no_longer_has() -> None:
    terms = key_terms_pb2.KeyTerms(denied_models=["big"], max_output_tokens=5)
    before = key_view(admin_pb2.Key(id="k", name="n", labels={"a": "1", "b": "2"}, terms=terms), NOW)
    asked = terms_change_of("k", before, _form(name="n", labels="b=3\nc=4", pools="one\ntwo"))
    assert dict(asked.labels) == {"b": "3", "c": "4"}
    assert list(asked.removed_labels) == ["a"]
    assert list(asked.denied_models.words) == []
    assert asked.HasField("denied_models")
    assert not asked.max_output_tokens.HasField("tokens")
    assert asked.HasField("max_output_tokens")
    assert list(asked.pools.words) == ["one", "two"]


def test_groups_stand_below_the_group_that_they_lie_in_with_their_share_of_the_level() -> None:
    told = [
        admin_pb2.Group(id="1", name="b", weight_milli=1000),
        admin_pb2.Group(id="2", name="a", weight_milli=3000),
        admin_pb2.Group(id="3", name="inner", parent_id="1", parent_name="b", weight_milli=500),
        admin_pb2.Group(id="4", name="lost", parent_id="gone", weight_milli=1000),
    ]
    assert [(row.name, row.depth, row.share) for row in group_rows(told)] == [
        ("a", 0, "60 %"),
        ("b", 0, "20 %"),
        ("inner", 1, "100 %"),
        ("lost", 0, "20 %"),
    ]


def test_a_group_may_not_lie_in_itself_nor_in_what_lies_in_it() -> None:
    told = [
        admin_pb2.Group(id="1", name="top"),
        admin_pb2.Group(id="2", name="middle", parent_id="1", parent_name="top"),
        admin_pb2.Group(id="3", name="low", parent_id="2", parent_name="middle"),
    ]
    view = group_view(told, "MIDDLE")
    assert view is not None
    assert list(view.may_lie_in) == ["top"]
    assert list(view.above) == ["top"]
    assert [child.name for child in view.children] == ["low"]
    assert group_view(told, "none") is None


def test_a_budget_says_what_is_spent_and_free_of_all_of_it() -> None:
    budget = admin_pb2.BudgetStanding(
        unit=admin_pb2.BUDGET_UNIT_MONEY,
        amount=20_000_000,
        carried=5_000_000,
        spent=30_000_000,
        period=admin_pb2.BUDGET_PERIOD_MONTH,
    )
    row = budget_row(budget)
    assert row.size == "20.00 money a month"
    assert row.words == "30.00 spent, 0.00 free of 25.00"
    budget.ClearField("spent")
    assert budget_row(budget).words == "not counted at the moment"


def test_a_new_budget_of_hours_counts_them_in_seconds() -> None:
    budget = order_of(_form(unit="tokens", amount="1,000", period="window", window="6"))
    assert (budget.amount, budget.window_s, budget.HasField("carry_most")) == (1000, 21_600, False)


@pytest.mark.parametrize(
    ("fields", "at"),
    [
        ({"amount": ""}, "amount"),
        ({"amount": "0"}, "amount"),
        ({"unit": "money", "amount": "0"}, "amount"),
        ({"unit": "hours", "amount": "1"}, "unit"),
        ({"amount": "1", "period": "window"}, "window"),
        ({"amount": "1", "carry_most": "x"}, "carry_most"),
    ],
)
def test_what_is_wrong_with_a_new_budget_is_told_at_its_field(fields: dict[str, str], at: str) -> None:
    with pytest.raises(WrongField) as told:
        order_of(_form(**fields))
    assert told.value.name == at


def test_whose_budgets_are_spent_furthest_stand_first() -> None:
    def quota(name: str, *spent: int) -> admin_pb2.Quota:
        budgets = [admin_pb2.BudgetStanding(id=f"{name}-{one}", amount=100, spent=one) for one in spent]
        return admin_pb2.Quota(kind="user", name=name, budgets=budgets)

    told = [quota("none"), quota("half", 50), quota("most", 10, 99)]
    assert [one.name for one in quotas_view(told, {}).quotas] == ["most", "half", "none"]
    assert [one.name for one in quotas_view(told, {"text": "HALF"}).quotas] == ["half"]
    assert quotas_view(told, {"kind": "group"}).quotas == ()


def test_many_quotas_are_told_page_by_page() -> None:
    told = [admin_pb2.Quota(kind="user", name=f"u{number:03}") for number in range(90)]
    first, last = quotas_view(told, {}), quotas_view(told, {"page": "3"})
    assert (len(first.quotas), first.number, first.previous_href) == (40, 90, "")
    assert first.next_href == "/console/budgets?page=2"
    assert (len(last.quotas), last.next_href, last.previous_href) == (10, "", "/console/budgets?page=2")
    assert quotas_view(told, {"page": "99"}).quotas == first.quotas


def test_a_wish_is_told_in_words() -> None:
    limits = key_terms_pb2.QuotaWish(limits=key_terms_pb2.LimitsWish(key_id="k", requests_per_minute=1200))
    assert wish_words(limits, {}) == ["Requests per minute of the key k: 1,200"]
    terms = key_terms_pb2.SetKeyTermsRequest(key_id="k", allowed_models=key_terms_pb2.Words(words=["a", "b"]))
    terms.max_output_tokens.SetInParent()
    assert wish_words(key_terms_pb2.QuotaWish(key_terms=terms), {}) == [
        "The key k",
        "Models: a, b",
        "Tokens of an answer: any",
    ]
    assert wish_words(key_terms_pb2.QuotaWish(), {}) == ["Something that this version does not know"]


def test_a_wish_for_another_budget_is_told_in_what_it_counts() -> None:
    money = admin_pb2.BudgetStanding(id="b1", unit=admin_pb2.BUDGET_UNIT_MONEY, amount=5_000_000)
    budgets = budgets_by_id([admin_pb2.Quota(budgets=[money])])
    wish = key_terms_pb2.QuotaWish(budget=key_terms_pb2.BudgetWish(id="b1", amount=7_500_000))
    assert wish_words(wish, budgets) == ["The budget of 5.00 money for ever: 7.50 instead"]
    assert wish_words(wish, {}) == ["The budget b1, which there is not any more"]


def test_the_matrix_has_every_permission_and_every_call_for_every_role() -> None:
    lines = {line.name: [cell.word for cell in line.cells] for line in matrix()}
    assert all(len(words) == len(Role) for words in lines.values())
    assert lines["recordings:read"] == ["—", "all", "—", "all"]
    assert lines["keys:write"][0] == "part"
    assert [line.name for line in call_matrix()] == sorted(calls())
