"""A file of keys: what each line orders. Pure; who may have such a key made is the desk's to ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from forebay.errors import BadInput
from forebay_admin.bulk.sheet import Cells, Flaw, read_sheet
from forebay_admin.keys.key_terms import (
    MOST_TOKENS,
    AuditPolicy,
    KeyTerms,
    order_addresses,
    order_calls,
    order_description,
    order_labels,
    order_models,
    order_pools,
    order_tokens,
    parse_labels,
)
from forebay_admin.keys.keys import LONGEST_LIFE, Band, KeyOrder, order_expiry, order_key, order_name
from forebay_admin.people.people import demand_name

COLUMNS = (
    *("user", "name", "allowed_models", "denied_models", "pool", "other_pools", "addresses", "calls", "band_cap"),
    *("expires_in_days", "max_output_tokens", "max_context_tokens", "audit", "description", "labels"),
)
_NEEDED = ("user", "name")
_SHOWN = ("user", "name", "pool", "description", "labels")
_DAY_S = 86_400
_NOTHING: tuple[str, ...] = ()

W = TypeVar("W", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class KeyLine:
    number: int
    order: KeyOrder
    expires_in_s: int | None
    band_was_named: bool


@dataclass(frozen=True, slots=True)
class KeyFile:
    lines: Sequence[KeyLine]
    flaws: Sequence[Flaw]


def read_keys(text: str, now: datetime) -> KeyFile:
    sheet = read_sheet(text, COLUMNS, _NEEDED, _SHOWN)
    flaws = list(sheet.flaws)
    lines: list[KeyLine] = []
    seen: dict[tuple[str, str], int] = {}
    parsed: dict[tuple[str, str], Any] = {}
    for line in sheet.lines:
        found = _line(Cells(line, flaws, parsed), line.number, now)
        if found is None:
            continue
        own = (found.order.user.lower(), found.order.name.lower())
        if (before := seen.setdefault(own, line.number)) != line.number:
            flaws.append(
                Flaw(line.number, "name", f"{found.order.user} gets a key {found.order.name} on line {before} already.")
            )
            continue
        lines.append(found)
    return KeyFile(lines, flaws)


def _line(cells: Cells, number: int, now: datetime) -> KeyLine | None:
    """None for one that has flaws."""
    band = cells.read("band_cap", lambda text: _word(Band, text, "band"), None)
    expires_in_s = cells.read("expires_in_days", lambda text: _life(text, now), None)
    terms = KeyTerms(
        cells.read("denied_models", lambda _: order_models(cells.words("denied_models")), _NOTHING),
        cells.read("other_pools", lambda _: order_pools(cells.words("other_pools")), _NOTHING),
        cells.read("addresses", lambda _: order_addresses(cells.words("addresses")), _NOTHING),
        cells.read("calls", lambda _: order_calls(cells.words("calls")), _NOTHING),
        cells.read("max_output_tokens", lambda text: order_tokens(_whole(text, MOST_TOKENS), "answer"), None),
        cells.read("max_context_tokens", lambda text: order_tokens(_whole(text, MOST_TOKENS), "prompt"), None),
        cells.read("audit", lambda text: _word(AuditPolicy, text, "audit policy"), None),
    )
    name = cells.read("name", order_name, "")
    models = cells.read("allowed_models", lambda _: order_models(cells.words("allowed_models")), _NOTHING)
    pool = cells.read("pool", lambda text: demand_name(text, "A pool's name"), "")
    description = cells.read("description", order_description, "")
    labels: dict[str, str] = cells.read("labels", lambda _: order_labels({}, parse_labels(cells.words("labels"))), {})
    if not cells.are_right:
        return None
    try:
        order = order_key(
            user=cells["user"],
            name=name,
            allowed_models=models,
            band_cap=band,
            pool=pool,
            expires_in_s=expires_in_s,
            now=now,
            terms=terms,
            description=description,
            labels=labels,
        )
    except BadInput as error:  # what fits cell by cell, and not together: only pools can be so
        cells.refuse("other_pools", error.message)
        return None
    return KeyLine(number, order, expires_in_s, band is not None)


def _life(text: str, now: datetime) -> int:
    seconds = _whole(text, LONGEST_LIFE.days) * _DAY_S
    order_expiry(seconds, now)
    return seconds


def _whole(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) > most:
        raise BadInput(f"{text[:40]!r} is not a whole number up to {most:,}.")
    return int(text)


def _word(words: type[W], text: str, what: str) -> W:
    try:
        return words(text.lower())
    except ValueError as error:
        raise BadInput(f"There is no {what} {text[:40]!r}; there are {', '.join(words)}.") from error
