"""Which sums answer a question about a time: days where they are whole and up to date, hours and minutes at their edges, and
the ledger itself for minutes that were not summed up since a row came. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from forebay_admin.ledger.usage_sums import Span

_NEXT = {Span.DAY: Span.HOUR, Span.HOUR: Span.MINUTE, Span.MINUTE: None}
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the sums are worth at a moment."""

    touched: Mapping[Span, Collection[datetime]] = field(default_factory=dict)
    """Beginnings of those that rows were entered in since they were summed up."""
    kept: Mapping[Span | None, datetime] = field(default_factory=dict)
    """From when on there are sums of each length; None stands for the ledger. Not there: from ever on."""


@dataclass(frozen=True, slots=True)
class Piece:
    source: Span | None
    """None: the ledger, by `started_at`."""
    since: datetime
    until: datetime


def pieces(edges: Sequence[datetime], standing: Standing) -> list[Piece]:
    """From the first edge to the last, none of them across an edge: each part of the time once, in order. Where what is
    finer than hours or days is not kept any more, an hour or a day counts where it begins."""
    found: list[Piece] = []
    stale = _stale(standing)
    for since, until in pairwise(edges):
        first = len(found)
        for piece in _fill(Span.DAY, since, until, standing, stale):
            before = found[-1] if len(found) > first else None
            if before is not None and before.source is piece.source and before.until == piece.since:
                found[-1] = Piece(piece.source, before.since, piece.until)
            else:
                found.append(piece)
    return found


def _fill(
    span: Span | None,
    since: datetime,
    until: datetime,
    standing: Standing,
    stale: Mapping[Span, Collection[datetime]],
) -> Iterator[Piece]:
    if since >= until:
        return
    if span is None:
        yield Piece(None, since, until)
        return
    finer, length = _NEXT[span], span.length
    kept = standing.kept.get(finer, _EVER)
    first = span.of(since)
    if first < since:
        edge = min(first + length, until)
        if since >= kept:
            yield from _fill(finer, since, edge, standing, stale)
        first += length
    at = max(first, since)
    while at < until:
        end = at + length
        # Also where it ends later than asked: what is finer is not there, and all of it counts where it begins.
        if at < kept or (end <= until and at not in stale[span]):
            yield Piece(span, at, end)
        else:
            yield from _fill(finer, at, min(end, until), standing, stale)
        at = end


def _stale(standing: Standing) -> Mapping[Span, Collection[datetime]]:
    """Whatever a touched one lies in is not up to date either."""
    found: dict[Span, set[datetime]] = {}
    below: set[datetime] = set()
    for span in (Span.MINUTE, Span.HOUR, Span.DAY):
        below = {span.of(at) for at in below} | set(standing.touched.get(span, ()))
        found[span] = below
    return found
