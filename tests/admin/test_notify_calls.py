"""Subscriptions, events and thresholds as people have them: whose they are, what is audited, and that a threshold of a
budget or balance is told once, whichever replica sees it and whatever comes again."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from forebay.clock import SystemClock
from forebay.database import open_database
from forebay.ledger_id import new_ledger_id
from forebay.subjects import usage
from forebay.wire.v1 import types_pb2, usage_pb2
from forebay_admin.notify.outbox import Outbox
from forebay_admin.notify.threshold_watch import ThresholdWatch
from forebay_admin.people.people import Role
from tests.admin.replica import OperatorCalls, Running, Start
from tests.admin.smtp_server import open_smtp
from tests.admin.test_cli import Invoke, forebay, told
from tests.admin.test_notify import open_hook
from tests.admin.test_operator import query, refused, somebody

__all__ = ["forebay"]  # the fixture


def record(user: str, key: str, group: str, tokens: int) -> usage_pb2.UsageRecord:
    at = time.time()
    return usage_pb2.UsageRecord(
        ledger_id=new_ledger_id(at),
        key_id=key,
        user_id=user,
        group_id=group,
        model="tiny",
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(at * 1_000_000),
        usage=types_pb2.TokenUsage(completion_tokens=tokens, source=types_pb2.USAGE_SOURCE_ENGINE),
    )


async def events(calls: OperatorCalls, kind: str, count: int) -> list[Any]:
    """The oldest first, once there are so many."""
    async with asyncio.timeout(60):
        while True:
            found = (await calls.ListEvents(kind=kind)).events
            if len(found) >= count:
                return [one.event for one in reversed(found)]
            await asyncio.sleep(0.05)


async def state_of(calls: OperatorCalls, event_id: str, subscription_id: str, state: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            for one in (await calls.ShowEvent(id=event_id)).told.deliveries:
                if (one.subscription_id, one.state) == (subscription_id, state):
                    return one
            await asyncio.sleep(0.05)


async def test_thresholds_of_budgets_and_balances_are_told_once_to_whom_they_are_about_and_to_who_subscribed(
    start: Start,
) -> None:
    async with open_smtp() as smtp, start(smtp_host="127.0.0.1", smtp_port=smtp.port, smtp_tls="none") as admin:
        operator = await admin.operator()
        team = (await operator.AddGroup(name="team")).group.id
        alice = await somebody(admin, "alice@example.com", Role.MEMBER)
        user = (await operator.ChangeUser(name="alice@example.com", group="team")).user.id
        key = (await alice.ListKeys()).keys[0].id
        ops = (
            await operator.AddSubscription(channel="mail", address="ops@example.com", kinds=["budget.*"])
        ).subscription
        of_alice = {"user": "alice@example.com"}
        await operator.SetPrice(model="tiny", terms={"completion_micros": 1_000_000})
        await operator.OpenBalance(owner={"group": "team"}, amount_micros=1000)
        tokens = (await operator.AddBudget(subject=of_alice, unit="BUDGET_UNIT_TOKENS", amount=1000)).budget
        money = (await operator.AddBudget(subject={"group": "team"}, unit="BUDGET_UNIT_MONEY", amount=10_000)).budget
        of_key = (await operator.AddBudget(subject={"key_id": key}, unit="BUDGET_UNIT_TOKENS", amount=900)).budget
        assert (await operator.SetBudgetThresholds(id=money.id, percents=[8, 9])).percents == [8, 9]
        assert (await operator.SetBudgetThresholds(id=of_key.id)).percents == []

        one = record(user, key, team, 850)
        batch = usage_pb2.UsageBatch(records=[one]).SerializeToString()
        await admin.bus.append(usage("gateway-1"), batch)
        found = await events(operator, "budget.*", 3)
        assert [(e.subject, json.loads(e.body)["percent"]) for e in found] == [
            ("user alice@example.com", 50),
            ("user alice@example.com", 80),
            ("group team", 8),
        ]
        assert found[1].summary == ("80 % of the budget of user alice@example.com is used: 850 tokens of 1,000 tokens.")
        (low,) = await events(operator, "balance.low", 1)
        assert (low.subject, json.loads(low.body)["left_micros"]) == ("group team", 150)

        # The same again, and several that look at the same time, one of which dies before it has committed.
        await admin.bus.append(usage("gateway-1"), batch)
        more = [record(user, key, team, 100), one]
        await admin.bus.append(usage("gateway-1"), usage_pb2.UsageBatch(records=more).SerializeToString())
        async with asyncio.timeout(30):
            while (await query(admin, "SELECT count(*) AS n FROM admin.usage_ledger"))[0]["n"] < 2:
                await asyncio.sleep(0.05)
        async with open_database(admin.site.database_url, "admin") as database:
            outbox = Outbox(SystemClock(), mails=True)
            dying = ThresholdWatch(database, _Dies(SystemClock()), SystemClock())
            watches = [ThresholdWatch(database, outbox, SystemClock()) for _ in range(3)]
            await asyncio.gather(
                *(watch.look_at_all() for watch in (dying, *watches)), dying.look_at_all(), return_exceptions=True
            )
            for watch in watches:
                await watch.look_at_all()
        told_of = [(e.subject, json.loads(e.body)["percent"]) for e in await events(operator, "budget.*", 4)]
        assert sorted(told_of) == [
            ("group team", 8),
            ("group team", 9),
            ("user alice@example.com", 50),
            ("user alice@example.com", 80),
        ]
        lows = [json.loads(e.body)["percent"] for e in await events(operator, "balance.low", 2)]
        assert lows == [20, 5]
        assert tokens.id == json.loads(found[0].body)["budget"]

        for event in await events(operator, "budget.*", 4):
            await state_of(operator, event.id, ops.id, "delivered")
        await state_of(operator, found[1].id, "owners", "delivered")
        await state_of(operator, found[0].id, "owners", "delivered")
        assert sorted(to for to, _ in smtp.mails) == [*["alice@example.com"] * 2, *["ops@example.com"] * 4]
        assert smtp.broken == []
        rows = await query(admin, "SELECT action FROM admin.audit_log WHERE action ~ '^notify|thresholds' ORDER BY id")
        assert [row["action"] for row in rows] == ["notify.add", "budget.thresholds", "budget.thresholds"]


class _Dies(Outbox):
    async def put(self, *args: Any, **fields: Any) -> str:
        await super().put(*args, **fields)
        raise RuntimeError("it dies")


async def test_who_asks_for_more_and_what_becomes_of_it_is_told_and_members_see_only_their_own(admin: Running) -> None:
    async with open_hook() as hook:
        operator = await admin.operator()
        alice, bob = await somebody(admin, "alice", Role.MEMBER), await somebody(admin, "bob", Role.MEMBER)
        secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="
        added = await operator.AddSubscription(channel="webhook", address=hook.url, kinds=["quota.*"], secret=secret)
        about_bob = await operator.AddSubscription(channel="webhook", address=hook.url, user="bob", secret=secret)
        assert added.secret == secret
        asked = (await alice.RequestQuota(wish={"limits": {"concurrency": 4}}, reason="a deadline")).request
        await operator.DecideQuotaRequest(id=asked.id, approve=False, answer="next week")
        first, second = await events(operator, "quota.*", 2)
        assert (first.kind, first.summary) == ("quota.asked", "alice asks for more: a deadline")
        assert (second.kind, second.summary) == (
            "quota.decided",
            "admin denied what alice asked for: next week",
        )
        for event in (first, second):
            await state_of(operator, event.id, added.subscription.id, "delivered")
        assert [body["type"] for _, body in hook.got] == ["quota.asked", "quota.decided"]
        assert hook.unsigned == 0

        assert [one.event.id for one in (await alice.ListEvents(kind="quota.*")).events] == [second.id, first.id]
        assert [d.subscription_id for d in (await alice.ShowEvent(id=first.id)).told.deliveries] == []
        assert not (await bob.ListEvents(kind="quota.*")).events
        assert (await refused(bob.ShowEvent(id=first.id))).startswith("NOT_FOUND")
        assert (await refused(bob.RemoveSubscription(id=about_bob.subscription.id[:3]))).startswith("NOT_FOUND")
        assert (await refused(alice.RemoveSubscription(id=added.subscription.id))).startswith("NOT_FOUND")
        assert (await refused(alice.TestSubscription(id=added.subscription.id))).startswith("NOT_FOUND")
        assert (await refused(alice.AddSubscription(channel="webhook", address=hook.url))).startswith(
            "PERMISSION_DENIED"
        )
        assert (await refused(alice.AddSubscription(channel="mail", address="a@b.c"))).startswith("FAILED_PRECONDITION")
        assert not (await alice.ListSubscriptions()).subscriptions
        assert [s.id for s in (await bob.ListSubscriptions()).subscriptions] == [about_bob.subscription.id]
        everything = str(await operator.ListSubscriptions()) + str(
            [dict(row) for row in await query(admin, "SELECT before::text, after::text FROM admin.audit_log")]
        )
        assert "deep" not in everything
        assert "MDEyMzQ1" not in everything


async def test_subscriptions_are_added_tried_listed_and_removed_at_the_command_line(
    forebay: Invoke, admin: Running
) -> None:
    async with open_hook() as hook:
        added = told(await forebay("notify", "add", "webhook", hook.url, "--kind", "budget.*", "--json"))
        subscription = added["subscription"]["id"]
        assert added["secret"].startswith("whsec_")
        tried = await forebay("notify", "test", subscription)
        assert tried.output.startswith("It is on its way. How it went: forebay notify show event_")
        operator = await admin.operator()
        event = tried.output.split()[-1]
        await state_of(operator, event, subscription, "delivered")
        assert [(one, body["type"]) for one, body in hook.got] == [(event, "notify.test")]
        shown = await forebay("notify", "show", event[:20])
        assert "127.0.0.1" in shown.output
        assert "delivered" in shown.output
        listed = await forebay("notify", "list")
        assert [line.split()[0] for line in listed.output.splitlines() if line.split()[1:2]][1:] == [
            *("nats", "owners", subscription),
        ]
        assert "deep/path" not in listed.output
        assert [
            e["event"]["kind"] for e in told(await forebay("notify", "events", "--kind", "notify.*", "--json"))
        ] == ["notify.test"]
        assert (await forebay("notify", "retry")).output == "Nothing was given up.\n"
        removed = await forebay("notify", "remove", subscription)
        assert removed.output.startswith(f"{subscription} is removed: webhook 127.0.0.1:")
        refusal = await forebay("notify", "remove", "nats")
        assert "always there" in str(refusal.exception)
        budget = await operator.AddBudget(subject={"user": "admin"}, unit="BUDGET_UNIT_TOKENS", amount=1000)
        said = await forebay("notify", "thresholds", budget.budget.id, "75", "90")
        assert said.output == f"Of the budget {budget.budget.id} is told at 75 %, 90 %.\n"
        assert "--usual" in str((await forebay("notify", "thresholds", budget.budget.id)).exception)


WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("AddSubscription", {"channel": "webhook", "address": "http://169.254.169.254/x"}, "INVALID_ARGUMENT"),
    ("AddSubscription", {"channel": "webhook", "address": "http://h/", "user": "nobody"}, "NOT_FOUND"),
    ("AddSubscription", {"channel": "webhook", "address": "http://h/", "kinds": ["x"]}, "INVALID_ARGUMENT"),
    ("ListEvents", {"limit": 501}, "INVALID_ARGUMENT"),
    ("ListEvents", {"state": "lost"}, "INVALID_ARGUMENT"),
    ("ListEvents", {"kind": "lost"}, "INVALID_ARGUMENT"),
    ("ListEvents", {"before": 2**63}, "INVALID_ARGUMENT"),
    ("SetBudgetThresholds", {"id": "x", "percents": [0]}, "INVALID_ARGUMENT"),
    ("SetBudgetThresholds", {"id": "x", "percents": [2**32 - 1]}, "INVALID_ARGUMENT"),
    ("SetBudgetThresholds", {"id": "x", "percents": [1], "usual": True}, "INVALID_ARGUMENT"),
    ("RetryDeliveries", {"subscription_id": "x"}, "NOT_FOUND"),
    ("TestSubscription", {"id": "owners"}, "FAILED_PRECONDITION"),
)


async def test_what_is_wrong_is_said(admin: Running) -> None:
    operator = await admin.operator()
    for call, fields, words in WRONG:
        told_why = await refused(getattr(operator, call)(**fields))
        assert told_why.startswith(words), (call, fields, told_why)
