"""Signing in on a device by a code that somebody confirms in a browser (the shape of RFC 8628). Pure.

The device holds a long secret and asks with it; the person sees and compares a short code, which alone opens nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from forebay.errors import BadInput

LIFE = timedelta(minutes=10)
INTERVAL_S = 3
"""A device that asks more often is told to slow down."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no words come out; nothing that looks like another
_LENGTH = 8
MOST_WAITING = 1000
"""Of all devices together."""


class Standing(StrEnum):
    """What a device that asks is told; the words of RFC 8628."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class Device:
    """One that waits for somebody to confirm it."""

    user_code: str
    address: str
    user_agent: str
    expires_at: datetime
    asked_at: datetime | None = None
    user_id: str | None = None
    """Who confirmed it."""
    way: str = ""
    """How they had signed in."""
    is_refused: bool = False


def new_user_code() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def shown(code: str) -> str:
    """BCDF-GHJK"""
    return f"{code[: _LENGTH // 2]}-{code[_LENGTH // 2 :]}"


def parse_user_code(text: str) -> str:
    """However it was typed. Raises BadInput."""
    code = "".join(char for char in text.upper() if char not in " -–\t")
    if len(code) != _LENGTH or any(char not in _LETTERS for char in code):
        raise BadInput("This is no code: it has eight letters, such as BCDF-GHJK.")
    return code


def standing(device: Device | None, now: datetime) -> Standing:
    if device is None or now >= device.expires_at:
        return Standing.EXPIRED
    if device.is_refused:
        return Standing.DENIED
    if device.user_id is not None:
        return Standing.CONFIRMED
    if device.asked_at is not None and now - device.asked_at < timedelta(seconds=INTERVAL_S - 1):
        return Standing.SLOW_DOWN
    return Standing.PENDING
