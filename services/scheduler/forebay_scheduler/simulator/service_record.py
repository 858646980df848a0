"""Who was served how much by when, exactly: one row of sums for each step of an engine, and when each user had a backlog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forebay_scheduler.simulator.jobs import Job, Workload


class ServiceRecord:
    """Service is cost delivered, by the workload's rule: prompt tokens when they are read (the cached ones when the rest
    was), output tokens when they are written. A user has a backlog while something of theirs has not been begun."""

    def __init__(self, workload: Workload) -> None:
        self._cost = workload.cost
        self._users = workload.users
        self._served = [0.0] * workload.users
        self.times: list[float] = [0.0]
        self.rows: list[list[float]] = [[0.0] * workload.users]
        """Sums by user; row k holds from times[k] on."""
        self.backlogs: list[list[tuple[int, int]]] = [[] for _ in range(workload.users)]
        """By user: (first row, last row) of each time with a backlog."""
        self._waiting = [0] * workload.users
        self._since = [0] * workload.users

    def waits(self, user: int) -> None:
        if not self._waiting[user]:
            self._since[user] = len(self.rows) - 1
        self._waiting[user] += 1

    def starts(self, job: Job) -> None:
        user = job.user
        self._waiting[user] -= 1
        last = len(self.rows) - 1
        if not self._waiting[user] and self._since[user] < last:
            self.backlogs[user].append((self._since[user], last))

    def step(
        self, now: float, tokens: Mapping[int, int], firsts: Sequence[Job], prefilled: Sequence[tuple[Job, int]]
    ) -> None:
        served, cost = self._served, self._cost
        output = cost.output
        for user, count in tokens.items():
            served[user] += output * count
        for job, count in prefilled:
            served[job.user] += cost.prompt * count
        for job in firsts:
            served[job.user] += output + cost.cached * job.cached_tokens
        self.times.append(now)
        self.rows.append(served.copy())
