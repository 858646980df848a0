"""Weights and money as people write them, and back: whole numbers on the way, so that nothing is rounded unseen. Pure."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from forebay.errors import BadInput

MOST_UINT32 = 2**32 - 1
"""More fits into no message."""
MOST_VERSION = 2**63 - 1

_NUMBER = re.compile(r"-?\d{1,15}(\.\d*)?|-?\.\d+")
_MILLI = 1000
_MICROS = 1_000_000
_MOST_MONEY = 10**12


def parse_weight(text: str) -> int:
    """`2` or `0.5` → thousandths. Raises BadInput."""
    number = _decimal(text, "a weight: write a number such as 2 or 0.5")
    if number <= 0:
        raise BadInput("A weight is more than 0; to hold somebody's requests back, pause them.")
    if number * _MILLI != int(number * _MILLI):
        raise BadInput(f"A weight has at most 3 decimals; {text} has more.")
    if number > _MILLI:
        raise BadInput(f"A weight is at most {_MILLI}.")
    return int(number * _MILLI)


def parse_money(text: str) -> int:
    """`25.00` → micro-units. Raises BadInput."""
    number = _decimal(text, "an amount of money: write a number such as 25.00")
    if number < 0:
        raise BadInput(f"{text} is less than nothing.")
    if number * _MICROS != int(number * _MICROS):
        raise BadInput(f"Money has at most 6 decimals; {text} has more.")
    if number > _MOST_MONEY:
        raise BadInput(f"{text} is more money than anybody can spend.")
    return int(number * _MICROS)


def parse_cap(text: str, word: str = "none", *, most: int = 10**18) -> int | None:
    """A whole number; None for `word`. Raises BadInput."""
    if text.strip().lower() == word:
        return None
    cleaned = text.strip().replace(",", "").replace("_", "")
    if not (cleaned.isascii() and cleaned.isdigit()) or len(cleaned) > 18:
        raise BadInput(f"{text!r} is not a whole number; write one, or {word}.")
    if int(cleaned) > most:
        raise BadInput(f"{text} is too much; at most {most:,}.")
    return int(cleaned)


def weight(milli: int) -> str:
    """1500 → 1.5"""
    return f"{milli / _MILLI:.3f}".rstrip("0").rstrip(".")


def money(micros: int) -> str:
    """25000000 → 25.00; as many decimals as are needed, and at least two."""
    whole, part = divmod(abs(micros), _MICROS)
    decimals = f"{part:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole:,}.{decimals}"


def _decimal(text: str, what: str) -> Decimal:
    try:
        if _NUMBER.fullmatch(text.strip()):
            return Decimal(text.strip())
    except InvalidOperation:
        pass
    raise BadInput(f"{text!r} is not {what}.")
