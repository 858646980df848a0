"""What a provider's error answer says of the credential that it was asked with. Pure.

The wordings are those of OpenAI, Azure, Anthropic, Gemini, Cohere, OpenRouter and xAI. Engines repeat in an error what the
client wrote: only a provider's own sentence, at the beginning and from whom it is expected, is about a credential."""

from __future__ import annotations

import re
from typing import Any

from forebay_gateway.credential import CredentialFault
from forebay_gateway.engine_kind import EngineKind

_OUR_ACCOUNT = {
    EngineKind.ANTHROPIC: re.compile(r"Your credit balance is too low"),
    EngineKind.GEMINI: re.compile(r"API key (?:not valid|not found|expired)", re.IGNORECASE),
}
"""They say so with status 400; it is about Forebay's credential for them, never about the client's key."""
_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
"""OpenAI's codes, with status 429, for an account without money: no waiting helps."""
_MISSING_SCOPES = re.compile(r"Missing scopes: ")
"""OpenAI's of a key that is good, and restricted. It says so with status 401."""
_HELD_BACK = re.compile(
    r"usage guidelines|SAFETY_CHECK"  # xAI
    r"|content[ _]policy|content[ _]filter"
    r"|(?<![\w-])moderation(?![\w-])",  # OpenRouter; not the model of that name
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(r"Request too large for |must be reduced in order to run", re.IGNORECASE)
_ACCOUNT_NAMES = re.compile(
    r"(?:\bTeam|\bAPI key ID): [\w-]{1,100}(?:, )?"  # xAI
    r"| in organization `?org[-_][\w-]{1,100}`?"  # OpenAI, Groq
)


def fault_of(
    status: int, told: dict[str, Any], message: str, shown_to: EngineKind | None = None
) -> CredentialFault | None:
    """`told` is the error object; `shown_to` the kind of engine that was shown a credential. None: it is not about that."""
    if is_too_large(status, message):
        return None
    if status == 429:
        return CredentialFault.REFUSED if is_spent(told) else CredentialFault.LIMITED
    if status == 401 and _MISSING_SCOPES.search(message):
        return CredentialFault.FORBIDDEN
    if status in (401, 402) or (status == 400 and shown_to in _OUR_ACCOUNT and _OUR_ACCOUNT[shown_to].match(message)):
        return CredentialFault.REFUSED
    if status == 403 and not is_flagged(told, message):
        return CredentialFault.FORBIDDEN
    return None


def is_spent(told: dict[str, Any]) -> bool:
    return told.get("code") in _SPENT or told.get("type") in _SPENT


def is_flagged(told: dict[str, Any], message: str) -> bool:
    """A moderation holds the prompt back, with status 403: that is about the client's words."""
    metadata = told.get("metadata")
    if isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata):  # OpenRouter
        return True
    return bool(_HELD_BACK.search(message))


def is_too_large(status: int, message: str) -> bool:
    """One request is larger than a whole minute's tokens: OpenAI's with status 429, Groq's with 413. No waiting helps."""
    return status in (413, 429) and bool(_TOO_LARGE.search(message))


def without_account(message: str) -> str:
    """Without the names of the provider's account and key, which are no client's business."""
    return _ACCOUNT_NAMES.sub("", message)
