"""Between admin's words for people, keys, models and pools and those of the core.

A word of a newer admin that is not known here is read as the strictest or plainest one that is."""

from __future__ import annotations

from forebay.wire.v1 import admin_pb2, prices_pb2
from forebay_scheduler.request import GroupId, KeyId, PoolName, UserId
from forebay_scheduler.terms import (
    SMALLEST_WEIGHT,
    UNLIMITED,
    Budget,
    BudgetUnit,
    GroupTerms,
    KeyTerms,
    Limits,
    ModelTerms,
    Period,
    PlacementPolicy,
    PoolTerms,
    PriceTerms,
    PriceTier,
    UserTerms,
)

_PERIODS = {
    admin_pb2.BUDGET_PERIOD_HOUR: Period.HOUR,
    admin_pb2.BUDGET_PERIOD_DAY: Period.DAY,
    admin_pb2.BUDGET_PERIOD_WEEK: Period.WEEK,
    admin_pb2.BUDGET_PERIOD_MONTH: Period.MONTH,
    admin_pb2.BUDGET_PERIOD_YEAR: Period.YEAR,
}
_PLACEMENTS = {str(policy): policy for policy in PlacementPolicy}


def read_user(user: admin_pb2.UserPolicy) -> UserTerms:
    return UserTerms(
        UserId(user.user_id),
        group=GroupId(user.group_id) if user.group_id else None,
        weight=_weight(user.weight_milli),
        max_queued=user.max_queued or None,
        limits=read_limits(user.limits),
        is_paused=user.paused,
    )


def read_group(group: admin_pb2.GroupPolicy) -> GroupTerms:
    return GroupTerms(
        GroupId(group.group_id),
        parent=GroupId(group.parent_id) if group.parent_id else None,
        weight=_weight(group.weight_milli),
        limits=read_limits(group.limits),
        is_paused=group.paused,
    )


def read_key(key: admin_pb2.KeyPolicy) -> KeyTerms:
    return KeyTerms(KeyId(key.key_id), UserId(key.user_id), _weight(key.weight_milli), read_limits(key.limits))


def read_model(model: admin_pb2.ModelPolicy) -> ModelTerms:
    return ModelTerms(
        model.model,
        model.prompt_micros,
        model.cached_prompt_micros,
        model.completion_micros,
        _weight(model.weight_milli),
    )


def read_price(price: admin_pb2.PricePolicy) -> PriceTerms:
    terms = price.terms
    return PriceTerms(
        price.model,
        terms.prompt_micros,
        _cached(terms),
        terms.completion_micros,
        terms.request_micros,
        tuple(
            PriceTier(tier.from_prompt_tokens, tier.prompt_micros, _cached(tier), tier.completion_micros)
            for tier in terms.tiers
        ),
    )


def _cached(prices: prices_pb2.PriceTerms | prices_pb2.PriceTier) -> int:
    return prices.cached_prompt_micros if prices.HasField("cached_prompt_micros") else prices.prompt_micros


def read_pool(pool: admin_pb2.PoolPolicy) -> PoolTerms:
    return PoolTerms(
        PoolName(pool.pool),
        _PLACEMENTS.get(pool.placement, PlacementPolicy.EXPECTED_TTFT),
        pool.sticky,
        pool.locality_window if pool.HasField("locality_window") else None,
    )


def read_limits(limits: admin_pb2.Limits) -> Limits:
    """A limit of 0 is one: nothing may pass. What is absent is not limited."""
    read = Limits(
        limits.requests_per_minute if limits.HasField("requests_per_minute") else None,
        limits.tokens_per_minute if limits.HasField("tokens_per_minute") else None,
        limits.concurrency if limits.HasField("concurrency") else None,
        tuple(map(_budget, limits.budgets)),
    )
    return UNLIMITED if read.is_unlimited else read


def _budget(budget: admin_pb2.Budget) -> Budget:
    return Budget(
        budget.id,
        BudgetUnit.MONEY if budget.unit == admin_pb2.BUDGET_UNIT_MONEY else BudgetUnit.TOKENS,
        budget.amount,
        _PERIODS.get(budget.period, Period.EVER),
        budget.time_zone or "UTC",
        budget.spent,
        budget.spent_at_us,
        budget.window_s,
        tuple((step.start_us, step.spent) for step in budget.steps),
        budget.carried,
        budget.carried_since_us,
    )


def _weight(milli: int) -> float:
    return max(SMALLEST_WEIGHT, milli / 1000) if milli else 1.0
