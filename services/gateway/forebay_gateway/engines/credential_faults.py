"""What a provider's error answer says of the credential that it was asked with. Pure.

The wordings are those of OpenAI, Azure, Anthropic, Gemini, Cohere and OpenRouter."""

from __future__ import annotations

import re
from typing import Any

from forebay_gateway.credential import CredentialFault

_OUR_ACCOUNT = re.compile(r"credit balance is too low|API key (?:not valid|expired)", re.IGNORECASE)
"""Anthropic and Gemini say so with status 400; it is about Forebay's credential for them, never about the client's key."""
_SPENT = {"insufficient_quota", "billing_hard_limit_reached"}
"""OpenAI's codes, with status 429, for an account without money: no waiting helps."""


def fault_of(status: int, told: dict[str, Any], message: str) -> CredentialFault | None:
    """`told` is the error object. None: it is not about the credential."""
    if status == 429:
        return CredentialFault.REFUSED if is_spent(told) else CredentialFault.LIMITED
    if status in (401, 402) or (400 <= status < 500 and _OUR_ACCOUNT.search(message)):
        return CredentialFault.REFUSED
    if status == 403 and not is_flagged(told):
        return CredentialFault.FORBIDDEN
    return None


def is_spent(told: dict[str, Any]) -> bool:
    return told.get("code") in _SPENT or told.get("type") in _SPENT


def is_flagged(told: dict[str, Any]) -> bool:
    """OpenRouter's for a prompt that a moderation holds back, with status 403: that is about the client's words."""
    metadata = told.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or "reasons" in metadata)
