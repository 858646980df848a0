"""One pool's waiting line: its queue, its way of placing, its retries, and how fast it drains. Pure."""

from __future__ import annotations

import random

from forebay_scheduler.fairness.fair_queue import FairQueue
from forebay_scheduler.fairness.shares import Shares
from forebay_scheduler.fairness.waits import Returns, Throughput
from forebay_scheduler.placing.placement import Placement
from forebay_scheduler.placing.stations import Stations
from forebay_scheduler.request import PoolName
from forebay_scheduler.retry_budget import RetryBudget
from forebay_scheduler.rules import Rules
from forebay_scheduler.terms import PoolTerms


class Line:
    __slots__ = ("pace", "placement", "pool", "queue", "retries", "returns", "terms", "window")

    def __init__(
        self, pool: PoolName, rules: Rules, shares: Shares, stations: Stations, terms: PoolTerms, chance: random.Random
    ) -> None:
        self.pool = pool
        self.queue = FairQueue(shares, rules.fair)
        self.placement = Placement(stations, terms, chance, rules.placing, self.queue.waiting_for)
        self.retries = RetryBudget(rules.retry_share, rules.retry_reserve)
        self.pace = Throughput()
        self.returns = Returns()
        self.terms = terms
        self.window = 0.0
        """Tokens of weight one by which a cached prefix may jump the queue."""
        self.change(terms, rules)

    def change(self, terms: PoolTerms, rules: Rules) -> None:
        self.terms = self.placement.terms = terms
        self.window = float(rules.locality_window if terms.locality_window is None else terms.locality_window)
