"""The gateway's own errors: one class where a reader gains by it, `Refused` for words that come from elsewhere."""

from __future__ import annotations

from forebay.errors import BadInput, ForebayError, NotAllowed, NotAuthenticated, NotFound, Refusal, Unavailable
from forebay_gateway.rate_standing import RateStanding


class InvalidKey(NotAuthenticated):
    """This API key is not known here. Check for a typing error, or create a key with `forebay key create`."""


class NoKey(NotAuthenticated):
    """No API key came with this request. Send it as `Authorization: Bearer fb-…` (in SDKs: `api_key`)."""


class BadSignature(NotAuthenticated):
    """The signature of this call is not that of its method, path and moment by the key that it names."""


class UntrustedSigner(NotAuthenticated):
    """No API key trusts the public key that signed this call."""


class BadDelegation(NotAuthenticated):
    """This delegation is not one of this Forebay's, has ended, or was used before. Only admin has them, for batches; send an
    API key as `Authorization: Bearer fb-…`."""


class KeyRevoked(NotAuthenticated):
    """This API key was revoked. Create another with `forebay key create`, or ask your administrator for one."""

    reason = Refusal.KEY_REVOKED


class KeyExpired(NotAuthenticated):
    """This API key has expired. Create another with `forebay key create`, or ask your administrator for one."""

    reason = Refusal.KEY_EXPIRED


class KeyBlocked(NotAllowed):
    """This API key is blocked for now. Ask your administrator."""

    reason = Refusal.KEY_BLOCKED


class AddressDenied(NotAllowed):
    """Requests from this address are not taken here. Ask your administrator."""

    reason = Refusal.ADDRESS_DENIED


class AddressBanned(NotAllowed):
    """This address is banned for now. Ask your administrator."""

    reason = Refusal.ADDRESS_BANNED


class EphemeralSpent(NotAuthenticated):
    """This ephemeral key was used before; each is for one request. Have another made: POST /v1/ephemeral_keys."""


class BadField(BadInput):
    """One field of the request is wrong."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class NotKept(BadField):
    """Nothing that this user keeps has this id."""

    reason = Refusal.NOT_FOUND


class BodyTooLarge(BadInput):
    """The request is larger than this gateway takes."""

    reason = Refusal.BODY_TOO_LARGE


class BodyStalled(BadInput):
    """The request's body stopped arriving. Send it again; if this repeats, look at the network or a proxy in between."""


class UnknownPath(NotFound):
    """There is no such address here."""


class NotServedHere(NotFound):
    """Forebay knows this address and does not serve it."""


class WrongMethod(BadInput):
    """This address does not take that method."""

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class ModelUnknown(NotFound):
    """No backend has this model. `GET /v1/models` lists those there are."""

    reason = Refusal.MODEL_UNKNOWN


class ContextTooLong(BadInput):
    """The prompt and the answer asked for do not fit the model's context."""

    reason = Refusal.CONTEXT_TOO_LONG
    param: str | None = None
    """The field that is too long."""


class EngineRefused(ForebayError):
    """The engine refused this request; trying another would not help."""

    reason = Refusal.ENGINE_REFUSED

    def __init__(self, message: str, *, status: int, type: str, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.status, self.type, self.param, self.code = status, type, param, code


class EngineFailed(ForebayError):
    """The engine failed while it worked on this request. Send it again."""

    reason = Refusal.ENGINE_FAILED


class OutputInvalid(ForebayError):
    """The model's answer is not what was asked for. Ask again, for something simpler, or ask another model."""

    reason = Refusal.OUTPUT_INVALID


class Draining(Unavailable):
    """This gateway is stopping. Send the request again: another gateway, or this one in a moment, will take it."""

    reason = Refusal.DRAINING

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=1.0)


class BackendEmptied(Unavailable):
    """The engine that was answering is taken out of service, and its time to finish was over. Send the request again."""

    reason = Refusal.DRAINING

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=1.0)


class JournalFull(Unavailable):
    """The journal of unpublished records is full, since the message bus has been away for long. Try again shortly."""

    reason = Refusal.JOURNAL_FULL

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=5.0)


class StateUnavailable(Unavailable):
    """What Forebay keeps for you cannot be reached at the moment. Try again shortly; a request for a response that has the
    whole input and `store: false` is answered all the same."""

    reason = Refusal.STATE_UNAVAILABLE

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message, retry_after_s=2.0)


class TookTooLong(Unavailable):
    """No slot became free within the request's deadline. Try again later, or allow more time."""

    reason = Refusal.QUEUE_TIMEOUT


class Refused(ForebayError):
    """A refusal whose word was chosen elsewhere, such as by the scheduler."""

    def __init__(
        self,
        word: Refusal,
        message: str,
        *,
        retry_after_s: float | None = None,
        standing: RateStanding | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.word = word
        self.standing = standing
        """Of a limited key."""


def word_of(error: ForebayError) -> Refusal:
    return error.word if isinstance(error, Refused) else error.reason


def as_refusal(word: str) -> Refusal:
    """A refusal word from another service; one that this version does not know is `internal`."""
    return Refusal(word) if word in set(Refusal) else Refusal.INTERNAL
