"""Between what a leader leaves to its successor and the bytes that the bus keeps of it."""

from __future__ import annotations

from forebay.wire.v1 import scheduler_pb2
from forebay_scheduler.limits.limits import RateFilled, SpentSoFar
from forebay_scheduler.request import BackendId, LedgerId, PoolName
from forebay_scheduler.saved import SavedState

_REQUESTS, _TOKENS = "requests", "tokens"


def state_to_wire(state: SavedState, wall_us: int) -> scheduler_pb2.SchedulerState:
    """`wall_us`: the time of day, microseconds since the epoch."""
    told = scheduler_pb2.SchedulerState(settled=state.settled, stored_at_us=wall_us)
    for pool, ahead in state.ahead.items():
        fairness = told.pools.add(pool=pool)
        fairness.nodes.extend([path for path, _ in ahead])
        fairness.ahead_milli.extend([milli for _, milli in ahead])
    for spent in state.spent:
        told.spent.add(
            subject=spent.subject,
            budget_id=spent.budget_id,
            period_start_us=spent.period_start_us,
            amount=max(0, spent.amount),
            later=[max(0, amount) for amount in spent.later],
        )
    for rate in state.rates:
        told.rates.add(subject=rate.subject, rate=rate.rate, full_until_us=rate.full_until_us)
    for model, tokens in state.lengths.items():
        told.lengths.add(model=model, completion_tokens=tokens)
    for backend, left_s in state.drains.items():
        told.drains.add(backend_id=backend, deadline_us=0 if left_s is None else wall_us + round(left_s * 1_000_000))
    for backend, model, slots in state.found_limits:
        told.found_limits.add(backend_id=backend, model=model, slots=slots)
    for backend, model, sums in state.prefills:
        told.prefills.add(backend_id=backend, model=model, sums=sums)
    return told


def read_state(told: scheduler_pb2.SchedulerState, wall_us: int) -> SavedState:
    """`wall_us`: the time of day at which it is read."""
    return SavedState(
        ahead={PoolName(pool.pool): tuple(zip(pool.nodes, pool.ahead_milli, strict=False)) for pool in told.pools},
        spent=tuple(
            SpentSoFar(one.subject, one.budget_id, one.period_start_us, one.amount, tuple(one.later))
            for one in told.spent
        ),
        rates=tuple(
            RateFilled(one.subject, one.rate, one.full_until_us)
            for one in told.rates
            if one.rate in (_REQUESTS, _TOKENS)
        ),
        settled=tuple(map(LedgerId, told.settled)),
        lengths={one.model: one.completion_tokens for one in told.lengths},
        drains={
            BackendId(one.backend_id): (one.deadline_us - wall_us) / 1_000_000 if one.deadline_us else None
            for one in told.drains
        },
        found_limits=tuple((BackendId(one.backend_id), one.model, one.slots) for one in told.found_limits),
        prefills=tuple((BackendId(one.backend_id), one.model, list(one.sums)) for one in told.prefills),
        stored_at_us=told.stored_at_us,
        wall_us=wall_us,
    )
