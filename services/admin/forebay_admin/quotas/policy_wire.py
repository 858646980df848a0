"""Shares, limits, budgets and terms as protobuf, and back. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2
from forebay_admin.models.terms import ModelTerms, PoolTerms
from forebay_admin.people.groups import Group
from forebay_admin.quotas.member_limits import MemberLimits
from forebay_admin.quotas.periods import Period
from forebay_admin.quotas.policy_store import GroupShare, KeyShare, UserShare
from forebay_admin.quotas.quotas import (
    Budget,
    BudgetPlan,
    BudgetUnit,
    Caps,
    Quota,
    Standing,
    SubjectKind,
    plan_budget,
)
from forebay_admin.quotas.spending import Budgets
from forebay_admin.wire_forms import moment_us

_UNITS = {
    BudgetUnit.TOKENS: admin_pb2.BUDGET_UNIT_TOKENS,
    BudgetUnit.MONEY: admin_pb2.BUDGET_UNIT_MONEY,
}
_PERIODS = {
    Period.EVER: admin_pb2.BUDGET_PERIOD_UNSPECIFIED,
    Period.HOUR: admin_pb2.BUDGET_PERIOD_HOUR,
    Period.DAY: admin_pb2.BUDGET_PERIOD_DAY,
    Period.WEEK: admin_pb2.BUDGET_PERIOD_WEEK,
    Period.MONTH: admin_pb2.BUDGET_PERIOD_MONTH,
    Period.YEAR: admin_pb2.BUDGET_PERIOD_YEAR,
}

Counted = Mapping[str, Standing]
"""Budget id → what was spent of it."""


def unit_from(value: admin_pb2.BudgetUnit.ValueType) -> BudgetUnit | None:
    """None when it was not given. Raises BadInput for one that this version does not know."""
    if value == admin_pb2.BUDGET_UNIT_UNSPECIFIED:
        return None
    for unit, number in _UNITS.items():
        if number == value:
            return unit
    raise BadInput(f"There is no unit {value} of budgets; there are {', '.join(BudgetUnit)}.")


def period_from(value: admin_pb2.BudgetPeriod.ValueType) -> Period:
    """Raises BadInput for one that this version does not know."""
    for period, number in _PERIODS.items():
        if number == value:
            return period
    raise BadInput(f"There is no period {value}; there are {', '.join(Period)}.")


def user_share_to_wire(share: UserShare, held: Budgets, counted: Counted) -> admin_pb2.UserPolicy:
    return admin_pb2.UserPolicy(
        user_id=share.user_id,
        group_id=share.group_id,
        weight_milli=share.weight_milli,
        max_queued=share.max_queued,
        paused=share.paused,
        limits=_limits(share.caps, held.get((SubjectKind.USER, share.user_id), ()), counted),
    )


def group_share_to_wire(share: GroupShare, held: Budgets, counted: Counted) -> admin_pb2.GroupPolicy:
    return admin_pb2.GroupPolicy(
        group_id=share.group_id,
        parent_id=share.parent_id or "",
        weight_milli=share.weight_milli,
        paused=share.paused,
        limits=_limits(share.caps, held.get((SubjectKind.GROUP, share.group_id), ()), counted),
    )


def key_share_to_wire(share: KeyShare, held: Budgets, counted: Counted) -> admin_pb2.KeyPolicy:
    return admin_pb2.KeyPolicy(
        key_id=share.key_id,
        user_id=share.user_id,
        weight_milli=share.weight_milli,
        limits=_limits(share.caps, held.get((SubjectKind.KEY, share.key_id), ()), counted),
    )


def _limits(caps: Caps, budgets: Sequence[Budget], counted: Counted) -> admin_pb2.Limits | None:
    if caps == Caps() and not budgets:
        return None
    return admin_pb2.Limits(
        requests_per_minute=caps.requests_per_minute,
        tokens_per_minute=caps.tokens_per_minute,
        concurrency=caps.concurrency,
        budgets=[_budget(counted[budget.id]) for budget in budgets],
    )


def _budget(standing: Standing) -> admin_pb2.Budget:
    budget = standing.budget
    return admin_pb2.Budget(
        id=budget.id,
        unit=_UNITS[budget.unit],
        amount=budget.amount,
        period=_PERIODS[budget.period],
        time_zone=budget.time_zone,
        spent=standing.spent or 0,
        spent_at_us=moment_us(standing.counted_at) if standing.spent is not None else 0,
        window_s=budget.window_s or 0,
        steps=[admin_pb2.BudgetStep(start_us=start, spent=spent) for start, spent in sorted(standing.steps.items())],
        carried=budget.carried.amount if budget.carried is not None else 0,
        carried_since_us=moment_us(budget.carried.since) if budget.carried is not None else 0,
    )


def standing_to_wire(standing: Standing) -> admin_pb2.BudgetStanding:
    budget = standing.budget
    return admin_pb2.BudgetStanding(
        id=budget.id,
        unit=_UNITS[budget.unit],
        amount=budget.amount,
        period=_PERIODS[budget.period],
        time_zone=budget.time_zone,
        spent=standing.spent,
        since_us=moment_us(standing.since),
        until_us=moment_us(standing.until) if standing.until is not None else None,
        window_s=budget.window_s or 0,
        carry_most=budget.carry_most,
        carried=standing.carried,
    )


def caps_changed(caps: Caps, request: admin_pb2.SetLimitsRequest | admin_pb2.SetMemberLimitsRequest) -> Caps | None:
    """`caps` with what the request names; None when it names nothing."""
    named = {
        name: cap.most if cap.HasField("most") else None
        for name, cap in (
            ("requests_per_minute", request.requests_per_minute),
            ("tokens_per_minute", request.tokens_per_minute),
            ("concurrency", request.concurrency),
        )
        if request.HasField(name)  # type: ignore[arg-type]
    }
    return replace(caps, **named) if named else None


def plan_from(asked: admin_pb2.AddBudgetRequest | admin_pb2.MemberBudget) -> BudgetPlan:
    """Raises BadInput."""
    return plan_budget(
        unit_from(asked.unit),
        asked.amount,
        period_from(asked.period),
        asked.time_zone,
        asked.window_s,
        asked.carry_most if asked.HasField("carry_most") else None,
    )


def member_limits_to_wire(group: str, limits: MemberLimits) -> admin_pb2.MemberLimits:
    return admin_pb2.MemberLimits(
        group=group,
        requests_per_minute=limits.caps.requests_per_minute,
        tokens_per_minute=limits.caps.tokens_per_minute,
        concurrency=limits.caps.concurrency,
        budgets=[
            admin_pb2.MemberBudget(
                unit=_UNITS[plan.unit],
                amount=plan.amount,
                period=_PERIODS[plan.period],
                time_zone=plan.time_zone,
                window_s=plan.window_s or 0,
                carry_most=plan.carry_most,
            )
            for plan in limits.budgets
        ],
    )


def quota_to_wire(quota: Quota) -> admin_pb2.Quota:
    return admin_pb2.Quota(
        kind=quota.subject.kind.value,
        id=quota.subject.id,
        name=quota.subject.name,
        user_name=quota.subject.user_name,
        requests_per_minute=quota.caps.requests_per_minute,
        tokens_per_minute=quota.caps.tokens_per_minute,
        concurrency=quota.caps.concurrency,
        budgets=[standing_to_wire(standing) for standing in quota.budgets],
    )


def group_to_wire(group: Group, names: Mapping[str, str]) -> admin_pb2.Group:
    """`names`: of groups, by id."""
    return admin_pb2.Group(
        id=group.id,
        name=group.name,
        parent_id=group.parent_id or "",
        parent_name=names.get(group.parent_id, "") if group.parent_id is not None else "",
        weight_milli=group.weight_milli,
        paused=group.paused,
        members=group.members,
        created_at_us=moment_us(group.created_at),
    )


def model_terms_to_wire(terms: ModelTerms) -> admin_pb2.ModelPolicy:
    return admin_pb2.ModelPolicy(
        model=terms.model,
        prompt_micros=terms.prompt_micros,
        cached_prompt_micros=terms.cached_prompt_micros,
        completion_micros=terms.completion_micros,
        weight_milli=terms.weight_milli,
    )


def pool_terms_to_wire(terms: PoolTerms) -> admin_pb2.PoolPolicy:
    return admin_pb2.PoolPolicy(
        pool=terms.pool,
        placement=terms.placement.value,
        sticky=terms.sticky,
        locality_window=terms.locality_window,
    )
