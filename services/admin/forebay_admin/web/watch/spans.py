"""What lists of what happened have in common: from when until when. Pure."""

from __future__ import annotations

from datetime import datetime

from forebay.clock import micros
from forebay_admin.web.forms import Form


def from_us(query: Form, name: str = "from") -> int:
    """0 where nothing was said. Raises WrongField."""
    return _us(query.moment(name))


def unix(us: int) -> float | None:
    """Seconds; None where there is no such moment."""
    return us / 1_000_000 if us else None


def _us(at: datetime | None) -> int:
    return micros(at.timestamp()) if at is not None else 0
