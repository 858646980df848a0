"""The orders that keep backends empty: drains and maintenance windows, as they hold now. What they come to for one backend
is judged in `orders`; whoever changes one stores it first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from forebay.clock import Clock
from forebay_registry.backend import Desired
from forebay_registry.health.orders import (
    OVER_KEPT_S,
    Drain,
    KeptEmpty,
    Scope,
    SteadyTime,
    Window,
    concerns,
    kept_empty,
)

log = logging.getLogger(__name__)

_SOON_S = 5.0
"""Around the beginning of a window every backend is looked through."""


@dataclass(frozen=True, slots=True)
class Orders:
    """As they are stored."""

    drains: tuple[Drain, ...] = ()
    windows: tuple[Window, ...] = ()


class OrderBook:
    def __init__(self, clock: Clock, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._drains: dict[tuple[Scope, str], Drain] = {}
        self._windows: dict[str, Window] = {}
        self._steady = SteadyTime()

    def all(self) -> Orders:
        return Orders(tuple(self._drains.values()), tuple(self._windows.values()))

    def adopt(self, orders: Orders) -> None:
        """These hold now, whatever held before."""
        self._drains = {(d.scope, d.subject): d for d in orders.drains}
        self._windows = {w.id: w for w in orders.windows}
        self._on_change()

    def put_drain(self, drain: Drain) -> None:
        self._drains[drain.scope, drain.subject] = drain
        self._on_change()

    def lift_drain(self, scope: Scope, subject: str) -> None:
        self._drains.pop((scope, subject), None)
        self._on_change()

    def drain_of(self, scope: Scope, subject: str) -> Drain | None:
        return self._drains.get((scope, subject))

    def put_window(self, window: Window) -> None:
        self._windows[window.id] = window
        self._on_change()

    def remove_window(self, window_id: str) -> None:
        self._windows.pop(window_id, None)
        self._on_change()

    def windows(self) -> tuple[Window, ...]:
        """By their beginning, without those that have been over for long."""
        over = self._today() - OVER_KEPT_S
        return tuple(sorted((w for w in self._windows.values() if w.ends_at > over), key=lambda w: (w.begins_at, w.id)))

    def of(self, wanted: Desired) -> Orders:
        """Those that concern it."""
        return Orders(
            tuple(d for d in self._drains.values() if concerns(wanted, d.scope, d.subject)),
            tuple(w for w in self.windows() if concerns(wanted, w.scope, w.subject)),
        )

    def kept_empty(self, wanted: Desired) -> KeptEmpty | None:
        """By which of them it is, if by any."""
        today = self._today()
        if not self._drains and not self._windows:
            return None
        return kept_empty(wanted, self._drains, self._windows.values(), today)

    def is_any_about_to_begin(self) -> bool:
        """Or has just begun."""
        today = self._today()
        edges = ((w.begins_at - w.drain_before_s, w.begins_at) for w in self._windows.values())
        return any(abs(today - edge) <= _SOON_S for both in edges for edge in both)

    def _today(self) -> float:
        was_in_doubt = self._steady.is_in_doubt
        today = self._steady.read(self._clock.now(), self._clock.monotonic())
        if self._steady.is_in_doubt and not was_in_doubt:
            fields = {"action": "clock_step", "by_s": round(self._clock.now() - today, 1)}
            log.warning("the clock jumped: maintenance goes by the old time until the new one has lasted", extra=fields)
        return today
