"""What was paid in advance: accounts of users and groups, and the postings on them. Pure; keeping them is balance_store's.

A posting stays for ever; what it got wrong another one puts right. An account pays for what its people use: each request is
paid from one account, its user's or that of the closest group around."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain

from forebay.errors import BadInput, NotPossible

MOST_MICROS = 10**18
"""Of one posting, and of all that was ever paid into one account."""
_LONGEST = 200


class PostingKind(StrEnum):
    TOP_UP = "top_up"
    REFUND = "refund"
    """Given back for what was charged."""
    ADJUSTMENT = "adjustment"
    """Either way."""


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    user_id: str | None
    group_id: str | None
    name: str
    """Of the user or group when it was opened."""
    created_by: str
    opened_at: datetime
    closed_at: datetime | None = None

    @property
    def kind(self) -> str:
        return "user" if self.user_id is not None else "group"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Posting:
    id: int
    account_id: str
    kind: PostingKind
    amount_micros: int
    reference: str
    """One posting of each in an account: who sends it again changes nothing."""
    note: str
    created_by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    account: Account
    paid_micros: int
    """The sum of its postings."""
    charged_micros: int
    """The sum of what its requests cost."""
    counted_micros: int
    """What the scheduler has counted for those same requests."""
    requests: int = 0

    @property
    def left_micros(self) -> int:
        return self.paid_micros - self.charged_micros


def new_account_id() -> str:
    return f"balance_{secrets.token_hex(6)}"


def new_reference() -> str:
    return f"posting_{secrets.token_hex(8)}"


def demand_posting(kind: PostingKind, amount_micros: int, reference: str, note: str) -> None:
    """Raises BadInput."""
    if kind is PostingKind.ADJUSTMENT and amount_micros == 0:
        raise BadInput("An adjustment of nothing adjusts nothing.")
    if kind is not PostingKind.ADJUSTMENT and amount_micros < 1:
        raise BadInput(f"A {kind.replace('_', '-')} is more than nothing; to take money off a balance, adjust it.")
    if abs(amount_micros) > MOST_MICROS:
        raise BadInput("That is more money than there is: at most a million million at once.")
    for what, text in (("A reference", reference), ("A note", note)):
        if len(text) > _LONGEST or not text.isprintable():
            raise BadInput(f"{what} is at most {_LONGEST} letters, none of them unprintable.")


def demand_paid(paid_micros: int) -> None:
    """What all postings of an account come to. Raises BadInput."""
    if not 0 <= paid_micros <= MOST_MICROS:
        raise BadInput("All that was paid into a balance is from nothing to a million million.")


def kind_named(word: str) -> PostingKind:
    """Raises BadInput."""
    try:
        return PostingKind(word)
    except ValueError as error:
        raise BadInput(f"There is no posting {word!r}; there are {', '.join(PostingKind)}.") from error


@dataclass(frozen=True, slots=True)
class Budget:
    """A balance as the scheduler knows one: a budget of money for ever."""

    id: str
    amount: int
    spent: int


def as_budget(balance: Balance) -> Budget:
    """What the scheduler counts otherwise than the ledger has charged is taken off (or put onto) the amount: what is left
    by its count is what is left on the balance, less what runs and what is not in the ledger yet."""
    amount = balance.paid_micros - (balance.charged_micros - balance.counted_micros)
    return Budget(
        balance.account.id, max(0, min(amount, MOST_MICROS)), max(0, min(balance.counted_micros, MOST_MICROS))
    )


class Payers:
    """Whose account pays for a request."""

    def __init__(self, accounts: Mapping[str, Account], parents: Mapping[str, str | None]) -> None:
        """`accounts`: those that are open, by id. `parents`: of groups, by id."""
        self._users = {a.user_id: a for a in accounts.values() if a.user_id is not None}
        self._groups = {a.group_id: a for a in accounts.values() if a.group_id is not None}
        self._parents = parents

    def __iter__(self) -> Iterator[Account]:
        return chain(self._users.values(), self._groups.values())

    def around(self, user_id: str, group_id: str, started_at: datetime | None = None) -> Iterator[Account]:
        """The user's own account, then those of the groups that they are in, the closest first: the first one pays. With
        `started_at`, none that was opened after it: nobody pays in advance for what was begun before."""
        for account in self._all(user_id, group_id):
            if started_at is None or account.opened_at <= started_at:
                yield account

    def _all(self, user_id: str, group_id: str) -> Iterator[Account]:
        if user_id in self._users:
            yield self._users[user_id]
        seen: set[str] = set()
        group: str | None = group_id
        while group and group not in seen:
            seen.add(group)
            if group in self._groups:
                yield self._groups[group]
            group = self._parents.get(group)


def demand_alone(
    account: Account, groups_of: Mapping[str, str], others: Payers, parents: Mapping[str, str | None]
) -> None:
    """A balance within another one would be refused what the other has no money for. Raises NotPossible.

    `groups_of`: of the user whose account this is, and of those who have one. `others`: the accounts that are open."""
    inside = next(others.around("", _group_of(account, groups_of)), None)
    if inside is None and account.group_id is not None:
        mine = Payers({account.id: account}, parents)
        inside = next((one for one in others if account in mine.around("", _group_of(one, groups_of))), None)
    if inside is not None:
        raise NotPossible(
            f"The {inside} pays in advance already, and a request is paid from one balance: top that one up, or close it."
        )


def _group_of(account: Account, groups_of: Mapping[str, str]) -> str:
    return account.group_id or groups_of.get(account.user_id or "", "")
