"""What operators say of shares, limits, budgets, prices and pools, and what the scheduler hears of it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from forebay.database import open_database
from forebay.ledger_id import new_ledger_id
from forebay.wire.v1 import admin_pb2, types_pb2, usage_pb2
from forebay_admin.ledger.ledger_store import LedgerStore
from forebay_admin.ledger.usage_rows import parse_batch
from forebay_admin.people.people import Role
from forebay_admin.quotas import spending
from tests.admin.replica import Running, Start
from tests.admin.test_operator import query, refused, somebody

TOKENS, MONEY = admin_pb2.BUDGET_UNIT_TOKENS, admin_pb2.BUDGET_UNIT_MONEY
DAY, MONTH = admin_pb2.BUDGET_PERIOD_DAY, admin_pb2.BUDGET_PERIOD_MONTH

WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("ChangeUser", {"name": "admin", "weight_milli": 0}, "INVALID_ARGUMENT: A weight is more than 0"),
    ("ChangeUser", {"name": "admin", "weight_milli": 2**31}, "INVALID_ARGUMENT: A weight is at most 1000."),
    ("ChangeUser", {"name": "admin", "max_queued": 2**31}, "INVALID_ARGUMENT: At most 1000000 requests"),
    ("ChangeUser", {"name": "admin"}, "INVALID_ARGUMENT: Say what is to be changed"),
    ("ChangeUser", {"name": "nobody", "paused": True}, "NOT_FOUND: There is no user nobody."),
    ("ChangeUser", {"name": "admin", "group": "nowhere"}, "NOT_FOUND: There is no group nowhere."),
    ("ChangeKey", {"key_id": "000000000000", "weight_milli": 1}, "NOT_FOUND: There is no key 000000000000."),
    ("ChangeKey", {"key_id": "000000000000", "weight_milli": 0}, "INVALID_ARGUMENT: A weight is more than 0"),
    ("AddGroup", {"name": "EVERYONE"}, "ALREADY_EXISTS: There is a group EVERYONE already."),
    ("AddGroup", {"name": "two words"}, "INVALID_ARGUMENT: A group's name is"),
    ("AddGroup", {"name": "x", "parent": "nowhere"}, "NOT_FOUND: There is no group nowhere."),
    ("AddGroup", {"name": "x", "weight_milli": 0}, "INVALID_ARGUMENT: A weight is more than 0"),
    ("ChangeGroup", {"name": "everyone", "parent": "Everyone"}, "INVALID_ARGUMENT: everyone cannot be in itself."),
    ("ChangeGroup", {"name": "nowhere", "paused": True}, "NOT_FOUND: There is no group nowhere."),
    (
        "RemoveGroup",
        {"name": "everyone"},
        "INVALID_ARGUMENT: everyone has members (admin): move each with `forebay user",
    ),
    ("PresetGroups", {"preset": "navy"}, "INVALID_ARGUMENT: There is no preset navy; there are university."),
    ("SetLimits", {"subject": {"user": "admin"}}, "INVALID_ARGUMENT: Say which limit is to be set"),
    ("SetLimits", {"concurrency": {"most": 1}}, "INVALID_ARGUMENT: Say whose quota is meant"),
    (
        "SetLimits",
        {"subject": {"user": "admin"}, "requests_per_minute": {"most": 0}},
        "INVALID_ARGUMENT: A limit of 0 requests per minute would let nothing through",
    ),
    (
        "SetLimits",
        {"subject": {"user": "admin"}, "tokens_per_minute": {"most": 2**64 - 1}},
        "INVALID_ARGUMENT: A limit of 18446744073709551615 tokens per minute limits nothing",
    ),
    (
        "SetLimits",
        {"subject": {"group": "nowhere"}, "concurrency": {"most": 1}},
        "NOT_FOUND: There is no group nowhere.",
    ),
    ("AddBudget", {"subject": {"user": "admin"}, "amount": 1}, "INVALID_ARGUMENT: Say whether the budget is of tokens"),
    ("AddBudget", {"subject": {"user": "admin"}, "unit": TOKENS}, "INVALID_ARGUMENT: A budget is more than nothing"),
    (
        "AddBudget",
        {"subject": {"user": "admin"}, "unit": MONEY, "amount": 2**64 - 1},
        "INVALID_ARGUMENT: That is more than anybody can spend",
    ),
    (
        "AddBudget",
        {"subject": {"user": "admin"}, "unit": TOKENS, "amount": 1, "time_zone": "Berlin"},
        "INVALID_ARGUMENT: There is no time zone Berlin; did you mean Europe/Berlin",
    ),
    (
        "AddBudget",
        {"subject": {"user": "admin"}, "unit": TOKENS, "amount": 1, "period": 99},
        "INVALID_ARGUMENT: There is no period 99",
    ),
    ("AddBudget", {"subject": {"user": "admin"}, "unit": 99, "amount": 1}, "INVALID_ARGUMENT: There is no unit 99"),
    ("RemoveBudget", {"id": "budget_x"}, "NOT_FOUND: There is no budget budget_x"),
    ("ShowQuota", {"subject": {"user": "nobody"}}, "NOT_FOUND: There is no user nobody."),
    ("SetModelTerms", {"model": "m"}, "INVALID_ARGUMENT: Say what the model costs"),
    ("SetModelTerms", {"model": " ", "prompt_micros": 1}, "INVALID_ARGUMENT: ' ' is not the name of a model."),
    ("SetModelTerms", {"model": "m", "prompt_micros": 2**63}, "INVALID_ARGUMENT: A price is from 0"),
    ("SetModelTerms", {"model": "m", "weight_milli": 0}, "INVALID_ARGUMENT: A weight is more than 0"),
    ("RemoveModelTerms", {"model": "m"}, "NOT_FOUND: The model m has no price"),
    ("SetPoolTerms", {"pool": "night"}, "INVALID_ARGUMENT: Say what is to be changed"),
    (
        "SetPoolTerms",
        {"pool": "night", "placement": "least_load"},
        "INVALID_ARGUMENT: There is no placement least_load; did you mean least_loaded?",
    ),
    (
        "SetPoolTerms",
        {"pool": "night", "locality_window": {"most": 2**63}},
        "INVALID_ARGUMENT: A locality window is from 0",
    ),
    ("SetPoolTerms", {"pool": "a b", "sticky": True}, "INVALID_ARGUMENT: A pool's name is"),
    ("RemovePoolTerms", {"pool": "night"}, "NOT_FOUND: The pool night has no settings of its own."),
)


async def next_of(stream: Any, within_s: float = 60.0) -> Any:
    return await asyncio.wait_for(stream.read(), within_s)


async def test_what_is_wrong_is_said_and_nothing_of_it_is_kept(admin: Running) -> None:
    operator = await admin.operator()
    before = (await query(admin, "SELECT value FROM admin.version"))[0]["value"]
    for call, fields, words in WRONG:
        told = await refused(getattr(operator, call)(**fields))
        assert told.startswith(words), (call, fields)
    assert (await query(admin, "SELECT value FROM admin.version"))[0]["value"] == before
    actions = {row["action"] for row in await query(admin, "SELECT action FROM admin.audit_log")}
    assert actions == {"user.bootstrap"}


async def test_every_change_reaches_the_scheduler_of_another_replica_in_under_a_second(start: Start) -> None:
    async with start() as here, start() as there:
        operator = await here.operator()
        stream = (await there.watcher("scheduler")).WatchPolicy()
        first = await next_of(stream)
        assert (first.snapshot, [g.weight_milli for g in first.groups], list(first.keys)) == (True, [1000], [])
        took_s = []

        async def told(call: str, **fields: Any) -> tuple[Any, admin_pb2.PolicyUpdate]:
            began = time.monotonic()
            answer = await getattr(operator, call)(**fields)
            delta = await next_of(stream)
            took_s.append(time.monotonic() - began)
            assert not delta.snapshot
            if call not in ("AddUser", "CreateKey"):
                assert delta.version == answer.version
            return answer, delta

        made, delta = await told("AddGroup", name="faculty", weight_milli=3000)
        faculty = made.group.id
        assert [(g.group_id, g.parent_id, g.weight_milli) for g in delta.groups] == [(faculty, "", 3000)]
        assert not delta.users
        made, delta = await told("AddGroup", name="physics", parent="Faculty")
        physics = made.group.id
        assert [(g.group_id, g.parent_id) for g in delta.groups] == [(physics, faculty)]
        _, delta = await told("ChangeGroup", name="physics", weight_milli=500, paused=True)
        assert [(g.parent_id, g.weight_milli, g.paused) for g in delta.groups] == [(faculty, 500, True)]
        alice = (await told("AddUser", name="alice", group="physics"))[0].user.id
        _, delta = await told("ChangeUser", name="alice", weight_milli=2500, max_queued=7, paused=True)
        assert [(u.user_id, u.group_id, u.weight_milli, u.max_queued, u.paused) for u in delta.users] == [
            (alice, physics, 2500, 7, True)
        ]
        assert not delta.groups
        key = (await told("CreateKey", user="alice"))[0].key.id
        _, delta = await told("ChangeKey", key_id=key, weight_milli=4000)
        assert [(k.key_id, k.user_id, k.weight_milli) for k in delta.keys] == [(key, alice, 4000)]
        assert not delta.keys[0].HasField("limits")
        _, delta = await told("ChangeKey", key_id=key, weight_milli=1000)
        assert (list(delta.keys), list(delta.removed_key_ids)) == ([], [key])
        _, delta = await told("SetLimits", subject={"key_id": key}, requests_per_minute={"most": 60})
        assert [k.limits.requests_per_minute for k in delta.keys] == [60]
        assert not delta.keys[0].limits.HasField("concurrency")
        _, delta = await told(
            "SetLimits", subject={"user": "ALICE"}, tokens_per_minute={"most": 10**12}, concurrency={"most": 3}
        )
        assert (delta.users[0].limits.tokens_per_minute, delta.users[0].limits.concurrency) == (10**12, 3)
        _, delta = await told("SetLimits", subject={"user": "alice"}, concurrency={})
        assert delta.users[0].limits.tokens_per_minute == 10**12
        assert not delta.users[0].limits.HasField("concurrency")
        made, delta = await told(
            "AddBudget",
            subject={"group": "faculty"},
            unit=MONEY,
            amount=25_000_000,
            period=MONTH,
            time_zone="Europe/Berlin",
        )
        (budget,) = delta.groups[0].limits.budgets
        assert (budget.id, budget.unit, budget.amount, budget.period, budget.time_zone, budget.spent) == (
            *(made.budget.id, MONEY, 25_000_000, MONTH, "Europe/Berlin", 0),
        )
        assert abs(budget.spent_at_us / 1e6 - time.time()) < 60
        _, delta = await told("ChangeBudget", id=budget.id, unit=MONEY, amount=1)
        assert [(b.id, b.amount) for b in delta.groups[0].limits.budgets] == [(budget.id, 1)]
        _, delta = await told("RemoveBudget", id=budget.id)
        assert not delta.groups[0].HasField("limits")
        _, delta = await told("SetModelTerms", model="tiny", prompt_micros=150_000, completion_micros=600_000)
        assert [
            (m.model, m.prompt_micros, m.cached_prompt_micros, m.completion_micros, m.weight_milli)
            for m in delta.models
        ] == [("tiny", 150_000, 150_000, 600_000, 1000)]
        _, delta = await told("SetModelTerms", model="tiny", cached_prompt_micros=75_000, weight_milli=2000)
        assert [(m.prompt_micros, m.cached_prompt_micros, m.weight_milli) for m in delta.models] == [
            (150_000, 75_000, 2000)
        ]
        _, delta = await told("RemoveModelTerms", model="tiny")
        assert (list(delta.models), list(delta.removed_models)) == ([], ["tiny"])
        _, delta = await told("SetPoolTerms", pool="night", placement="round_robin", locality_window={"most": 0})
        (pool,) = delta.pools
        assert (pool.pool, pool.placement, pool.sticky, pool.locality_window) == ("night", "round_robin", False, 0)
        _, delta = await told("SetPoolTerms", pool="night", sticky=True, locality_window={})
        assert (delta.pools[0].sticky, delta.pools[0].HasField("locality_window")) == (True, False)
        _, delta = await told("RemovePoolTerms", pool="night")
        assert list(delta.removed_pools) == ["night"]
        _, delta = await told("PresetGroups", preset="university")
        assert sorted(g.weight_milli for g in delta.groups) == [1000, 2000, 3000, 10_000]
        await told("ChangeUser", name="alice", group="student")
        _, delta = await told("RemoveGroup", name="physics")
        assert (list(delta.groups), list(delta.removed_group_ids)) == ([], [physics])
        assert max(took_s) < 10, took_s  # a second, were the machine never busy

        await operator.SetPoolTerms(pool="night", sticky=True)
        snapshot = await next_of((await here.watcher("scheduler")).WatchPolicy())
        assert {g.group_id for g in snapshot.groups} >= {faculty}
        assert physics not in {g.group_id for g in snapshot.groups}
        assert [k.key_id for k in snapshot.keys] == [key]
        assert [p.pool for p in snapshot.pools] == ["night"]
        assert not snapshot.removed_group_ids
        assert not snapshot.removed_pools
        late = await next_of((await here.watcher("scheduler")).WatchPolicy(first.version))
        assert (list(late.removed_pools), list(late.removed_models)) == ([], ["tiny"])
        stream.cancel()


async def test_gateways_hear_of_a_user_that_moves_and_of_no_weights(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddUser(name="alice")
    key = (await operator.CreateKey(user="alice")).key.id
    moved_to = (await operator.AddGroup(name="research")).group.id
    stream = (await admin.watcher("gateway")).WatchPrincipals()
    await next_of(stream)
    await operator.ChangeUser(name="alice", weight_milli=2000)
    assert not (await next_of(stream)).keys
    await operator.SetLimits(subject={"key_id": key}, concurrency={"most": 1})
    assert not (await next_of(stream)).keys
    await operator.ChangeUser(name="alice", group="research")
    assert [(k.key_id, k.group_id) for k in (await next_of(stream)).keys] == [(key, moved_to)]
    stream.cancel()


async def test_a_ring_of_groups_is_never_stored(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddGroup(name="a")
    for name, parent in (("b", "a"), ("c", "b")):
        await operator.AddGroup(name=name, parent=parent)
    told = await refused(operator.ChangeGroup(name="a", parent="c"))
    assert told == "INVALID_ARGUMENT: a cannot be in c, which is within it (c in b in a)."
    told = await refused(operator.RemoveGroup(name="b"))
    assert told.startswith("INVALID_ARGUMENT: b has groups in it (c): move each with `forebay group set NAME --parent")
    # Each of these is right by itself, and together they would be a ring.
    await operator.ChangeGroup(name="c", parent="")
    moves = [operator.ChangeGroup(name=name, parent=parent) for name, parent in (("a", "c"), ("c", "b"))]
    done = await asyncio.gather(*moves, return_exceptions=True)
    assert sorted(isinstance(one, grpc.aio.AioRpcError) for one in done) == [False, True]
    rows = await query(admin, "SELECT name, parent_id IS NULL AS outermost FROM admin.groups")
    assert [r["outermost"] for r in rows].count(True) == 2, "one of the three, and everyone"


async def test_what_was_spent_is_counted_from_the_ledger_in_the_period_and_in_the_group(start: Start) -> None:
    async with start() as admin:
        operator = await admin.operator()
        await operator.AddGroup(name="faculty")
        await operator.AddGroup(name="physics", parent="faculty")
        alice = (await operator.AddUser(name="alice", group="physics")).user
        key = (await operator.CreateKey(user="alice")).key.id
        await operator.SetModelTerms(
            model="tiny", prompt_micros=1_000_000, cached_prompt_micros=500_000, completion_micros=2_000_000
        )
        await operator.AddBudget(subject={"user": "alice"}, unit=TOKENS, amount=1000, period=DAY)
        await operator.AddBudget(subject={"key_id": key}, unit=MONEY, amount=10_000)
        await operator.AddBudget(subject={"group": "faculty"}, unit=MONEY, amount=10_000, period=MONTH)
        now = time.time()
        await spend(admin, alice, key, at=now, prompt=100, cached=40, completion=50)
        await spend(admin, alice, key, at=now, model="free", prompt=1000, completion=0)
        await spend(admin, alice, "another key", at=now, prompt=1, completion=0)
        await spend(admin, alice, key, at=now - 86_400 * 3, prompt=5000, completion=5000)
        cost = 60 * 1 + 20 + 50 * 2

        async def spent() -> dict[str, int]:
            snapshot = await next_of((await admin.watcher("scheduler")).WatchPolicy())
            limited = [*snapshot.users, *snapshot.groups, *snapshot.keys]
            return {f"{b.unit}:{b.period}": b.spent for one in limited for b in one.limits.budgets if b.spent_at_us > 0}

        assert await spent() == {
            f"{TOKENS}:{DAY}": 150 + 1000 + 1,
            f"{MONEY}:0": cost,
            f"{MONEY}:{MONTH}": cost + 1,
        }
        shown = (await operator.ShowQuota(subject={"user": "alice"})).quotas
        assert [(q.kind, q.name) for q in shown] == [("user", "alice"), ("group", "physics"), ("group", "faculty")]
        assert [[b.spent for b in q.budgets] for q in shown] == [[1151], [], [cost + 1]]
        (day,) = shown[0].budgets
        assert day.until_us - now * 1e6 <= 86_400 * 1e6
        listed = (await operator.ListQuotas()).quotas
        assert [(q.kind, q.name, q.user_name) for q in listed] == [
            ("user", "alice", ""),
            ("group", "faculty", ""),
            ("key", "key", "alice"),
        ]


async def test_spending_that_cannot_be_counted_in_time_holds_nothing_up(
    admin: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = await admin.operator()
    await operator.AddBudget(subject={"user": "admin"}, unit=TOKENS, amount=1000)
    monkeypatch.setattr(spending, "COUNT_S", 0.05)
    slow = "SELECT pg_sleep(60) FROM unnest(CAST(:ids AS text[]))"
    monkeypatch.setattr(spending, "_COUNT", slow)
    began = time.monotonic()
    snapshot = await next_of((await admin.watcher("scheduler")).WatchPolicy())
    assert time.monotonic() - began < 10
    (budget,) = snapshot.users[0].limits.budgets
    assert (budget.amount, budget.spent, budget.spent_at_us) == (1000, 0, 0)
    shown = (await operator.ShowQuota()).quotas
    assert not shown[0].budgets[0].HasField("spent")


async def test_everybody_sees_their_own_quota_and_nobody_elses(admin: Running) -> None:
    operator = await admin.operator()
    alice = await somebody(admin, "alice", Role.MEMBER)
    await somebody(admin, "bob", Role.MEMBER)
    await operator.SetLimits(subject={"user": "alice"}, concurrency={"most": 2})
    assert (await alice.ShowQuota()).quotas[0].concurrency == 2
    assert (await alice.ShowQuota(subject={"user": "Alice"})).quotas[0].concurrency == 2
    bobs, own = [(await operator.ListKeys(user=name)).keys[0].id for name in ("bob", "alice")]
    shown = (await alice.ShowQuota(subject={"key_id": own})).quotas
    assert [q.kind for q in shown] == ["key", "user", "group"]
    for subject in ({"user": "bob"}, {"group": "everyone"}, {"key_id": bobs}):
        assert await refused(alice.ShowQuota(subject=subject)) == (
            "PERMISSION_DENIED: alice may see only what is their own."
        )


async def test_what_was_changed_is_audited_as_it_was_and_as_it_is(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddGroup(name="faculty")
    await operator.ChangeGroup(name="faculty", weight_milli=3000)
    await operator.ChangeUser(name="admin", group="faculty", weight_milli=2000)
    await operator.SetLimits(subject={"user": "admin"}, concurrency={"most": 2})
    await operator.SetLimits(subject={"user": "admin"}, concurrency={})
    made = (await operator.AddBudget(subject={"user": "admin"}, unit=TOKENS, amount=5)).budget
    await operator.ChangeBudget(id=made.id, unit=TOKENS, amount=6)
    assert "is of tokens; for another kind" in await refused(operator.ChangeBudget(id=made.id, unit=MONEY, amount=6))
    await operator.RemoveBudget(id=made.id)
    await operator.SetModelTerms(model="tiny", prompt_micros=1)
    await operator.SetPoolTerms(pool="night", sticky=True)
    await operator.ChangeUser(name="admin", group="everyone")
    await operator.RemoveGroup(name="faculty")
    rows = await query(admin, "SELECT action, subject, before, after FROM admin.audit_log ORDER BY id OFFSET 1")
    facts = [
        (r["action"], r["subject"], *(json.loads(r[w]) if r[w] else None for w in ("before", "after"))) for r in rows
    ]
    assert [f[:2] for f in facts] == [
        ("group.add", "faculty"),
        ("group.set", "faculty"),
        ("user.set", "admin"),
        ("quota.set", "user admin"),
        ("quota.set", "user admin"),
        ("budget.add", "user admin"),
        ("budget.set", "user admin"),
        ("budget.remove", "user admin"),
        ("model.price", "tiny"),
        ("pool.set", "night"),
        ("user.set", "admin"),
        ("group.remove", "faculty"),
    ]
    assert (facts[1][2]["weight_milli"], facts[1][3]["weight_milli"]) == (1000, 3000)
    assert (facts[2][2]["group"], facts[2][3]["group"]) == ("everyone", "faculty")
    assert (facts[4][2]["concurrency"], facts[4][3]["concurrency"]) == (2, None)
    assert (facts[6][2]["amount"], facts[6][3]["amount"]) == (5, 6)
    assert facts[11][3] is None


async def test_pools_are_those_with_backends_and_those_with_terms(start: Start) -> None:
    async with start() as admin:
        operator = await admin.operator()
        await operator.RegisterBackend(name="one", url="http://127.0.0.1:1")
        await operator.SetPoolTerms(pool="night", placement="random")
        pools = (await operator.ListPools()).pools
        assert [(p.terms.pool, p.terms.placement, p.is_default, p.backends) for p in pools] == [
            ("default", "expected_ttft", True, 1),
            ("night", "random", False, 0),
        ]
    async with start(registry_address="127.0.0.1:1") as admin:
        pools = (await (await admin.operator()).ListPools()).pools
        assert [(p.terms.pool, p.HasField("backends")) for p in pools] == [("night", False)]


async def test_the_database_itself_takes_no_weight_of_nothing_and_no_budget_of_nobody(admin: Running) -> None:
    async with open_database(admin.site.database_url, "admin") as database:
        for statement in (
            "UPDATE admin.users SET weight_milli = 0",
            "UPDATE admin.keys SET weight_milli = -1",
            "UPDATE admin.groups SET parent_id = id",
            "UPDATE admin.users SET concurrency = 0",
            "INSERT INTO admin.budgets (id, unit, amount, period, time_zone, created_by, created_at)"
            " VALUES ('b', 'tokens', 1, 'day', 'UTC', 'x', now())",
        ):
            with pytest.raises(IntegrityError):
                async with database.writing() as connection:
                    await connection.execute(text(statement))


async def spend(
    admin: Running,
    user: admin_pb2.User,
    key: str,
    *,
    at: float,
    prompt: int,
    completion: int,
    cached: int = 0,
    model: str = "tiny",
) -> None:
    record = usage_pb2.UsageRecord(
        ledger_id=new_ledger_id(at),
        user_id=user.id,
        group_id=user.group_id,
        key_id=key,
        model=model,
        outcome=types_pb2.OUTCOME_FINISHED,
        started_at_us=round(at * 1_000_000),
        usage=types_pb2.TokenUsage(prompt_tokens=prompt, cached_prompt_tokens=cached, completion_tokens=completion),
    )
    batch = usage_pb2.UsageBatch(records=[record]).SerializeToString()
    parsed = parse_batch("forebay.usage.test", batch, datetime.fromtimestamp(time.time(), UTC))
    assert not parsed.poison
    async with open_database(admin.site.database_url, "admin") as database:
        await LedgerStore(database).write(parsed.rows, ())
