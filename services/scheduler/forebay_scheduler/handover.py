"""What a leader leaves to its successor, gathered from the parts of the core, and given back to them. Pure."""

from __future__ import annotations

from forebay_scheduler.fairness.cost import CostModel
from forebay_scheduler.limits.limits import LimitBook
from forebay_scheduler.queues import Queues
from forebay_scheduler.saved import SavedState
from forebay_scheduler.slots import Slots


def gather(queues: Queues, slots: Slots, limits: LimitBook, cost: CostModel, now: float) -> SavedState:
    """All but the ids of what is settled."""
    return SavedState(
        ahead={line.pool: tuple(line.queue.lags()) for line in queues.lines},
        spent=tuple(limits.spent()),
        rates=tuple(limits.levels(now)),
        lengths=cost.lengths(),
        drains={backend: None if until is None else until - now for backend, until in slots.closures.drains.items()},
        found_limits=tuple(slots.stations.found_limits()),
        prefills=tuple(slots.stations.prefill_fits()),
    )


def hand_over(state: SavedState, queues: Queues, slots: Slots, limits: LimitBook, cost: CostModel, now: float) -> None:
    """Before anything is pushed or granted."""
    if not state.stored_at_us:
        return
    for pool, ahead in state.ahead.items():
        queues.line(pool).queue.restore_lags(ahead)
    limits.restore(state.spent, state.rates, state.stored_at_us, state.wall_us, now)
    cost.restore_lengths(state.lengths)
    slots.closures.drains.update(
        {backend: None if left is None else now + left for backend, left in state.drains.items()}
    )
    slots.stations.restore(state.found_limits, state.prefills)
