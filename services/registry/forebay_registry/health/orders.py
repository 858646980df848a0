"""What keeps backends empty: operators' drains, and maintenance windows. Pure: whether one holds now is asked with the time.

Nothing is remembered of a window but itself, so that a clock which is set changes what holds now and nothing else; and how
much of a jump is believed is `SteadyTime`'s."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from forebay.errors import BadInput
from forebay_registry.backend import Desired

MOST_REASON = 200
MOST_WINDOWS = 1000
LONGEST_S = 366 * 86_400.0
OVER_KEPT_S = 86_400.0
"""How long a window that is over is still listed, and would hold again if the clock were set back."""


class Scope(StrEnum):
    BACKEND = "backend"
    NODE = "node"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class Drain:
    """An operator's word; it holds until it is lifted."""

    scope: Scope
    subject: str
    """The id of the backend or the node."""
    since: float
    by: str
    ends_at: float | None = None
    """Then what has no first token yet is placed elsewhere. None: all may finish."""
    is_forced: bool = False
    """And then what runs is ended."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    id: str
    scope: Scope
    subject: str
    """The id of the backend or the node, or the name of the pool."""
    begins_at: float
    ends_at: float
    drain_before_s: int
    """From so long before the beginning nothing new is sent there, and at the beginning what still runs is ended. 0: it
    drains from the beginning on, and all may finish."""
    reason: str
    by: str
    added_at: float

    def holds(self, now: float) -> bool:
        return self.begins_at - self.drain_before_s <= now < self.ends_at


@dataclass(frozen=True, slots=True)
class KeptEmpty:
    """What holds for one backend now, all orders joined."""

    why: str
    """One sentence."""
    deadline: float | None = None
    is_forced: bool = False
    maintenance_until: float | None = None
    """In a window, or in the time before one in which it drains; until then. None: an operator's order alone."""


def demand_drain(ends_at: float | None, *, is_forced: bool, reason: str) -> None:
    """Raises BadInput."""
    if is_forced and ends_at is None:
        raise BadInput("To end what runs there, say when: a forced drain needs a deadline.")
    _demand_reason(reason)


def demand_window(window: Window, known: int, now: float) -> None:
    """Raises BadInput."""
    if window.ends_at <= window.begins_at:
        raise BadInput("The maintenance ends before it begins.")
    if window.ends_at <= now:
        raise BadInput("That maintenance is over already.")
    if window.ends_at - window.begins_at > LONGEST_S or window.begins_at - now > 10 * LONGEST_S:
        raise BadInput("Maintenance lasts for a year at most, and begins within ten.")
    if window.drain_before_s > 86_400:
        raise BadInput("Draining before maintenance may take a day at most.")
    if known >= MOST_WINDOWS:
        raise BadInput(f"There are {known} maintenance windows; remove some first.")
    _demand_reason(window.reason)


def kept_empty(
    backend: Desired, drains: Mapping[tuple[Scope, str], Drain], windows: Iterable[Window], now: float
) -> KeptEmpty | None:
    """None: requests may be sent there. Of several deadlines the first counts, and force if any that is due demands it."""
    orders = [d for scope, subject in _subjects(backend) if (d := drains.get((scope, subject))) is not None]
    open_now = [w for w in windows if (w.scope, w.subject) in _subjects(backend) and w.holds(now)]
    if not orders and not open_now:
        return None
    deadlines = [(d.ends_at, d.is_forced) for d in orders if d.ends_at is not None]
    deadlines += [(w.begins_at, True) for w in open_now if w.drain_before_s]
    first = min(deadlines, key=lambda one: (one[0], not one[1]), default=None)
    due = [one for one in deadlines if one[0] <= now]
    return KeptEmpty(
        why=_told_window(open_now[0]) if open_now else _told_drain(orders[0]),
        deadline=first[0] if first is not None else None,
        is_forced=any(forced for _, forced in due) if due else first is not None and first[1],
        maintenance_until=max(w.ends_at for w in open_now) if open_now else None,
    )


def concerns(backend: Desired, scope: Scope, subject: str) -> bool:
    return (scope, subject) in _subjects(backend)


def _subjects(backend: Desired) -> tuple[tuple[Scope, str], ...]:
    own = (Scope.BACKEND, str(backend.id)), (Scope.POOL, backend.pool)
    return own if backend.node_id is None else (*own, (Scope.NODE, str(backend.node_id)))


def _told_drain(drain: Drain) -> str:
    what = "It is drained" if drain.scope is Scope.BACKEND else "Its node is drained"
    return f"{what} by {drain.by}{f': {drain.reason}' if drain.reason else ''}."


def _told_window(window: Window) -> str:
    whose = {Scope.BACKEND: "It is", Scope.NODE: "Its node is", Scope.POOL: f"The pool {window.subject} is"}[
        window.scope
    ]
    return f"{whose} under maintenance, by {window.by}{f': {window.reason}' if window.reason else ''}."


def _demand_reason(reason: str) -> None:
    if len(reason) > MOST_REASON or not reason.isprintable():
        raise BadInput(f"A reason is one line of at most {MOST_REASON} characters.")


class SteadyTime:
    """The time of day by which windows open and close. A step of the clock is believed when it has lasted: a clock that
    jumps by hours and is set right again opens and closes nothing."""

    def __init__(self, *, step_s: float = 5.0, believed_after_s: float = 60.0) -> None:
        self._step_s = step_s
        self._believed_after_s = believed_after_s
        self._offset: float | None = None
        """Time of day less monotonic time, as it is believed."""
        self._other: tuple[float, float] | None = None
        """Another such offset, and since when it has been seen."""

    @property
    def is_in_doubt(self) -> bool:
        return self._other is not None

    def read(self, wall: float, monotonic: float) -> float:
        """The believed time of day."""
        offset = wall - monotonic
        if self._offset is None or abs(offset - self._offset) < self._step_s:
            self._offset, self._other = offset, None
        elif self._other is None or abs(offset - self._other[0]) >= self._step_s:
            self._other = offset, monotonic
        elif monotonic - self._other[1] >= self._believed_after_s:
            self._offset, self._other = offset, None
        return monotonic + self._offset
