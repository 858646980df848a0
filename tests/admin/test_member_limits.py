"""What new members of a group start with, whoever makes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from forebay.database import open_database
from forebay.wire.v1 import admin_pb2
from forebay_admin.changes import Changes
from forebay_admin.sign_in.arrivals import receive
from forebay_admin.sign_in.claims import Arrival
from forebay_admin.sign_in.providers import Provider, ProviderKind
from tests.admin.replica import Running
from tests.admin.test_operator import query, refused

TOKENS, MONEY = admin_pb2.BUDGET_UNIT_TOKENS, admin_pb2.BUDGET_UNIT_MONEY
MONTH, WEEK = admin_pb2.BUDGET_PERIOD_MONTH, admin_pb2.BUDGET_PERIOD_WEEK


async def test_new_members_start_with_what_their_group_or_the_closest_around_it_says(admin: Running) -> None:
    operator = await admin.operator()
    await operator.AddGroup(name="faculty")
    await operator.AddGroup(name="physics", parent="faculty")
    await operator.AddUser(name="old", group="physics")
    set_for_faculty = await operator.SetMemberLimits(
        group="Faculty",
        requests_per_minute={"most": 20},
        budgets=[
            {"unit": TOKENS, "amount": 1000, "period": MONTH, "time_zone": "Europe/Berlin", "carry_most": 500},
            {"unit": MONEY, "amount": 5_000_000, "window_s": 7 * 86_400},
        ],
    )
    assert (set_for_faculty.limits.group, len(set_for_faculty.limits.budgets)) == ("faculty", 2)

    async def starts(name: str) -> tuple[Any, ...]:
        (own, *_) = (await operator.ShowQuota(subject={"user": name})).quotas
        return (
            own.requests_per_minute,
            own.concurrency,
            sorted((b.unit, b.amount, b.period, b.time_zone, b.window_s, b.carry_most) for b in own.budgets),
        )

    of_faculty = (
        20,
        0,
        [(TOKENS, 1000, MONTH, "Europe/Berlin", 0, 500), (MONEY, 5_000_000, 0, "UTC", 7 * 86_400, 0)],
    )
    await operator.AddUser(name="alice", group="physics")
    await operator.AddServiceAccount(name="robot", group="faculty", owner_group="physics")
    provider = Provider("corp", ProviderKind.OIDC, "Corp", "https://corp.example", "forebay", "")
    arrival = Arrival("https://corp.example", "u-1", "bob@corp.example", "bob@corp.example", "physics", None)
    async with open_database(admin.site.database_url, "admin") as database, Changes().make(database) as change:
        await receive(change, arrival, provider, datetime.now(UTC))
        await receive(change, arrival, provider, datetime.now(UTC))
    for name in ("alice", "robot", "bob@corp.example"):
        assert await starts(name) == of_faculty, name
    assert await starts("old") == (0, 0, []), "who is there keeps what they have"
    # Their own group goes before the one around it; what is not named stays.
    await operator.SetMemberLimits(group="physics", concurrency={"most": 2})
    await operator.AddUser(name="carol", group="physics")
    assert await starts("carol") == (0, 2, [])
    changed = (await operator.SetMemberLimits(group="faculty", requests_per_minute={}, no_budgets=True)).limits
    assert (changed.HasField("requests_per_minute"), list(changed.budgets)) == (False, [])
    shown = (await operator.ShowMemberLimits()).limits
    assert [(one.group, one.concurrency) for one in shown] == [("physics", 2)]
    assert [one.group for one in (await operator.ShowMemberLimits(group="faculty")).limits] == ["faculty"]
    for fields, words in (
        ({"group": "physics"}, "INVALID_ARGUMENT: Say what new members start with"),
        ({"group": "nowhere", "no_budgets": True}, "NOT_FOUND: There is no group nowhere."),
        ({"group": "physics", "concurrency": {"most": 0}}, "INVALID_ARGUMENT: A limit of 0 concurrency would let"),
        ({"group": "physics", "budgets": [{"amount": 1}]}, "INVALID_ARGUMENT: Say whether the budget is of tokens"),
        (
            {"group": "physics", "budgets": [{"unit": TOKENS, "amount": 1, "period": WEEK}] * 17},
            "INVALID_ARGUMENT: A new member starts with at most 16 budgets.",
        ),
    ):
        assert (await refused(operator.SetMemberLimits(**fields))).startswith(words)
    acts = await query(
        admin,
        "SELECT actor, action, subject, after->>'group' AS of FROM admin.audit_log"
        " WHERE action IN ('quota.start', 'group.members.set') ORDER BY id",
    )
    assert [tuple(act) for act in acts] == [
        ("admin", "group.members.set", "faculty", None),
        ("admin", "quota.start", "user alice", "faculty"),
        ("admin", "quota.start", "user robot", "faculty"),
        ("provider corp", "quota.start", "user bob@corp.example", "faculty"),
        ("admin", "group.members.set", "physics", None),
        ("admin", "quota.start", "user carol", "physics"),
        ("admin", "group.members.set", "faculty", None),
    ]
