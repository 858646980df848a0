"""Which answers are also to be had as files, and in which forms. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from forebay.errors import BadInput

FORMAT = "format"
"""The name in the query that asks for a file."""
TYPES: Mapping[str, str] = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
_BY_ACCEPT = {TYPES[form].partition(";")[0]: form for form in ("csv", "parquet")}
"""JSON that is merely accepted is the usual answer."""


def asked_form(query: Mapping[str, str], accept: str) -> str | None:
    """A form of TYPES; None: no file is wanted. What the query says goes first. Raises BadInput."""
    said = query.get(FORMAT)
    if said is not None and said not in TYPES:
        raise BadInput(f"{said[:60]!r} is no form of a file; there are {', '.join(TYPES)}.")
    accepted = [kind.partition(";")[0].strip().lower() for kind in accept.split(",")]
    return said or next((_BY_ACCEPT[kind] for kind in accepted if kind in _BY_ACCEPT), None)
