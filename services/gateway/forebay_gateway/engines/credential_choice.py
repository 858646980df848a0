"""With which of a backend's credentials a request is sent. Pure: time is an argument.

The good ones take turns. One against which the provider has something rests, longer each time; when its rest is over, one
request tries it, and the others go on without it until that one knows. What a provider says against a credential for one
model says nothing of it for another, save that it is wrong or out of money."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from forebay_gateway.credential import Credential, CredentialFault

SHORTEST_REST_S = 1.0
LONGEST_REST_S = 3600.0
_RESTS_S = {
    CredentialFault.REFUSED: (60.0, LONGEST_REST_S),
    CredentialFault.FORBIDDEN: (60.0, LONGEST_REST_S),
    CredentialFault.LIMITED: (5.0, 60.0),
}
"""The first, and the longest; each is twice the one before."""

_EVERY_MODEL = ""


@dataclass(frozen=True, slots=True)
class Use:
    """One request with one credential, from its sending until its provider's word on it."""

    backend_id: str
    model: str
    credential: Credential
    began: float
    trials: tuple[_Rest, ...] = field(default=(), repr=False)
    """Rests that are over if this goes well."""


@dataclass(frozen=True, slots=True)
class NoneLeft:
    """Every credential rests."""

    is_limit: bool
    """One of them at least is good, and merely over its rate."""
    retry_after_s: float
    """Until the first of those, else of all, is tried again."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the request, or refused it for its own sake."""


@dataclass(frozen=True, slots=True)
class Faulted:
    fault: CredentialFault
    retry_after_s: float | None = None
    """As the provider says."""


@dataclass(slots=True)
class _Rest:
    credential: Credential
    fault: CredentialFault
    strikes: int
    struck_at: float
    until: float
    is_tried: bool = False


class CredentialChoice:
    def __init__(self, held: Callable[[str], Sequence[Credential]]) -> None:
        """`held`: a backend's id → its credentials now, each with a label of its own."""
        self._held = held
        self._rests: dict[tuple[str, str, str], _Rest] = {}
        """By backend, label and model."""
        self._used: dict[tuple[str, str], int] = {}
        self._uses = 0

    def take(self, backend_id: str, model: str, now: float, tried: Collection[str] = ()) -> Use | NoneLeft:
        """`tried`: labels that this request has been sent with. What is taken has to be settled."""
        held = self._held(backend_id)
        if len(held) == 1 and not tried:
            # Without another there is nothing to gain by its rest: the scheduler rests the backend.
            return self._use(backend_id, model, held[0], now)
        good = [c for c in held if c.label not in tried and self._is_good(backend_id, c, model, now)]
        if not good:
            return self._none_left(backend_id, held, model, now)
        chosen = min(good, key=lambda c: self._used.get((backend_id, c.label), 0))
        return self._use(backend_id, model, chosen, now)

    def settle(self, use: Use, verdict: Accepted | Faulted | None, now: float) -> bool:
        """None: the provider said nothing about the credential. True when it begins a rest."""
        for rest in use.trials:
            rest.is_tried = False
        match verdict:
            case Accepted():
                for scope in (use.model, _EVERY_MODEL):
                    key = (use.backend_id, use.credential.label, scope)
                    known = self._rests.get(key)
                    if known is not None and use.began > known.struck_at:  # else the rest is the later news
                        del self._rests[key]
            case Faulted():
                return self._strike(use, verdict, now)
        return False

    def resting(self, now: float) -> Iterator[tuple[str, str, CredentialFault]]:
        """(backend, label, fault) of each credential that rests, for one model at least."""
        self._forget_gone()
        told = {(key[0], key[1]): r.fault for key, r in self._rests.items() if not _is_over(r, now)}
        for (backend_id, label), fault in sorted(told.items()):
            yield backend_id, label, fault

    def _use(self, backend_id: str, model: str, credential: Credential, now: float) -> Use:
        self._uses += 1
        self._used[backend_id, credential.label] = self._uses
        over = tuple(r for r in self._rests_of(backend_id, credential, model) if r.until <= now)
        for rest in over:
            rest.is_tried = True
        return Use(backend_id, model, credential, now, over)

    def _is_good(self, backend_id: str, credential: Credential, model: str, now: float) -> bool:
        return all(_is_over(rest, now) for rest in self._rests_of(backend_id, credential, model))

    def _rests_of(self, backend_id: str, credential: Credential, model: str) -> list[_Rest]:
        """What is held against a label does not count for another credential under it."""
        keys = [(backend_id, credential.label, scope) for scope in {model, _EVERY_MODEL}]
        return [rest for key in keys if (rest := self._rests.get(key)) is not None and rest.credential == credential]

    def _strike(self, use: Use, told: Faulted, now: float) -> bool:
        scope = _EVERY_MODEL if told.fault is CredentialFault.REFUSED else use.model
        key = (use.backend_id, use.credential.label, scope)
        rest = self._rests.get(key)
        if rest is None or rest.credential != use.credential:
            rest = self._rests[key] = _Rest(use.credential, told.fault, 0, now, now)
        elif use.began <= rest.struck_at:
            # It was under way when the rest began: the same news once more.
            rest.until = max(rest.until, now + min(told.retry_after_s or 0.0, LONGEST_REST_S))
            return False
        if rest.fault is not told.fault:
            rest.strikes = 0
        first_s, longest_s = _RESTS_S[told.fault]
        rest_s = min(first_s * 2.0 ** min(rest.strikes, 16), longest_s)
        if told.retry_after_s is not None:
            rest_s = min(max(told.retry_after_s, SHORTEST_REST_S), LONGEST_REST_S)
        rest.fault, rest.strikes, rest.struck_at, rest.until = told.fault, rest.strikes + 1, now, now + rest_s
        return True

    def _none_left(self, backend_id: str, held: Sequence[Credential], model: str, now: float) -> NoneLeft:
        waits: list[tuple[bool, float]] = []
        for credential in held:
            rests = self._rests_of(backend_id, credential, model)
            is_limit = bool(rests) and all(rest.fault is CredentialFault.LIMITED for rest in rests)
            waits.append((is_limit, max((rest.until - now for rest in rests), default=0.0)))
        limits = [wait for is_limit, wait in waits if is_limit]
        soonest = min(limits or [wait for _, wait in waits], default=0.0)
        return NoneLeft(bool(limits), max(SHORTEST_REST_S, soonest))

    def _forget_gone(self) -> None:
        """Credentials that are held no more."""
        for key, rest in list(self._rests.items()):
            if rest.credential not in self._held(key[0]):
                del self._rests[key]
        for backend_id, label in list(self._used):
            if all(c.label != label for c in self._held(backend_id)):
                del self._used[backend_id, label]


def _is_over(rest: _Rest, now: float) -> bool:
    return rest.until <= now and not rest.is_tried
