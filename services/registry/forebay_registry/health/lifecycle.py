"""Each backend's state, kept: what looks, gateways, agents, the scheduler and operators say of it meets here, `states`
judges, and each change is remembered, told and stored once.

Nothing here waits for anybody: whoever hears something calls in, and `on_news` says which backends are to be told anew."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from forebay.clock import Clock
from forebay_registry.backend import BackendId, Condition, Desired, Load, NodeId, Observed, Verdict
from forebay_registry.health.attempts import Attempts
from forebay_registry.health.conditions import Health, recalled
from forebay_registry.health.order_book import OrderBook
from forebay_registry.health.orders import KeptEmpty
from forebay_registry.health.states import Facts, Limits, State, judge

log = logging.getLogger(__name__)

CHANGES_KEPT = 50
"""Of each backend."""
_UNTOLD_KEPT = 10_000
_TICK_S = 1.0
_HELD_FRESH_S = 5.0
"""How long the scheduler's word of what is held somewhere counts."""
_SETTLE_S = 3.0
"""After an order, what gateways and the scheduler had already begun shows in an engine's count within so long."""
_LOOKS = 3
_SAME_S = 0.001
"""Postgres keeps moments to the microsecond."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transition."""

    backend_id: BackendId
    backend: str
    """Its name then."""
    at: float
    """Seconds since the epoch."""
    before: Condition
    after: Condition
    cause: str
    reason: str
    in_maintenance: bool


@dataclass(slots=True)
class _Case:
    """One backend's."""

    state: State
    kept: KeptEmpty | None = None
    kept_since: float = float("-inf")
    """On the monotonic clock."""
    since: float = 0.0
    """When the state began, in seconds since the epoch."""
    took_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LOOKS))
    checked_at: float | None = None
    verdict: Verdict | None = None
    """The last that was told."""
    changes: deque[Change] = field(default_factory=lambda: deque(maxlen=CHANGES_KEPT))


@dataclass(slots=True)
class _Host:
    heard_at: float
    """On the monotonic clock."""
    memory_used: float | None
    silent_after_s: float


