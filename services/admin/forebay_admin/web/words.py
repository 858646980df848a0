"""Numbers, moments and amounts as people read them. Pure; exact figures stand in titles and in what is exported."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
MICRO = 1_000_000


def count(value: float) -> str:
    """1234567 → 1.23M; below ten thousand whole, with its thousands apart."""
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else f"{value:.3g}"
    for step, letter in _STEPS:
        if abs(value) >= step:
            return f"{_three(value / step)}{letter}"
    return f"{value:,.0f}"


def exact(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def size(value: float) -> str:
    """Bytes."""
    for step, name in _BYTES:
        if abs(value) >= step:
            return f"{_three(value / step)} {name}"
    return f"{value:.0f} B"


def money(micro_units: int, currency: str = "") -> str:
    """Millionths of the unit; as many places as the amount needs, and two at least."""
    sign, whole, rest = "-" if micro_units < 0 else "", abs(micro_units) // MICRO, abs(micro_units) % MICRO
    places = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole:,}.{places}{f' {currency}' if currency else ''}"


def span(seconds: float) -> str:
    """0.0042 → 4 ms; 3700 → 1 h 1 min."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for most, unit, name, smaller, small_name in (
        (_HOUR, _MINUTE, "min", 1, "s"),
        (_DAY, _HOUR, "h", _MINUTE, "min"),
        (float("inf"), _DAY, "d", _HOUR, "h"),
    ):
        if seconds < most:
            rest = int(seconds % unit // smaller)
            return f"{int(seconds // unit)} {name}{f' {rest} {small_name}' if rest else ''}"
    raise AssertionError(seconds)


def ago(then: float, now: float) -> str:
    """Unix seconds both. A moment that is still to come is told as such: clocks differ."""
    if then > now + 1:
        return f"in {span(then - now)}"
    return "just now" if now - then < 2 else f"{span(now - then)} ago"


def moment(at: float) -> str:
    """For `<time>`; a script shows it in the reader's own zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def percent(part: float, whole: float = 1.0) -> str:
    return "—" if not whole else f"{_three(100 * part / whole)} %"


def plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def _three(value: float) -> str:
    """With three figures, and never as a power of ten."""
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def id_of(ledger_id: bytes) -> str:
    """A request's name in the ledger, as addresses and commands have it."""
    return str(UUID(bytes=ledger_id)) if len(ledger_id) == 16 else ledger_id.hex()
