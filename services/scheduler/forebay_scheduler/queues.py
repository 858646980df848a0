"""What waits: each request in its pool's line and with its gateway, until it starts, leaves, or has waited too long. Pure.

Whose turn it is is `fairness`' business. Nothing is refused or started here."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator

from forebay_scheduler.events import PolicyChanged
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.gateways import Gateway
from forebay_scheduler.lines import Line
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import LedgerId, PoolName, Request, UserId
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import PoolTerms, UserTerms

_SPARE_EXPIRIES = 1024
"""More than twice as many moments as requests, and this many more: then those that mean nothing are dropped."""


class Queues:
    def __init__(self, rules: Rules, shares: Shares, stations: Stations, chance: random.Random) -> None:
        self._rules = rules
        self._shares = shares
        self._stations = stations
        self._chance = chance
        self._lines: dict[PoolName, Line] = {}
        self._pool_terms: dict[PoolName, PoolTerms] = {}
        self._user_terms: dict[UserId, UserTerms] = {}
        self._owners: dict[LedgerId, Gateway] = {}
        self._expiries: list[tuple[float, LedgerId]] = []
        self.wanted: dict[tuple[PoolName, str], None] = {}
        """Pools and models for which something came to wait, or may start now that could not before."""

    def __contains__(self, ledger_id: LedgerId) -> bool:
        return ledger_id in self._owners

    @property
    def lines(self) -> Iterable[Line]:
        return self._lines.values()

    def line(self, pool: PoolName) -> Line:
        line = self._lines.get(pool)
        if line is None:
            terms = self._pool_terms.get(pool, PoolTerms(pool))
            line = self._lines[pool] = Line(pool, self._rules, self._shares, self._stations, terms, self._chance)
        return line

    def has_backlog(self, pool: PoolName) -> bool:
        line = self._lines.get(pool)
        return line is not None and len(line.queue) > 0

    def owner(self, ledger_id: LedgerId) -> Gateway | None:
        """Whose it is that waits."""
        return self._owners.get(ledger_id)

    def is_full(self, line: Line, user: UserId) -> bool:
        terms = self._user_terms.get(user)
        most = self._rules.queue_per_user if terms is None or terms.max_queued is None else terms.max_queued
        return len(line.queue) >= self._rules.queue_per_pool or line.queue.waiting_of(user) >= most

    def want_all(self) -> None:
        """Look again for everything that waits."""
        for line in self._lines.values():
            if line.queue:
                for model in line.queue.models:
                    self.wanted[line.pool, model] = None

    # -- coming and going ---------------------------------------------------------------------------------------------

    def put(self, gateway: Gateway, request: Request, *, is_retry: bool = False) -> None:
        self.keep(gateway, request)
        queue = self.line(request.pool).queue
        if is_retry:
            queue.restore(request)
        else:
            queue.push(request)
        self.wanted[request.pool, request.model] = None
        if len(self._expiries) > _SPARE_EXPIRIES + 2 * len(self._owners):
            self._sweep_expiries()
        heapq.heappush(self._expiries, (self._expires_at(request), request.ledger_id))

    def keep(self, gateway: Gateway, request: Request) -> None:
        """It waits, and not in its line: its turn cannot come."""
        self._owners[request.ledger_id] = gateway
        gateway.waiting[request.ledger_id] = request

    def park(self, gateway: Gateway) -> None:
        """Out of its lines, but not forgotten: a grant could not reach it now."""
        for ledger_id, request in gateway.waiting.items():
            self.line(request.pool).queue.remove(ledger_id)

    def take(self, ledger_id: LedgerId) -> Gateway:
        """It starts. Its place in the line is the fair queue's to end."""
        gateway = self._owners.pop(ledger_id)
        del gateway.waiting[ledger_id]
        return gateway

    def withdraw(self, ledger_id: LedgerId) -> Request | None:
        """It no longer waits. None when it did not."""
        gateway = self._owners.pop(ledger_id, None)
        if gateway is None:
            return None
        request = gateway.waiting.pop(ledger_id)
        self.wanted[request.pool, request.model] = None  # who could not pass it may go now
        self.line(request.pool).queue.remove(ledger_id)
        return request

    def expired(self, now: float) -> Iterator[tuple[Gateway, Request]]:
        """Those that have waited for as long as they may."""
        while self._expiries and self._expiries[0][0] <= now:
            ledger_id = heapq.heappop(self._expiries)[1]
            gateway = self._owners.get(ledger_id)
            if gateway is None or not gateway.is_reachable:
                continue  # gone, granted, or parked: then its gateway submits it again when it returns
            request = gateway.waiting[ledger_id]
            if self._expires_at(request) <= now:
                yield gateway, request

    def _sweep_expiries(self) -> None:
        """One moment for each that waits: most start long before theirs, which may be an hour away, and whoever comes back
        with its gateway is put a second time."""
        waiting = [(ledger_id, gateway.waiting[ledger_id]) for ledger_id, gateway in self._owners.items()]
        self._expiries = [(self._expires_at(request), ledger_id) for ledger_id, request in waiting]
        heapq.heapify(self._expiries)

    def _expires_at(self, request: Request) -> float:
        allowed_s = self._rules.queue_timeout_s[request.band]
        return request.arrived_at + (allowed_s if request.deadline_s is None else min(allowed_s, request.deadline_s))

    # -- what others say ----------------------------------------------------------------------------------------------

    def change_policy(self, change: PolicyChanged) -> None:
        """The shares have been changed already."""
        self._user_terms.update({terms.user: terms for terms in change.users})
        for user in change.removed:
            self._user_terms.pop(user, None)
        for terms in change.pools:
            self._pool_terms[terms.pool] = terms
        for pool in change.removed_pools:
            self._pool_terms.pop(pool, None)
        for pool in {*(terms.pool for terms in change.pools), *change.removed_pools} & self._lines.keys():
            self._lines[pool].change(self._pool_terms.get(pool, PoolTerms(pool)), self._rules)
        for line in self._lines.values():
            line.queue.reshape()
        self.want_all()

    def let_time_pass(self, seconds: float) -> None:
        for line in self._lines.values():
            if line.queue.models:  # those who are paused wait for something else
                line.pace.note_time(seconds)
