"""Spans of time and resolutions, as people write them. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from forebay.errors import BadInput
from forebay_admin.cli.words import parse_duration

F = TypeVar("F", bound=Callable[..., Any])

RESOLUTIONS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}


@dataclass(frozen=True, slots=True)
class Span:
    from_us: int
    to_us: int


def span_options(usual: str) -> Callable[[F], F]:
    """--last, --from and --to, for `parse_span`."""

    def add(command: F) -> F:
        command = click.option("--to", "until", metavar="TIME", help="Until then. Default: now.")(command)
        command = click.option(
            "--from", "since", metavar="TIME", help="Since then: 2026-11-30, 2026-11-30T08:00Z; UTC if it does not say."
        )(command)
        return click.option("--last", metavar="SPAN", help=f"How far back: 30m, 6h, 7d. Default: {usual}.")(command)

    return add


def parse_span(last: str | None, since: str | None, until: str | None, now: float, usual: str) -> Span:
    """Raises BadInput."""
    if last is not None and since is not None:
        raise BadInput("--last says how far back, --from since when: give one of them.")
    end = _moment(until) if until is not None else now
    begin = _moment(since) if since is not None else end - parse_duration(last or usual).total_seconds()
    if begin >= end:
        raise BadInput("The span ends before it begins: --from must be earlier than --to.")
    return Span(round(begin * 1_000_000), round(end * 1_000_000))


def parse_resolution(text: str | None) -> int:
    """Seconds; 0: what suits."""
    return RESOLUTIONS[text] if text is not None else 0


def _moment(text: str) -> float:
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{text!r} is not a time: write 2026-11-30 or 2026-11-30T08:00:00Z.") from error
