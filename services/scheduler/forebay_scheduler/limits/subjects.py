"""Whose limits they are: the counters of one key, user or group, and the chain of them that one request is counted by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from forebay_scheduler.limits.budget import Account
from forebay_scheduler.limits.gcra import Rate
from forebay_scheduler.terms import Budget, BudgetUnit, Limits

_NEWEST = 0.2
"""Weight of the newest request in how long they take."""


class Places:
    """Requests at once, waiting ones included."""

    __slots__ = ("held_s", "lent", "limit", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.lent = 0
        self.held_s: float | None = None
        """For how long a request has its place; None before the first has left."""

    @property
    def free(self) -> int:
        return self.limit - self.running - self.lent

    def leave(self, held_s: float) -> None:
        self.running -= 1
        self.held_s = held_s if self.held_s is None else self.held_s + _NEWEST * (held_s - self.held_s)

    def wait_s(self) -> float | None:
        """Until a place is free, should its requests end as evenly as they do. None: never."""
        if self.limit <= 0:
            return None
        taken = self.running + self.lent
        if not taken:
            return 1.0
        return max(1.0, (self.held_s or 0.0) * (1 - self.free) / taken)


class Subject:
    """A key, a user or a group that has limits. Its counters live as long as the limit they count for: a changed limit
    keeps what was counted, one that was removed and set again starts anew."""

    __slots__ = ("accounts", "kind", "name", "places", "request_rate", "token_rate")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        """key, user or group."""
        self.name = name
        self.request_rate: Rate | None = None
        self.token_rate: Rate | None = None
        self.places: Places | None = None
        self.accounts: dict[str, Account] = {}
        """By the id of their budgets."""

    @property
    def ref(self) -> str:
        """As in what is stored: user:alice."""
        return f"{self.kind}:{self.name}"

    def change(
        self, limits: Limits, at_us: int, open_account: Callable[[Budget], Account], close: Callable[[Account], None]
    ) -> None:
        self.request_rate = _changed_rate(self.request_rate, limits.requests_per_minute, at_us)
        self.token_rate = _changed_rate(self.token_rate, limits.tokens_per_minute, at_us)
        if limits.concurrency is None:
            self.places = None
        elif self.places is None:
            self.places = Places(limits.concurrency)
        else:
            self.places.limit = limits.concurrency
        before, self.accounts = self.accounts, {}
        for budget in limits.budgets:
            account = before.get(budget.id)
            if account is not None and _is_same(account.terms, budget):
                account.change(budget)
                del before[budget.id]
            elif budget.id not in self.accounts:
                account = open_account(budget)
            else:
                continue  # twice the same id: the first one counts
            self.accounts[budget.id] = account
        for account in before.values():
            close(account)


Counter = Rate | Places | Account


class Chain:
    """All limits that apply to a request, innermost first: of its key, its user, its group and the groups around it.
    Lists by kind, since deciding walks them for every request."""

    __slots__ = ("money_accounts", "places", "request_rates", "subjects", "token_accounts", "token_rates")

    def __init__(self, subjects: Iterable[Subject]) -> None:
        self.subjects = tuple(subjects)
        self.request_rates = tuple(s.request_rate for s in self.subjects if s.request_rate is not None)
        self.token_rates = tuple(s.token_rate for s in self.subjects if s.token_rate is not None)
        self.places = tuple(s.places for s in self.subjects if s.places is not None)
        accounts = [account for s in self.subjects for account in s.accounts.values()]
        self.token_accounts = tuple(a for a in accounts if a.terms.unit is BudgetUnit.TOKENS)
        self.money_accounts = tuple(a for a in accounts if a.terms.unit is BudgetUnit.MONEY)

    def counters(self) -> Iterator[Counter]:
        yield from self.request_rates
        yield from self.token_rates
        yield from self.places
        yield from self.token_accounts
        yield from self.money_accounts


def _changed_rate(rate: Rate | None, limit: int | None, at_us: int) -> Rate | None:
    if limit is None:
        return None
    if rate is None:
        return Rate(limit)
    rate.change(limit, at_us)
    return rate


def _is_same(one: Budget, other: Budget) -> bool:
    """With another unit or another calendar, what was counted means nothing: it is a new budget."""
    return (one.unit, one.period, one.time_zone, one.window_s) == (
        other.unit,
        other.period,
        other.time_zone,
        other.window_s,
    )
