"""What follows from how a delivery went: whether it is over, and when it, or anything else of its subscription, is tried
again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.webhook import Posted, backoff_s

PATIENCE = timedelta(days=3)
"""After which what could not be delivered is dead."""


class State(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Next:
    state: State
    due_at: datetime
    """Of this delivery, if it waits."""
    failures: int
    """Of the subscription, in a row."""
    retry_at: datetime
    """Until then nothing of the subscription is tried."""


def after(posted: Posted, *, attempts: int, since: datetime, failures: int, now: datetime, jitter: float) -> Next:
    """`attempts`: of this delivery, this one included. `failures`: of the subscription before it. `jitter`: 0 to 1."""
    if posted.is_delivered:
        return Next(State.DELIVERED, now, 0, now)
    if posted.is_gone:
        # The receiver answers, and will never take this one: no fault of what else waits for it.
        return Next(State.DEAD, now, failures, now)
    spread = 0.75 + 0.5 * jitter
    asked = timedelta(seconds=posted.after_s or 0.0)
    retry_at = now + max(timedelta(seconds=backoff_s(failures + 1) * spread), asked)
    due_at = max(retry_at, now + timedelta(seconds=backoff_s(attempts) * spread))
    state = State.DEAD if now - since >= PATIENCE else State.WAITING
    return Next(state, due_at, failures + 1, retry_at)
