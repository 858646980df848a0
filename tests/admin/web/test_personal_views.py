"""One's own things, as they are shown and as forms say them."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.wire.v1 import admin_pb2, identity_pb2, key_terms_pb2, prices_pb2, registry_pb2, types_pb2, usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as usage
from forebay_admin.people.people import Role
from forebay_admin.people.permissions import GROUPS, parse_permission
from forebay_admin.people.rights import Rights
from forebay_admin.people.roles import Reach
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.personal.keys_view import (
    change_of,
    creation_of,
    expiring,
    first_model,
    own_keys,
    renewal_of,
    rotation_of,
)
from forebay_admin.web.personal.limits_view import (
    asked_view,
    balance_view,
    budget_wish,
    limits_view,
    limits_wish,
)
from forebay_admin.web.personal.sessions_view import grantable, sessions_view, token_of, tokens_view
from forebay_admin.web.personal.usage_view import (
    SPANS,
    Asked,
    asked_from,
    keys_of,
    models_of,
    plot,
    points_of,
    question,
    question_of_all,
    request_rows,
    steps_of,
    usage_view,
)

NOW = 1_800_000_000.0
DAY_US = 86_400_000_000


def us(at: float) -> int:
    return round(at * 1e6)


def form(**fields: str) -> Form:
    return Form(tuple(fields.items()))


def key(name: str, **more: Any) -> admin_pb2.Key:
    told: dict[str, Any] = {"id": f"id-{name}", "name": name, "state": admin_pb2.KEY_STATE_ACTIVE, "created_at_us": 1}
    return admin_pb2.Key(**{**told, **more})


def test_keys_that_work_come_first_and_those_that_end_soon_are_warned_of() -> None:
    keys = own_keys(
        [
            key("gone", state=admin_pb2.KEY_STATE_REVOKED, expires_at_us=us(NOW + 60)),
            key("past", expires_at_us=us(NOW - 60)),
            key("soon", expires_at_us=us(NOW) + 6 * DAY_US),
            key("later", expires_at_us=us(NOW) + 8 * DAY_US, created_at_us=2),
        ],
        NOW,
    )
    assert [(one.name, one.state) for one in keys] == [
        ("later", "works"),
        ("soon", "works"),
        ("gone", "revoked"),
        ("past", "expired"),
    ]
    assert [one.name for one in expiring(keys)] == ["soon"]


def test_a_key_is_shown_with_a_model_that_is_served_and_allowed() -> None:
    models = [
        registry_pb2.FleetModel(name="gone", capabilities=["chat"]),
        registry_pb2.FleetModel(name="embeds", capabilities=["embedding"], healthy_backends=1),
        registry_pb2.FleetModel(name="talks", capabilities=["chat"], healthy_backends=1),
    ]
    assert (found := first_model(models, ())) is not None
    assert found.name == "talks"
    assert (found := first_model(models, ("embeds",))) is not None
    assert found.name == "embeds"
    assert first_model(models, ("gone",)) is None


def test_a_new_key_is_what_its_form_says() -> None:
    made = creation_of(
        form(
            name="laptop", models="llama*, qwen3", addresses="10.0.0.0/8", calls="chat", days="30", max_output="1,000"
        ),
        "alice",
    )
    assert (made.user, made.name, list(made.allowed_models)) == ("alice", "laptop", ["llama*", "qwen3"])
    assert (made.expires_in_s, made.terms.max_output_tokens) == (30 * 86_400, 1000)
    assert not creation_of(form(name="x"), "alice").HasField("expires_in_s")
    assert not creation_of(form(name="x"), "alice").terms.HasField("max_context_tokens")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "name"),
        ({"name": "x", "days": "-1"}, "days"),
        ({"name": "x", "days": "soon"}, "days"),
        ({"name": "x", "calls": "dance"}, "calls"),
        ({"name": "x", "band": "system"}, "band"),
        ({"name": "x", "max_output": "1.5"}, "max_output"),
        ({"name": "x", "max_context": str(10**12)}, "max_context"),
    ],
)
def test_a_wrong_field_of_a_new_key_is_named(fields: dict[str, str], name: str) -> None:
    with pytest.raises(WrongField) as told:
        creation_of(form(**fields), "alice")
    assert told.value.name == name


def test_an_empty_field_takes_a_restriction_away_and_none_is_left_as_it_was() -> None:
    change = change_of(form(name="x"), "k")
    assert (list(change.allowed_models.words), change.max_output_tokens.HasField("tokens")) == ([], False)
    assert all(change.HasField(field) for field in ("allowed_models", "denied_models", "addresses", "calls"))
    assert not renewal_of(form(days=""), "k").HasField("expires_in_s")
    assert rotation_of(form(overlap="3600"), "k").overlap_s == 3600
    with pytest.raises(WrongField):
        rotation_of(form(overlap="5"), "k")


def test_budgets_say_what_is_spent_what_is_left_and_when_they_begin_anew() -> None:
    budgets = [
        admin_pb2.BudgetStanding(
            id="b1",
            unit=admin_pb2.BUDGET_UNIT_TOKENS,
            amount=1000,
            carried=200,
            spent=300,
            period=admin_pb2.BUDGET_PERIOD_DAY,
            until_us=us(NOW),
        ),
        admin_pb2.BudgetStanding(id="b2", unit=admin_pb2.BUDGET_UNIT_MONEY, amount=5_000_000, window_s=3600),
    ]
    quotas = [
        admin_pb2.Quota(kind="user", name="alice", requests_per_minute=60, budgets=budgets),
        admin_pb2.Quota(kind="group", name="lab", concurrency=2),
        admin_pb2.Quota(kind="group", name="all"),
    ]
    mine, lab = limits_view(quotas)
    assert (mine.limits, lab.limits) == ((("Requests a minute", "60"),), (("Requests at once", "2"),))
    day, hour = mine.budgets
    assert (day.title, day.words, day.left, day.carried, day.begins_anew_at) == (
        "1,000 tokens a day",
        "300 tokens of 1,200 tokens",
        "900 tokens",
        "200 tokens",
        NOW,
    )
    assert (hour.title, hour.spent, hour.left, hour.anew) == ("5.00 in any 1 h", None, "unknown", "bit by bit")
    wish = budget_wish(form(budget="b2", amount="12.50", reason="a demo"), mine.budgets).wish
    assert (wish.budget.id, wish.budget.amount) == ("b2", 12_500_000)
    with pytest.raises(WrongField):
        budget_wish(form(budget="other", amount="1", reason="x"), mine.budgets)
    with pytest.raises(WrongField):
        budget_wish(form(budget="b1", amount="1.5", reason="x"), mine.budgets)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"reason": "x"}, "requests_per_minute"),
        ({"concurrency": "2"}, "reason"),
        ({"concurrency": "0", "reason": "x"}, "concurrency"),
        ({"tokens_per_minute": "many", "reason": "x"}, "tokens_per_minute"),
    ],
)
def test_a_wrong_field_of_a_wish_is_named(fields: dict[str, str], name: str) -> None:
    with pytest.raises(WrongField) as told:
        limits_wish(form(**fields))
    assert told.value.name == name


def test_what_was_asked_for_is_told_in_words() -> None:
    wish = key_terms_pb2.QuotaWish(limits=key_terms_pb2.LimitsWish(key_id="k", requests_per_minute=120, concurrency=4))
    denied = key_terms_pb2.QUOTA_REQUEST_STATE_DENIED
    (view,) = asked_view([key_terms_pb2.QuotaRequest(wish=wish, state=denied, answer="no")])
    assert view.what == "120 requests a minute, 4 requests at once for the key k"
    assert (view.state, view.answer) == ("denied", "no")


def test_nobody_has_a_balance_that_was_not_opened() -> None:
    assert balance_view(prices_pb2.ShowBalanceResponse()) is None
    balance = prices_pb2.Balance(id="b", kind="group", name="lab", paid_micros=10**7, left_micros=2_500_000)
    view = balance_view(prices_pb2.ShowBalanceResponse(balance=balance))
    assert view is not None
    assert (view.whose, view.left, view.paid) == ("Of the group lab", "2.50", "10.00")


def test_this_session_comes_first() -> None:
    sessions = [
        identity_pb2.Session(id="old", last_seen_at_us=1),
        identity_pb2.Session(id="new", last_seen_at_us=3),
        identity_pb2.Session(id="this", last_seen_at_us=2, is_this=True),
    ]
    assert [one.id for one in sessions_view(sessions)] == ["this", "new", "old"]
    assert tokens_view([identity_pb2.AdminToken(id="t", expires_at_us=us(NOW - 1))], NOW)[0].is_over


@pytest.mark.parametrize("role", list(Role))
def test_what_can_be_given_to_a_token_is_a_permission_and_no_more_than_one_has(role: Role) -> None:
    rights = Rights(role)
    offered = grantable(GROUPS, rights.reach)
    for text in offered:
        permission = parse_permission(text)
        for call in GROUPS[permission.name]:
            if permission.reach(call) is Reach.ALL:
                assert rights.reach(call) is Reach.ALL, (text, call)
    assert ("keys:write:own" in offered) is (role is not Role.ADMIN)
    assert ("fleet:write" in offered) is (role in (Role.OPERATOR, Role.ADMIN))


def test_a_token_needs_a_name_and_something_that_it_may() -> None:
    for fields in ({"name": "x"}, {"permissions": "keys:read:own"}, {"name": "x", "permissions": "a", "days": "0"}):
        with pytest.raises(WrongField):
            token_of(form(**fields), "alice")
    assert token_of(form(name="x", permissions="keys:read:own", days="7"), "alice").expires_in_s == 7 * 86_400


def test_usage_is_asked_for_by_its_address() -> None:
    assert asked_from(form()) == Asked("week", "", "")
    asked = asked_from(form(span="month", key="k", model="a/b"))
    assert asked.query == "span=month&key=k&model=a%2Fb"
    told = question(asked, "alice", NOW, usage.USAGE_COLUMN_MODEL)
    assert (told.user, told.key_id, told.to_us - told.from_us) == ("alice", "k", 30 * DAY_US)
    for wrong in ({"span": "century"}, {"key": "x" * 101}, {"model": "x" * 257}):
        with pytest.raises(WrongField):
            asked_from(form(**wrong))


@pytest.mark.parametrize("span", SPANS)
def test_one_question_has_room_for_every_step_of_all_that_are_told_apart(span: str) -> None:
    told = question_of_all(Asked(span, "", ""), "alice", NOW)
    seconds = (told.to_us - told.from_us) // 1_000_000
    steps = seconds // (3600 if told.bucket == usage.USAGE_BUCKET_HOUR else 86_400) + 1
    assert 20 < told.top <= 100
    assert steps * (told.top + 1) <= told.limit


def test_steps_models_and_keys_are_told_of_one_answer() -> None:
    def line(day: int, model: str, key: str, tokens: int, **more: Any) -> usage.UsageLine:
        sums = usage.UsageSums(requests=1, prompt_tokens=tokens, completion_tokens=1, cost_micros=tokens)
        name = {"k1": "laptop"}.get(key, "")
        return usage.UsageLine(at_us=day * DAY_US, model=model, key_id=key, key_name=name, sums=sums, **more)

    told = usage.QueryUsageResponse(
        to_us=3 * DAY_US,
        total=usage.UsageSums(requests=5),
        lines=[
            line(0, "small", "k1", 10),
            line(0, "large", "k2", 15),
            line(1, "small", "k2", 20),
            line(1, "", "", 500, rest=True),
            line(2, "", "k1", 1),
        ],
    )
    asked = Asked("week", "", "")
    assert [(one.name, one.requests, one.tokens) for one in models_of(told, asked)] == [
        ("small", 2, 32),
        ("large", 1, 16),
        ("unknown", 1, 2),
        ("all others", 1, 501),
    ]
    assert [(one.name, one.note, one.tokens, one.href) for one in keys_of(told, asked)] == [
        ("k2", "k2", 37, "/me/usage?span=week&key=k2"),
        ("laptop", "k1", 13, "/me/usage?span=week&key=k1"),
        ("all others", "", 501, ""),
    ]
    steps = steps_of(told)
    assert [(one.at, one.requests, one.prompt_tokens) for one in points_of(steps)] == [
        (2 * 86_400, 1, 1),
        (86_400, 2, 520),
        (0, 2, 25),
    ]
    assert plot(steps, asked, "requests")["series"] == [
        {"label": "Requests", "unit": "requests", "values": [2, 2, 1, 0]}
    ]
    assert usage_view(steps).requests == 5


def test_a_plot_has_every_step_and_money_in_its_unit() -> None:
    told = usage.QueryUsageResponse(
        from_us=0,
        to_us=2 * DAY_US,
        lines=[usage.UsageLine(at_us=DAY_US, sums=usage.UsageSums(cost_micros=2_500_000, requests=1))],
    )
    drawn = plot(told, Asked("week", "", ""), "cost")
    assert drawn["t"] == [0, 86_400, 172_800]
    assert drawn["series"] == [{"label": "Cost", "unit": "", "values": [0, 2.5, 0]}]


def test_sums_and_rows_are_shown() -> None:
    total = usage.UsageSums(requests=4, failed=1, refused=1, answered=2, ttft_ms=1000, cost_micros=1)
    view = usage_view(usage.QueryUsageResponse(total=total))
    assert (view.failed, view.ttft_s, view.cost, view.has_cost) == (2, 0.5, "0.000001", True)
    row = usage_pb2.UsageRecord(
        request_id="r",
        model="m",
        outcome=types_pb2.OUTCOME_REFUSED,
        reason="quota_spent",
        usage=types_pb2.TokenUsage(prompt_tokens=2, completion_tokens=3),
    )
    (shown,) = request_rows([row])
    assert (shown.outcome, shown.reason, shown.tokens, shown.ttft_s, shown.cost) == (
        "refused",
        "quota spent",
        5,
        None,
        "",
    )
