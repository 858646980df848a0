"""Which keys are limited, and how much of their limits was lent to this gateway for requests that it begins by itself. Pure.

The limits are kept by the scheduler; here it is only known whether a key has any, from what it said of that key before. Of a
key about which it said nothing yet, nothing is begun without asking."""

from __future__ import annotations

from dataclasses import dataclass

from forebay_gateway.slots.credits import Over


@dataclass(slots=True)
class Allotment:
    id: int
    key_id: str
    requests: int
    tokens: int
    """Both as they were lent."""
    expires_at: float
    requests_spent: int = 0
    tokens_spent: int = 0

    def covers(self, tokens: int, now: float) -> bool:
        return (
            self.requests_spent < self.requests and self.tokens_spent + tokens <= self.tokens and now < self.expires_at
        )


class Allotments:
    def __init__(self) -> None:
        self._is_limited: dict[str, bool] = {}
        self._by_id: dict[int, Allotment] = {}
        self._by_key: dict[str, list[Allotment]] = {}
        self._ended: list[int] = []
        self._over = Over()

    def __len__(self) -> int:
        return len(self._by_id)

    def note(self, key_id: str, is_limited: bool) -> None:
        """What the scheduler's answer to a request of this key said."""
        self._is_limited[key_id] = is_limited

    def is_limited(self, key_id: str) -> bool:
        """As far as is known."""
        return self._is_limited.get(key_id, False)

    def lend(self, allotment: Allotment) -> None:
        """Told again, it lasts longer, and what was spent of it stays spent. Once it is over it stays so."""
        if allotment.id in self._over:
            return
        self._is_limited[allotment.key_id] = True
        known = self._by_id.get(allotment.id)
        if known is not None:
            known.requests, known.tokens, known.expires_at = allotment.requests, allotment.tokens, allotment.expires_at
            return
        self._by_id[allotment.id] = allotment
        self._by_key.setdefault(allotment.key_id, []).append(allotment)

    def spend(self, key_id: str, tokens: int, now: float) -> bool:
        """Whether a request of so many tokens may begin without asking; then it is taken off what was lent."""
        is_limited = self._is_limited.get(key_id)
        if is_limited is None:
            return False
        if not is_limited:
            return True
        for allotment in self._by_key.get(key_id, ()):
            if allotment.covers(tokens, now):
                allotment.requests_spent += 1
                allotment.tokens_spent += tokens
                return True
        return False

    def end(self, allotment_id: int) -> None:
        """Nothing more is spent on it. One that is not known is returned all the same."""
        self._ended.append(allotment_id)
        self._over.add(allotment_id)
        known = self._by_id.pop(allotment_id, None)
        if known is None:
            return
        self._by_key[known.key_id].remove(known)
        if not self._by_key[known.key_id]:
            del self._by_key[known.key_id]

    def end_expired(self, now: float) -> None:
        for allotment_id in [i for i, allotment in self._by_id.items() if now >= allotment.expires_at]:
            self.end(allotment_id)

    def end_all(self) -> None:
        for allotment_id in list(self._by_id):
            self.end(allotment_id)

    def forget_numbers(self) -> None:
        """Another leader counts anew."""
        self._over.clear()

    def take_ended(self) -> list[int]:
        """Those to be returned, once."""
        ended, self._ended = self._ended, []
        return ended
