"""What the ledger is summed up by: spans of time, and cuts, each of which keeps fewer of a row's columns and so has fewer
rows. Pure; `rollup_store` makes the sums, `usage_pieces` says which of them answer a question."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum


class Span(StrEnum):
    """One table each; the longest is made of the next, the shortest of the ledger."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    """Of UTC."""

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]

    def of(self, at: datetime) -> datetime:
        """The beginning of the one in which `at` is."""
        return at - (at - _EPOCH) % _LENGTHS[self]


Source = Span | None
"""What an amount is read from. None: the ledger itself."""


class Column(StrEnum):
    """What sums are told apart by, under the names of the columns."""

    KEY = "key_id"
    USER = "user_id"
    GROUP = "group_id"
    """Whose user it was then."""
    POOL = "pool"
    MODEL = "model"
    BACKEND = "backend_id"
    OUTCOME = "outcome"


class Cut(StrEnum):
    """The others' columns are empty. Minutes are kept whole alone: they are asked about for hours, not for months."""

    WHOLE = "whole"
    PEOPLE = "people"
    USERS = "users"
    GROUPS = "groups"
    FLEET = "fleet"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTHS = {Span.MINUTE: timedelta(minutes=1), Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(days=1)}

COLUMNS: Mapping[Cut, tuple[Column, ...]] = {
    Cut.FLEET: (Column.POOL, Column.MODEL, Column.BACKEND, Column.OUTCOME),
    Cut.GROUPS: (Column.GROUP, Column.MODEL),
    Cut.USERS: (Column.USER, Column.GROUP),
    Cut.PEOPLE: (Column.USER, Column.GROUP, Column.MODEL),
    Cut.WHOLE: tuple(Column),
}
"""Those with the fewest rows first."""


def cut_with(columns: Collection[Column], span: Span) -> Cut:
    """The one with the fewest rows that still tells these apart."""
    if span is Span.MINUTE:
        return Cut.WHOLE
    return next(cut for cut, kept in COLUMNS.items() if set(columns) <= set(kept))
