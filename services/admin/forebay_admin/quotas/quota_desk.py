"""Operators' calls about limits and budgets, and anybody's about their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from forebay.clock import Clock
from forebay.database import Database
from forebay.errors import BadInput, NotAllowed
from forebay.wire.v1 import admin_pb2
from forebay_admin.audit.audit_store import Act, Facts, record
from forebay_admin.changes import Change, Changes
from forebay_admin.people.access import Actor
from forebay_admin.people.group_store import read_groups
from forebay_admin.people.groups import ancestors
from forebay_admin.people.people_store import user_named
from forebay_admin.people.roles import Reach
from forebay_admin.quotas.policy_wire import caps_changed, plan_from, quota_to_wire, standing_to_wire, unit_from
from forebay_admin.quotas.quota_store import (
    add_budget,
    budget_with_id,
    caps_of,
    change_budget,
    find_subject,
    keep_caps,
    limited_subjects,
    read_budgets,
    remove_budget,
)
from forebay_admin.quotas.quotas import (
    Budget,
    Caps,
    Quota,
    Standing,
    Subject,
    SubjectKind,
    carrying,
    demand_caps,
    order_budget,
    resized,
)
from forebay_admin.quotas.spending import standings

_FIELDS = {"user": SubjectKind.USER, "group": SubjectKind.GROUP, "key_id": SubjectKind.KEY}


class QuotaDesk:
    def __init__(self, database: Database, changes: Changes, clock: Clock) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock

    async def set_limits(self, request: admin_pb2.SetLimitsRequest, actor: Actor) -> admin_pb2.SetLimitsResponse:
        named = caps_changed(Caps(), request)
        if named is None:
            raise BadInput("Say which limit is to be set; none was named.")
        demand_caps(named)
        async with self._changes.make(self._database) as change:
            subject = await _subject(change.connection, request.subject)
            before = await caps_of(change.connection, subject)
            await self.keep_limits(change, subject, caps_changed(before, request) or before, actor)
            (quota,) = await self._quotas(change.connection, [subject])
        return admin_pb2.SetLimitsResponse(quota=quota_to_wire(quota), version=change.version)

    async def keep_limits(self, change: Change, subject: Subject, caps: Caps, actor: Actor) -> None:
        """In the caller's transaction; audited."""
        before = await caps_of(change.connection, subject)
        await keep_caps(change, subject, caps)
        await self._note(change, actor, "quota.set", subject, before=_caps(before), after=_caps(caps))

    async def add_budget(self, request: admin_pb2.AddBudgetRequest, actor: Actor) -> admin_pb2.AddBudgetResponse:
        budget = order_budget(plan_from(request), self._now())
        async with self._changes.make(self._database) as change:
            subject = await _subject(change.connection, request.subject)
            await add_budget(change, subject, budget, actor.name)
            await self._note(change, actor, "budget.add", subject, after=_budget(budget))
            standing = await self._standing(change.connection, subject, budget)
        return admin_pb2.AddBudgetResponse(budget=standing_to_wire(standing), version=change.version)

    async def change_budget(
        self, request: admin_pb2.ChangeBudgetRequest, actor: Actor
    ) -> admin_pb2.ChangeBudgetResponse:
        unit = unit_from(request.unit)
        async with self._changes.make(self._database) as change:
            subject, before = await budget_with_id(change.connection, request.id)
            if unit is not before.unit and (unit is not None or request.amount):
                raise BadInput(f"The budget {before.id} is of {before.unit}; for another kind, add a new one.")
            after = await self._keep(change, before.id, request, actor)
            standing = await self._standing(change.connection, subject, after)
        return admin_pb2.ChangeBudgetResponse(budget=standing_to_wire(standing), version=change.version)

    async def keep_amount(self, change: Change, budget_id: str, amount: int, actor: Actor) -> Budget:
        """The budget as it is afterwards, in the caller's transaction; audited. Raises BadInput, NotFound."""
        return await self._keep(change, budget_id, admin_pb2.ChangeBudgetRequest(amount=amount), actor)

    async def _keep(self, change: Change, budget_id: str, asked: admin_pb2.ChangeBudgetRequest, actor: Actor) -> Budget:
        subject, before = await budget_with_id(change.connection, budget_id)
        after = before
        if asked.amount or not asked.HasField("carry_over"):
            after = resized(before, asked.amount, self._now())
        if asked.HasField("carry_over"):
            most = asked.carry_over.most if asked.carry_over.HasField("most") else None
            after = carrying(after, most, self._now())
        await change_budget(change, subject, after)
        await self._note(change, actor, "budget.set", subject, before=_budget(before), after=_budget(after))
        return after

    async def remove_budget(
        self, request: admin_pb2.RemoveBudgetRequest, actor: Actor
    ) -> admin_pb2.RemoveBudgetResponse:
        async with self._changes.make(self._database) as change:
            subject, budget = await budget_with_id(change.connection, request.id)
            standing = await self._standing(change.connection, subject, budget)
            await remove_budget(change, subject, budget)
            await self._note(change, actor, "budget.remove", subject, before=_budget(budget))
        return admin_pb2.RemoveBudgetResponse(budget=standing_to_wire(standing), version=change.version)

    async def list_quotas(self) -> admin_pb2.ListQuotasResponse:
        async with self._database.reading() as connection:
            quotas = await self._quotas(connection, await limited_subjects(connection))
        return admin_pb2.ListQuotasResponse(quotas=[quota_to_wire(quota) for quota in quotas])

    async def show_quota(self, request: admin_pb2.ShowQuotaRequest, actor: Actor) -> admin_pb2.ShowQuotaResponse:
        async with self._database.reading() as connection:
            subject = await _shown(connection, request.subject, actor)
            quotas = await self._quotas(connection, await that_apply(connection, subject))
        return admin_pb2.ShowQuotaResponse(quotas=[quota_to_wire(quota) for quota in quotas])

    async def _quotas(self, connection: AsyncConnection, subjects: Sequence[Subject]) -> list[Quota]:
        wanted: dict[SubjectKind, list[str]] = {kind: [] for kind in SubjectKind}
        for subject in subjects:
            wanted[subject.kind].append(subject.id)
        held = await read_budgets(connection, wanted)
        counted = await standings(connection, held, self._now())
        return [
            Quota(
                subject,
                await caps_of(connection, subject),
                tuple(counted[budget.id] for budget in held.get((subject.kind, subject.id), ())),
            )
            for subject in subjects
        ]

    async def _standing(self, connection: AsyncConnection, subject: Subject, budget: Budget) -> Standing:
        return (await standings(connection, {(subject.kind, subject.id): [budget]}, self._now()))[budget.id]

    async def _note(
        self,
        change: Change,
        actor: Actor,
        action: str,
        subject: Subject,
        *,
        before: Facts | None = None,
        after: Facts | None = None,
    ) -> None:
        act = Act(actor.name, action, str(subject), actor_key_id=actor.key_id, before=before, after=after)
        await record(change.connection, act, self._now())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)


