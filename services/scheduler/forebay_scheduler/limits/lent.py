"""What is lent to a gateway so that it begins requests of a limited key without asking: a little of everything that is
limited, or nothing where it is tight. It is charged when it is lent, and what was not used is given back."""

from __future__ import annotations

from dataclasses import dataclass

from forebay_scheduler.limits.subjects import Chain
from forebay_scheduler.request import KeyId

_SHARE = 8
"""No more than this part of what is free: others ask for theirs before it comes back."""
_SECONDS_A_MINUTE = 60
_LEAST_TOKENS = 256
"""Less than this serves no request."""

PLENTY_REQUESTS = 1_000_000
PLENTY_TOKENS = 1_000_000_000
PLENTY_MONEY = 1_000_000_000_000
"""Told where nothing limits: more than can be used while an allotment is valid."""


@dataclass(frozen=True, slots=True)
class Lent:
    id: int
    key: KeyId
    requests: int
    tokens: int
    money_micros: int


class Allotment:
    """What is left of one."""

    __slots__ = ("chain", "id", "key", "money", "requests", "tokens")

    def __init__(self, lent: Lent, chain: Chain) -> None:
        self.id = lent.id
        self.key = lent.key
        self.chain = chain
        self.requests = lent.requests
        self.tokens = lent.tokens
        self.money = lent.money_micros

    def lend(self, at_us: int) -> None:
        self._move(self.requests, self.tokens, self.money, at_us)

    def top_up(self, share: tuple[int, int, int], at_us: int) -> tuple[int, int, int]:
        """Until so much is left of it again: requests, tokens, money. Gives how much more that is."""
        more = max(0, share[0] - self.requests), max(0, share[1] - self.tokens), max(0, share[2] - self.money)
        self._move(*more, at_us)
        self.requests += more[0]
        self.tokens += more[1]
        self.money += more[2]
        return more

    def take_back(self, at_us: int) -> None:
        self._move(-self.requests, -self.tokens, -self.money, at_us)
        self.requests = self.tokens = self.money = 0

    def _move(self, requests: int, tokens: int, money: int, at_us: int) -> None:
        for rate in self.chain.request_rates:
            rate.charge(requests, at_us)
        for rate in self.chain.token_rates:
            rate.charge(tokens, at_us)
        for places in self.chain.places:
            places.lent += requests
        for account in self.chain.token_accounts:
            account.lent += tokens
        for account in self.chain.money_accounts:
            account.lent += money

    def take(self, tokens: int, money: int) -> tuple[int, int, int]:
        """What of this one more request's estimate it covers: requests, tokens, money. It is no longer lent."""
        covered = min(self.requests, 1), min(self.tokens, tokens), min(self.money, money)
        requests, tokens, money = covered
        self.requests -= requests
        self.tokens -= tokens
        self.money -= money
        for places in self.chain.places:
            places.lent -= requests
        for account in self.chain.token_accounts:
            account.lent -= tokens
        for account in self.chain.money_accounts:
            account.lent -= money
        return covered


def small_share(chain: Chain, at_us: int) -> tuple[int, int, int] | None:
    """Requests, tokens and money to lend to one gateway: at most a second's worth of any rate. None where it is tight."""
    requests, tokens, money = PLENTY_REQUESTS, PLENTY_TOKENS, PLENTY_MONEY
    for rate in chain.request_rates:
        requests = min(requests, rate.room(at_us) // _SHARE, rate.limit // _SECONDS_A_MINUTE)
    for places in chain.places:
        requests = min(requests, places.free // _SHARE)
    for rate in chain.token_rates:
        tokens = min(tokens, rate.room(at_us) // _SHARE, rate.limit // _SECONDS_A_MINUTE)
    for account in chain.token_accounts:
        tokens = min(tokens, account.free // _SHARE)
    for account in chain.money_accounts:
        money = min(money, account.free // _SHARE)
    if requests < 1 or tokens < _LEAST_TOKENS or money < 1:
        return None
    return requests, tokens, money
