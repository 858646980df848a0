"""The credentials in use: which one a request is sent with, what its provider's answer means for it, and who is told.

Which one it is `engines/credential_choice.py` decides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay_gateway.credential import Credential, CredentialFault
from forebay_gateway.engine_kind import EngineKind
from forebay_gateway.engines.credential_choice import Accepted, CredentialChoice, Faulted, NoneLeft, Use
from forebay_gateway.engines.credential_faults import without_account
from forebay_gateway.engines.errors import Blame, EngineTrouble, as_sentence, judge
from forebay_gateway.fleet import Backend
from forebay_gateway.refused import EngineRefused

log = logging.getLogger(__name__)

_ACCEPTED = Accepted()


@dataclass(slots=True)
class Tried:
    """With what one request has been sent to a backend so far, and what came of it."""

    labels: list[str] = field(default_factory=list)
    said: EngineTrouble | None = None
    """Why the last one did not do."""
    forbidden: list[Use] = field(default_factory=list)
    """It may be the credential that is not allowed, or the request: whether another credential fares better tells."""


class Using:
    """A request that is under way with a credential, or with none."""

    def __init__(self, keyring: Keyring, use: Use | None, kind: EngineKind, tried: Tried) -> None:
        self._keyring = keyring
        self._use = use
        self._kind = kind
        self._tried = tried
        self._verdict: Accepted | Faulted | None = None

    @property
    def secret(self) -> str | None:
        return self._use.credential.secret if self._use is not None else None

    @property
    def shown_to(self) -> EngineKind | None:
        """The kind of the engine, if a credential is shown to it."""
        return self._kind if self._use is not None else None

    def judge(self, status: int, told: bytes, retry_after: str | None) -> EngineTrouble | ForebayError:
        """An error answer."""
        return judge(status, self._without_secret(told), retry_after, self.shown_to)

    def accepted(self) -> None:
        self._verdict = _ACCEPTED

    def hear(self, judged: EngineTrouble | ForebayError) -> bool:
        """What an error answer means for the credential. True when another one may do better."""
        if not isinstance(judged, EngineTrouble):
            self._verdict = Accepted()
        elif judged.fault is not None:
            self._verdict = Faulted(judged.fault, judged.retry_after_s)
        return self._use is not None and isinstance(self._verdict, Faulted)

    def hear_late(self, judged: EngineTrouble | ForebayError) -> None:
        """What came in place of an answer that had been promised."""
        if self.hear(judged) and self._use is not None and not _is_forbidden(self._verdict):
            self._keyring.settle(self._use, self._verdict)

    def _without_secret(self, told: bytes) -> bytes:
        """What the provider says reaches clients and logs, and some repeat the key in it."""
        return told.replace(self.secret.encode(), b"***") if self.secret else told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        use, tried = self._use, self._tried
        if use is None:
            return
        if isinstance(self._verdict, Faulted):
            tried.labels.append(use.credential.label)
        if _is_forbidden(self._verdict):
            # A client whose words are forbidden would send every credential to rest.
            self._keyring.settle(use, None)
            tried.forbidden.append(use)
            return
        self._keyring.settle(use, self._verdict)
        if isinstance(self._verdict, Accepted):
            for other in tried.forbidden:
                self._keyring.settle(other, Faulted(CredentialFault.FORBIDDEN))


class Keyring:
    def __init__(
        self,
        held: Callable[[str], Sequence[Credential]],
        clock: Clock,
        count: Callable[[str, str, CredentialFault], None] = lambda backend, label, fault: None,
    ) -> None:
        """`held`: a backend's id → its credentials; `count` hears of each that begins a rest."""
        self._held = held
        self._clock = clock
        self._count = count
        self._choice = CredentialChoice(held)

    def take(self, backend: Backend, model: str, tried: Tried) -> Using | EngineTrouble | EngineRefused:
        """To be entered; or why none can be had, which is the client's matter if none of several is allowed to do it."""
        if not backend.has_credential:
            return Using(self, None, backend.kind, tried)
        if not self._held(backend.id):
            return EngineTrouble(Blame.UNKNOWN_BACKEND, "Its credential has not reached this gateway yet.")
        taken = self._choice.take(backend.id, model, self._clock.monotonic(), tried.labels)
        if isinstance(taken, Use):
            return Using(self, taken, backend.kind, tried)
        said = tried.said
        if said is not None and len(self._held(backend.id)) == 1:
            return said
        if said is not None and len(tried.forbidden) == len(tried.labels):
            return _none_may(said)
        return _all_rest(taken, said)

    def settle(self, use: Use, verdict: Accepted | Faulted | None) -> None:
        rests = self._choice.settle(use, verdict, self._clock.monotonic())
        if rests and isinstance(verdict, Faulted):
            self._count(use.backend_id, use.credential.label, verdict.fault)
            log.warning(
                "credential rests",
                extra={
                    "action": "credential_rests",
                    "backend": use.backend_id,
                    "label": use.credential.label,
                    "fault": str(verdict.fault),
                    "model": use.model,
                },
            )

    def resting(self) -> Iterable[tuple[tuple[str, str, str], float]]:
        """As a gauge tells it."""
        for backend_id, label, fault in self._choice.resting(self._clock.monotonic()):
            yield (backend_id, label, str(fault)), 1.0


def _is_forbidden(verdict: Accepted | Faulted | None) -> bool:
    return isinstance(verdict, Faulted) and verdict.fault is CredentialFault.FORBIDDEN


def _none_may(said: EngineTrouble) -> EngineRefused:
    return EngineRefused(
        "The engine refused this request whichever of its credentials it came with. Change the request, or ask the operator "
        f"whether they may use this model. {as_sentence(without_account(said.message))}",
        status=400,
        type="invalid_request_error",
        param=None,
        code=None,
    )


def _all_rest(none: NoneLeft, said: EngineTrouble | None) -> EngineTrouble:
    why = f" {said.message}" if said is not None else ""
    if none.is_limit:
        message = f"All its credentials have reached their limits or are refused.{why}"
        return EngineTrouble(Blame.BUSY, message, none.retry_after_s, CredentialFault.LIMITED)
    return EngineTrouble(
        Blame.FAILED, f"Its provider refuses all its credentials.{why}", none.retry_after_s, CredentialFault.REFUSED
    )