class Lifecycle:
    def __init__(self, clock: Clock, limits: Limits | None = None) -> None:
        self._clock = clock
        self._limits = limits or Limits()
        self._cases: dict[BackendId, _Case] = {}
        self._hosts: dict[NodeId, _Host] = {}
        self._held: dict[str, tuple[float, int]] = {}
        """Backend → when the scheduler last said, on the monotonic clock, and how many slots are held there."""
        self.orders = OrderBook(clock, self._review)
        self.attempts = Attempts()
        self.on_news: Callable[[Iterable[BackendId]], None] = lambda backend_ids: None
        """Hears of which backends the verdict may have changed by itself."""
        self.untold: deque[Change] = deque(maxlen=_UNTOLD_KEPT)
        """Changes that were not published yet."""
        self.unsaved: deque[Change] = deque(maxlen=_UNTOLD_KEPT)
        self.changed = asyncio.Event()
        """There are such."""

    # --- what is so -------------------------------------------------------------------------------------------------

    def verdict(self, wanted: Desired, observed: Observed) -> Verdict:
        """How the backend is now; called with each look, and whenever `on_news` named it."""
        now = self._clock.monotonic()
        kept = self.orders.kept_empty(wanted)
        case = self._cases.get(wanted.id)
        if case is None:
            case = self._cases[wanted.id] = _Case(State(since=now), since=self._clock.now())
        if (kept is None) != (case.kept is None):
            case.kept_since = now
        is_told = case.verdict is not None and case.kept == kept
        case.kept = kept
        if observed.checked_at is not None and observed.checked_at != case.checked_at:
            case.checked_at = observed.checked_at
            if observed.took_s is not None:
                case.took_s.append(observed.took_s)
        before = case.state
        case.state = judge(before, self._facts(wanted, observed, case, now), now, self._limits)
        if case.state.condition is not before.condition:
            case.since = self._clock.now()
            self._note(wanted, before, case)
        if case.verdict is not None and is_told and case.state is before:
            return case.verdict
        case.verdict = Verdict(
            condition=case.state.condition,
            since=case.since,
            cause=case.state.cause,
            reason=case.state.reason,
            is_draining=kept is not None,
            drain_deadline=kept.deadline if kept is not None else None,
            drain_forced=kept is not None and kept.is_forced,
            drain_reason=kept.why if kept is not None else "",
            maintenance_until=kept.maintenance_until if kept is not None else None,
        )
        return case.verdict

    def begin_anew(self, backend_id: BackendId) -> None:
        """It has another address: what was known was said of another engine."""
        case = self._cases.get(backend_id)
        if case is not None:
            case.state, case.verdict = State(since=self._clock.monotonic()), None
            case.since, case.checked_at = self._clock.now(), None
            case.took_s.clear()

    def knows(self, backend_id: str) -> bool:
        return backend_id in self._cases

    def forget(self, backend_id: BackendId) -> None:
        self._cases.pop(backend_id, None)
        self._held.pop(backend_id, None)
        self.attempts.forget(backend_id)

    def recall(self, backend_id: BackendId, now: float) -> Health | None:
        """What was known before this start, for the first look."""
        case = self._cases.get(backend_id)
        if case is None or not case.changes:
            return None
        today = self._clock.now()
        falls = tuple(
            now - max(0.0, today - c.at)
            for c in case.changes
            if c.before.takes_new and (c.after.is_down or c.after is Condition.STARTING)
        )
        return recalled(case.state.condition, falls, now)

    def changes_of(self, backend_id: BackendId) -> tuple[Change, ...]:
        """The newest first."""
        case = self._cases.get(backend_id)
        return tuple(reversed(case.changes)) if case is not None else ()

    def adopt_history(self, history: Mapping[BackendId, Iterable[Change]]) -> None:
        """What was stored of the past, the oldest first. It counts where it is newer than what is known here."""
        for backend_id, changes in history.items():
            told = deque(changes, maxlen=CHANGES_KEPT)
            known = self._cases.get(backend_id)
            if not told or (known is not None and known.changes and told[-1].at < known.changes[-1].at + _SAME_S):
                continue
            last = told[-1]
            state = State(last.after, self._clock.monotonic(), last.cause, last.reason)
            self._cases[backend_id] = _Case(state, since=last.at, changes=told)

    # --- what is heard ----------------------------------------------------------------------------------------------

    def hear_host(self, node_id: NodeId, memory_total: int, memory_available: int, silent_after_s: float) -> None:
        """A sample of its agent. 0 bytes in all: it did not say. `silent_after_s`: without another one it is silent then."""
        used = 1.0 - memory_available / memory_total if memory_total > 0 else None
        self._hosts[node_id] = _Host(self._clock.monotonic(), used, silent_after_s)

    def hear_held(self, held: Mapping[str, int]) -> None:
        """From the scheduler that leads, of backends that it knows to drain."""
        now = self._clock.monotonic()
        known = {i: slots for i, slots in held.items() if i in self._cases}
        news = [BackendId(i) for i, slots in known.items() if self._held.get(i, (0.0, -1))[1] != slots]
        self._held.update({backend_id: (now, slots) for backend_id, slots in known.items()})
        self.on_news(news)

    def stand_by(self) -> None:
        """Another registry judges: what is noted here meanwhile, without looks, is nobody's news."""
        self.untold.clear()
        self.unsaved.clear()
        for case in self._cases.values():
            case.changes.clear()

    async def tick(self) -> None:
        """What time alone changes: windows, deadlines, empty backends, states that may be left. Until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            if self.orders.is_any_about_to_begin():
                self.on_news(list(self._cases))
            else:
                self.on_news([i for i, case in self._cases.items() if self._may_change(case)])

    # --- inside -----------------------------------------------------------------------------------------------------

    def _may_change(self, case: _Case) -> bool:
        # Looks come every few seconds and bring most changes along; what cannot wait for one is asked here.
        return case.kept is not None or case.state.condition is Condition.UNHEALTHY

    def _review(self) -> None:
        self.changed.set()
        self.on_news(list(self._cases))

    def _facts(self, wanted: Desired, observed: Observed, case: _Case, now: float) -> Facts:
        host = self._hosts.get(wanted.node_id) if wanted.node_id is not None else None
        is_silent = host is not None and now - host.heard_at > host.silent_after_s
        load = observed.load
        slots = wanted.slots or observed.seen.slots
        return Facts(
            looks=observed.condition if observed.checked_at is not None else _before_looks(case.state.condition),
            looks_cause=observed.cause or case.state.cause,
            looks_reason=observed.reason if observed.checked_at is not None else case.state.reason,
            down_s=observed.down_s,
            is_node_silent=is_silent,
            failing=self.attempts.failing(wanted.id, now),
            slow_s=min(case.took_s) if len(case.took_s) == _LOOKS else None,
            memory_used=host.memory_used if host is not None and not is_silent else None,
            kv_used=load.kv_used_fraction if load is not None else None,
            queued=_queued(load, slots),
            kept_empty=case.kept.why if case.kept is not None else "",
            is_maintenance=case.kept is not None and case.kept.maintenance_until is not None,
            runs=self._runs(wanted.id, load, case, now) if case.kept is not None else None,
        )

    def _runs(self, backend_id: BackendId, load: Load | None, case: _Case, now: float) -> bool | None:
        """By the scheduler's word, else by the engine's own count."""
        told_at, held = self._held.get(backend_id, (float("-inf"), 0))
        if told_at >= case.kept_since and now - told_at < _HELD_FRESH_S:
            return held > 0
        settled = case.kept_since + _SETTLE_S
        if load is None or load.running is None or now < settled:
            return None
        measured = now - max(0.0, self._clock.now() - load.measured_at)
        return load.running + (load.waiting or 0) > 0 if measured >= settled else None

    def _note(self, wanted: Desired, before: State, case: _Case) -> None:
        is_maintenance = case.kept is not None and case.kept.maintenance_until is not None
        state = case.state
        change = Change(
            wanted.id,
            wanted.name,
            case.since,
            before.condition,
            state.condition,
            state.cause,
            state.reason,
            is_maintenance,
        )
        case.changes.append(change)
        self.untold.append(change)
        self.unsaved.append(change)
        self.changed.set()
        level = logging.WARNING if state.condition.is_down and not is_maintenance else logging.INFO
        fields = {"action": "health", "backend": wanted.name, "url": wanted.url, "condition": str(state.condition)}
        fields |= {"before": str(before.condition), "cause": state.cause, "why": state.reason}
        log.log(level, "backend is %s", state.condition, extra=fields)


def _queued(load: Load | None, slots: int | None) -> float | None:
    """What waits inside, per slot; where nobody says how many there are, what runs counts for them."""
    if load is None or load.waiting is None:
        return None
    return load.waiting / max(1, slots or load.running or 1)


def _before_looks(condition: Condition) -> Condition:
    """What the looks said when a registry before this one saw that state."""
    match condition:
        case Condition.DEGRADED | Condition.SATURATED:
            return Condition.HEALTHY
        case Condition.OFFLINE:
            return Condition.UNHEALTHY
        case Condition.DRAINING | Condition.DRAINED:
            return Condition.UNKNOWN
        case _:
            return condition
