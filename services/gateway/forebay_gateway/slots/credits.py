"""Slots that the scheduler lent ahead, on which a request begins without asking. Pure.

A credit is for one model on one backend and ends by itself, on this gateway's own clock. Each of its leases names one
request and is used once; its slots may be used again while it lasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Lent:
    id: int
    backend_id: str
    pool: str
    model: str
    slots: int
    """At once."""
    expires_at: float
    first_lease: int
    leases: int


class Over:
    """Numbers of what is over, the latest few thousand: longer than anything can be on its way."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def add(self, number: int) -> None:
        self._numbers[number] = None
        if len(self._numbers) > _REMEMBERED:
            del self._numbers[next(iter(self._numbers))]

    def clear(self) -> None:
        self._numbers.clear()

    def __contains__(self, number: int) -> bool:
        return number in self._numbers


class Credit:
    """What was lent, and how much of it is in use."""

    __slots__ = ("in_use", "lent", "used_leases")

    def __init__(self, lent: Lent) -> None:
        self.lent = lent
        self.in_use = 0
        """Slots; whoever began on it takes them off again, also when the credit has ended."""
        self.used_leases = 0

    def begin(self, width: int) -> int:
        """Gives the lease."""
        lease = self.lent.first_lease + self.used_leases
        self.used_leases += 1
        self.in_use += width
        return lease


class Credits:
    def __init__(self) -> None:
        self._by_id: dict[int, Credit] = {}
        self._by_model: dict[tuple[str, str], list[Credit]] = {}
        self._ended: list[int] = []
        self._over = Over()
        self._first_expiry = math.inf
        """No credit ends by itself before this."""

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def slots(self) -> int:
        return sum(credit.lent.slots for credit in self._by_id.values())

    def lend(self, lent: Lent) -> None:
        """Told again, a credit lasts longer; what was begun on it stays begun. Once it is over it stays so: a renewal was on
        its way when it was returned."""
        if lent.id in self._over:
            return
        self._first_expiry = min(self._first_expiry, lent.expires_at)
        known = self._by_id.get(lent.id)
        if known is None:
            known = self._by_id[lent.id] = Credit(lent)
            self._by_model.setdefault((lent.pool, lent.model), []).append(known)
            return
        if lent.first_lease != known.lent.first_lease:
            known.used_leases = 0
        known.lent = lent

    def stands(self, credit: Credit | None) -> bool:
        """It has not ended: as far as the scheduler has said, nobody waits where it is for."""
        return credit is not None and self._by_id.get(credit.lent.id) is credit

    def find(self, pool: str, model: str, width: int, now: float) -> Credit | None:
        """One on which a request of this width can begin now."""
        for credit in self._by_model.get((pool, model), ()):
            lent = credit.lent
            if now < lent.expires_at and credit.in_use + width <= lent.slots and credit.used_leases < lent.leases:
                return credit
        return None

    def end(self, credit_id: int) -> None:
        """Recalled: nothing more is begun on it. One that is not known is returned all the same."""
        credit = self._by_id.pop(credit_id, None)
        self._ended.append(credit_id)
        self._over.add(credit_id)
        if credit is None:
            return
        place = (credit.lent.pool, credit.lent.model)
        self._by_model[place].remove(credit)
        if not self._by_model[place]:
            del self._by_model[place]

    def end_expired(self, now: float) -> None:
        if now < self._first_expiry:
            return
        for credit_id in [i for i, credit in self._by_id.items() if now >= credit.lent.expires_at]:
            self.end(credit_id)
        self._first_expiry = min((credit.lent.expires_at for credit in self._by_id.values()), default=math.inf)

    def end_all(self) -> None:
        for credit_id in list(self._by_id):
            self.end(credit_id)

    def forget_numbers(self) -> None:
        """Another leader counts anew."""
        self._over.clear()

    def take_ended(self) -> list[int]:
        """Those to be returned, once."""
        ended, self._ended = self._ended, []
        return ended
