"""What is decided about events: who may be told, when a delivery is over, which thresholds are reached, in which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import BadInput, ForebayError
from forebay.webhook import Posted
from forebay_admin.money.balances import Account, Balance
from forebay_admin.notify.delivery_rules import PATIENCE, Next, State, after
from forebay_admin.notify.kinds import SUMMARY, Kind, demand_kinds, patterns_of
from forebay_admin.notify.mail import message_of
from forebay_admin.notify.subscriptions import Channel, Order, is_mail, key_of, order_subscription
from forebay_admin.notify.threshold_events import balance_body, budget_body, money, span_named
from forebay_admin.notify.thresholds import demand_percents, low, reached
from forebay_admin.notify.wording import Event, body_of
from forebay_admin.quotas.periods import Period
from forebay_admin.quotas.quotas import Budget, BudgetUnit, Standing, Subject, SubjectKind

NOW = datetime(2027, 3, 28, 12, 0, tzinfo=UTC)
WELL, BADLY, NEVER = Posted(True, "ok", 0.1), Posted(False, "no", 0.1), Posted(False, "gone", 0.1, is_gone=True)
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="


def ordered(
    channel: str, address: str, *, secret: str = "", own_name: str | None = None, has_mail: bool = True
) -> Order:
    return order_subscription(
        channel=channel, address=address, secret=secret, kinds=["budget.*"], own_name=own_name, has_mail=has_mail
    )


def test_a_webhook_is_shown_by_its_host_and_signs_with_a_secret_that_is_made_where_none_is_given() -> None:
    order = ordered("webhook", "https://hooks.example.com:8443/T0/B0?token=deep")
    assert (order.channel, order.address, len(key_of(order.secret))) == (Channel.WEBHOOK, "hooks.example.com:8443", 32)
    assert "deep" not in repr(order)
    assert order.secret not in repr(order)
    assert key_of(ordered("webhook", "http://10.1.2.3/", secret=SECRET).secret) == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("channel", "address", "fields", "words"),
    [
        ("webhook", "ftp://h/secret-path", {}, "begins with http"),
        ("webhook", "http:///secret-path", {}, "begins with http"),
        ("webhook", "http://h:99999/secret-path", {}, "begins with http"),
        ("webhook", "http://h/a b", {}, "begins with http"),
        ("webhook", "http://h/\r\nx: secret-path", {}, "begins with http"),
        ("webhook", "http://u:secret-path@h/", {}, "no user and password"),
        ("webhook", "http://169.254.169.254/secret-path", {}, "metadata"),
        ("webhook", "http://0xa9fea9fe/secret-path", {}, "metadata"),
        ("webhook", "http://[::ffff:169.254.169.254]/", {}, "metadata"),
        ("webhook", "http://metadata.google.internal/", {}, "metadata"),
        ("webhook", "http://h/", {"secret": "short"}, "16 to 64 bytes"),
        ("webhook", "http://h/", {"secret": "whsec_c2hvcnQ="}, "16 to 64 bytes"),
        ("webhook", "http://h/", {"own_name": "alice"}, "added by operators"),
        ("mail", "nobody", {}, "not a mail address"),
        ("mail", "a@b\r\nBcc: everybody@example.com", {}, "not a mail address"),
        ("mail", "a@b.c", {"secret": SECRET}, "not signed"),
        ("mail", "a@b.c", {"has_mail": False}, "smtp_host"),
        ("mail", "bob@example.com", {"own_name": "alice@example.com"}, "their name"),
        ("mail", "", {"own_name": "alice"}, "not a mail address"),
        ("nats", "", {}, "on NATS already"),
        ("pigeon", "", {}, "webhook and mail"),
    ],
)
def test_what_cannot_be_a_subscription_is_refused_without_a_word_of_what_may_be_secret(
    channel: str, address: str, fields: dict[str, str], words: str
) -> None:
    with pytest.raises(ForebayError, match=words) as error:
        ordered(channel, address, **fields)  # type: ignore[arg-type]
    assert "secret-path" not in str(error.value)


def test_a_member_has_mail_sent_to_an_address_that_is_their_name() -> None:
    for told in ("", "Alice@example.com"):
        assert ordered("mail", told, own_name="alice@example.com").address.lower() == "alice@example.com"


def test_kinds_are_named_by_themselves_in_groups_or_all_together() -> None:
    assert demand_kinds([]) == demand_kinds(["*", "budget.*"]) == ["*"]
    assert demand_kinds(["quota.asked", "budget.*", "budget.*"]) == ["budget.*", "quota.asked"]
    assert patterns_of(Kind.QUOTA_ASKED) == ("quota.asked", "quota.*", "*")
    for wrong in ("budget", "bud*", "everything.*", ""):
        with pytest.raises(BadInput, match="There are no events"):
            demand_kinds([wrong])


def test_what_fails_is_tried_again_later_each_time_and_is_dead_after_three_days() -> None:
    assert after(WELL, attempts=5, since=NOW, failures=4, now=NOW, jitter=0.5) == Next(State.DELIVERED, NOW, 0, NOW)
    waits = [
        (after(BADLY, attempts=n + 1, since=NOW, failures=n, now=NOW, jitter=0.5).retry_at - NOW).total_seconds()
        for n in range(12)
    ]
    assert waits == [*(2.0 * 2**n for n in range(9)), 900.0, 900.0, 900.0]
    asked = after(Posted(False, "", 0.1, after_s=60.0), attempts=1, since=NOW, failures=0, now=NOW, jitter=0.5)
    assert (asked.state, asked.due_at, asked.retry_at) == (State.WAITING, *2 * [NOW + timedelta(minutes=1)])
    late = after(BADLY, attempts=9, since=NOW - PATIENCE, failures=9, now=NOW, jitter=0.5)
    assert (late.state, late.failures) == (State.DEAD, 10)
    # A receiver that refuses this one for good is not to blame for it.
    assert after(NEVER, attempts=1, since=NOW, failures=0, now=NOW, jitter=0.5) == Next(State.DEAD, NOW, 0, NOW)


@given(st.integers(0, 10**18), st.integers(1, 10**18), st.lists(st.integers(1, 1000), max_size=20))
def test_thresholds_are_reached_exactly_when_so_much_is_used(spent: int, amount: int, percents: list[int]) -> None:
    told = demand_percents(percents)
    assert list(told) == sorted(set(percents))
    assert reached(spent, amount, told) == [p for p in told if spent * 100 >= amount * p]
    if 100 in told and spent < amount:
        assert 100 not in reached(spent, amount, told)


def test_thresholds_that_are_none_are_refused_and_a_balance_is_low_by_its_last_top_up() -> None:
    for wrong in ([0], [1001], list(range(1, 22))):
        with pytest.raises(BadInput):
            demand_percents(wrong)
    assert [low(left, 1000) for left in (201, 200, 50, 0, -5)] == [[], [20], [20, 5], [20, 5, 0], [20, 5, 0]]


def budget(period: Period = Period.DAY, *, window_s: int | None = None, unit: BudgetUnit = BudgetUnit.TOKENS) -> Budget:
    return Budget("budget_1", unit, 1000, period, "Europe/Berlin", NOW - timedelta(days=90), window_s)


def test_a_threshold_is_told_once_a_period_of_the_zones_calendar_and_once_a_windows_length() -> None:
    # The day on which Berlin's clocks are set forward begins at 23:00 and ends at 22:00 UTC.
    moments = [datetime(2027, 3, 27, 23, 0, tzinfo=UTC), NOW, datetime(2027, 3, 28, 21, 59, tzinfo=UTC)]
    assert len({span_named(budget(), at) for at in moments}) == 1
    assert span_named(budget(), datetime(2027, 3, 28, 22, 0, tzinfo=UTC)) != span_named(budget(), NOW)
    window = budget(Period.EVER, window_s=86_400)
    first = datetime(2027, 3, 28, tzinfo=UTC)
    assert len({span_named(window, first + timedelta(hours=h)) for h in range(24)}) == 1
    assert span_named(window, first + timedelta(days=1)) != span_named(window, first)


def test_what_is_told_of_a_budget_and_a_balance_says_how_much_of_what_and_until_when() -> None:
    alice = Subject(SubjectKind.USER, "u1", "alice")
    told = budget_body(alice, Standing(budget(), 1100, NOW, NOW + timedelta(hours=10), NOW, 200), 80)
    assert told[SUMMARY] == (
        "80 % of the budget of user alice is used: 1,100 tokens of 1,200 tokens, until 2027-03-28 22:00 UTC."
    )
    assert (told["spent"], told["amount"], told["unit"]) == (1100, 1200, "tokens")
    spent = Standing(budget(Period.EVER, unit=BudgetUnit.MONEY), 999, NOW, None, NOW)
    assert "0.00 of 0.00." in budget_body(alice, spent, 50)[SUMMARY]
    account = Account("balance_1", None, "g1", "physics", "admin", NOW)
    told = balance_body(Balance(account, 10_000_000, 9_500_001, 0), 5_000_000, 20)
    assert told[SUMMARY] == "0.49 is left of what was paid in advance for group physics; 5.00 was paid last."
    assert [money(m) for m in (-1, -1_000_000, 1_234_567_890)] == ["-0.00", "-1.00", "1,234.56"]


def test_a_mail_is_one_message_to_one_address_whatever_the_event_says() -> None:
    hostile = "alice\r\nBcc: everybody@example.com\r\n\r\nHello"
    event = Event("event_1", 7, "quota.asked", f"user {hostile}", NOW, {SUMMARY: hostile, "wish": {"a": "\u202e\0"}})
    message = message_of(event, "ops@example.com", "Forebay <forebay@example.com>")
    assert [(name, str(value)) for name, value in message.items() if name in ("To", "Bcc", "Message-ID")] == [
        ("To", "ops@example.com"),
        ("Message-ID", "<event_1@example.com>"),
    ]
    assert "\nBcc:" not in message.as_string()
    assert "About: user alice  Bcc: everybody@example.com" in message.get_content()


@pytest.mark.parametrize("word", ["=?utf-8?q?a=0D=0ABcc=3A_everybody@example.com?=", "=?utf-8?b?///?= ü"])
def test_what_looks_like_an_encoded_word_is_not_taken_for_one(word: str) -> None:
    event = Event("event_1", 7, "quota.asked", "user alice", NOW, {SUMMARY: f"alice asks: {word}"})
    written = message_of(event, "ops@example.com", "forebay@example.com").as_bytes()
    assert b"\nBcc:" not in written
    assert not is_mail("=?utf-8?q?a=0D=0ABcc=3A_b?=@example.com")


def test_a_webhooks_body_has_the_events_type_time_and_data() -> None:
    event = Event("event_1", 7, "budget.threshold", "user alice", NOW, {SUMMARY: "s", "percent": 80}, "alice")
    assert json.loads(body_of(event)) == {
        "type": "budget.threshold",
        "timestamp": "2027-03-28T12:00:00.000Z",
        "data": {
            "event_id": "event_1",
            "number": 7,
            "subject": "user alice",
            "user": "alice",
            "summary": "s",
            "percent": 80,
        },
    }
