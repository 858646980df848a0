"""Numbers, times and states as people say them. Pure: the time is an argument."""

from __future__ import annotations

from forebay_admin.durations import parse_duration as parse_duration
from forebay_admin.json_form import moment as moment

_COLOURS = {
    "healthy": "green",
    "active": "green",
    "finished": "green",
    "ok": "green",
    "unhealthy": "red",
    "offline": "red",
    "starting": "yellow",
    "degraded": "yellow",
    "saturated": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "open": "yellow",
    "failed": "red",
    "gateway_lost": "red",
    "revoked": "red",
    "expired": "red",
    "user_disabled": "red",
    "blocked": "red",
    "approved": "green",
    "denied": "red",
    "unknown": "yellow",
    "refused": "yellow",
    "cancelled": "yellow",
    "silent": "yellow",
    "down": "red",
    "critical": "red",
    "warning": "yellow",
}


def coloured(word: str) -> str:
    """A state in rich's markup: green, yellow or red, and still a word where there are no colours."""
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/{colour}]" if colour else word


def count(number: int) -> str:
    """1234567 → 1,234,567"""
    return f"{number:,}"


def age(at_us: int, now: float) -> str:
    """How long ago that was: 3 s ago, 5 min ago, 2 h ago, 12 days ago."""
    return f"{span(max(0.0, now - at_us / 1_000_000))} ago"


def ahead(at_us: int, now: float) -> str:
    """in 2 h; `expired` when it is over."""
    left = at_us / 1_000_000 - now
    return f"in {span(left)}" if left > 0 else "expired"


def span(seconds: float) -> str:
    """The largest unit that says enough."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} days"


def milliseconds(ms: int) -> str:
    return f"{ms} ms" if ms < 10_000 else f"{ms / 1000:.1f} s"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
