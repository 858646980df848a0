"""Who is turned away at the door because of where they come from, and who is banned for trying keys.

Whoever has a valid key is let in from a banned address too, where the ban does not say otherwise: many may share one with
the guest who guesses. So is whoever has none at all, who guesses nothing: a proxy's look at whether we are well, for one.
What is refused is counted here and told to admin; nothing waits for that."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Protocol

from forebay.address_gate import AddressGate, Ban, Denied
from forebay.brute_force import BanPolicy, Failures, Strikes
from forebay.client_addresses import TrustedProxies, neighbourhood, parse_address, parse_network
from forebay.clock import Clock
from forebay.ephemeral_keys import is_ephemeral
from forebay.errors import ForebayError, Refusal
from forebay.event_counts import Sort
from forebay.keys import parse_key
from forebay_gateway.callers.call import Call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.refused import (
    AddressBanned,
    AddressDenied,
    BadDelegation,
    BadSignature,
    InvalidKey,
    NoKey,
    UntrustedSigner,
    word_of,
)

log = logging.getLogger(__name__)

_GUESSES = (InvalidKey, BadSignature, UntrustedSigner, BadDelegation)
"""What somebody gets who tries keys. One that was revoked or has expired was right once."""
_KINDS = {
    Refusal.INVALID_KEY: "key_refused",
    Refusal.KEY_REVOKED: "key_refused",
    Refusal.KEY_EXPIRED: "key_refused",
    Refusal.KEY_BLOCKED: "key_refused",
    Refusal.NOT_ALLOWED: "permission_refused",
    Refusal.QUOTA_SPENT: "quota_refused",
    Refusal.RATE_LIMITED: "quota_refused",
    Refusal.CONCURRENCY_LIMITED: "quota_refused",
    Refusal.ADDRESS_DENIED: "address_refused",
    Refusal.ADDRESS_BANNED: "address_refused",
}


class Keys(Protocol):
    def verify(self, text: str, now: float) -> Principal: ...


class News(Protocol):
    def note(self, sort: Sort) -> None: ...
    def note_ban(self, network: str, failures: int) -> None: ...


class Guard:
    def __init__(self, gate: AddressGate, keys: Keys, news: News, proxies: TrustedProxies, clock: Clock) -> None:
        self.gate = gate
        self.policy = BanPolicy()
        """As it was told last."""
        self._keys = keys
        self._news = news
        self._proxies = proxies
        self._clock = clock
        self._failures = Failures()
        self._strikes = Strikes()

    def demand(self, call: Call) -> None:
        """Before anything of the request is looked at but its head. Raises AddressDenied, AddressBanned."""
        found = self.gate.look(call.address, self._clock.now())
        if found is not None:
            self._turn_away(call, found)

    def note(self, call: Call, error: ForebayError, principal: Principal | None = None) -> None:
        """A request was refused. `principal`: whose it is, where that is known."""
        kind = _KINDS.get(word_of(error))
        if kind is None or isinstance(error, NoKey):
            return
        place = self._place(call.address)
        key_id = principal.key_id if principal is not None else _named(call)
        user = principal.user_name if principal is not None else ""
        self._news.note(Sort(kind, str(word_of(error)), place, key_id, user))
        if isinstance(error, _GUESSES):
            self._count(place)

    def _turn_away(self, call: Call, found: Ban | Denied) -> None:
        if not isinstance(found, Ban):
            raise AddressDenied
        if found.spares_valid and self._may_be_valid(call):
            return
        why = f": {found.reason.rstrip('.')}" if found.reason else ""
        if found.until is None:
            raise AddressDenied(f"This address is banned{why}. Ask your administrator.")
        until = datetime.fromtimestamp(found.until, UTC)
        raise AddressBanned(
            f"This address is banned until {until:%Y-%m-%d %H:%M:%S} UTC{why}. Requests with a valid API key are served."
            if found.spares_valid
            else f"This address is banned until {until:%Y-%m-%d %H:%M:%S} UTC{why}. Ask your administrator.",
            retry_after_s=max(1.0, found.until - self._clock.now()),
        )

    def _may_be_valid(self, call: Call) -> bool:
        """What is not an API key as it stands is looked at where it counts, which also comes before the body."""
        if call.key is None:
            return True
        if is_ephemeral(call.key):
            return True
        try:
            self._keys.verify(call.key, self._clock.now())
        except ForebayError:
            return False
        return True

    def _place(self, client: str) -> str:
        """What admin hears of where somebody comes from, and adds up with what others say."""
        address = parse_address(client)
        if address is None or self._proxies.trusts(address):
            return ""  # a proxy that does not say whom it speaks for speaks for everybody
        # Its neighbours are not to be banned for it.
        return str(address) if self.gate.is_allowed_by_name(str(address)) else neighbourhood(client)

    def _count(self, place: str) -> None:
        network = parse_network(place)
        if network is None or network.is_loopback or self.gate.is_allowed_by_name(place):
            return
        failures = self._failures.note(place, self._clock.monotonic(), self.policy)
        if failures:
            now = self._clock.now()
            strikes, until = self._strikes.next(place, now, self.policy)
            self.gate.ban(Ban(network, until, f"{failures} wrong keys"))
            self._news.note_ban(str(network), failures)
            log.warning(
                "address banned",
                extra={"action": "address_banned", "address": place, "failures": failures, "strikes": strikes},
            )


def _named(call: Call) -> str:
    """The public id that a call names, whether or not there is one like it. Nothing else of what came in a key's place: it
    may be a secret of something else."""
    key = parse_key(call.key) if call.key else None
    return key.public_id if key is not None else ""