async def _subject(connection: AsyncConnection, named: admin_pb2.QuotaSubject) -> Subject:
    """Raises BadInput when nobody is named, NotFound when there is no such one."""
    field = named.WhichOneof("of")
    if field is None or not getattr(named, field):
        raise BadInput("Say whose quota is meant: a user, a group or a key.")
    return await find_subject(connection, _FIELDS[field], getattr(named, field))


async def _shown(connection: AsyncConnection, named: admin_pb2.QuotaSubject, actor: Actor) -> Subject:
    """Nobody named is the caller. Raises NotAllowed for somebody else's where only one's own may be seen."""
    sees_all = actor.reach("ShowQuota") is Reach.ALL
    if named.WhichOneof("of") is None and actor.user_id:
        return Subject(SubjectKind.USER, actor.user_id, actor.name)
    own = NotAllowed(f"{actor.name} may see only what is their own.")
    if not sees_all and named.WhichOneof("of") == "user" and named.user.lower() != actor.name.lower():
        raise own
    if not sees_all and named.WhichOneof("of") == "group":
        raise own
    subject = await _subject(connection, named)
    if not sees_all and subject.kind is SubjectKind.KEY and subject.user_name != actor.name:
        raise own
    return subject


async def that_apply(connection: AsyncConnection, subject: Subject) -> list[Subject]:
    """The subject itself, then everybody whose limits count for it too, its outermost group last."""
    apply = [subject]
    known = await read_groups(connection)
    group_id = subject.id if subject.kind is SubjectKind.GROUP else None
    if subject.kind is not SubjectKind.GROUP:
        user = await user_named(connection, subject.user_name or subject.name)
        if subject.kind is SubjectKind.KEY:
            apply.append(Subject(SubjectKind.USER, user.id, user.name))
        group_id = user.group_id
    above = [Subject(SubjectKind.GROUP, group.id, group.name) for group in ancestors(known, group_id)]
    return apply + [one for one in above if one != subject]


def _caps(caps: Caps) -> Facts:
    return {
        "requests_per_minute": caps.requests_per_minute,
        "tokens_per_minute": caps.tokens_per_minute,
        "concurrency": caps.concurrency,
    }


def _budget(budget: Budget) -> Facts:
    return {
        "id": budget.id,
        "unit": budget.unit.value,
        "amount": budget.amount,
        "period": budget.period.value,
        "time_zone": budget.time_zone,
        **({"window_s": budget.window_s} if budget.window_s is not None else {}),
        **({"carry_most": budget.carry_most} if budget.carry_most is not None else {}),
    }
