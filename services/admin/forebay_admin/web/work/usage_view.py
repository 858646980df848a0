"""What the usage explorer shows, from what the ledger's sums answered: lines with names, differences to the period before,
and the same as series of a plot and as rows of a file. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from forebay.wire.v1 import usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.json_form import word
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.words import id_of
from forebay_admin.web.work.explain_view import tone_of
from forebay_admin.web.work.usage_query import Asked

NOTHING = "(none)"
OTHERS = "(all others)"
MOST_SERIES = 7
MEASURES = {"tokens": "tokens", "requests": "requests", "cost": "", "duration": "s"}
"""What a plot can show, with its unit."""


@dataclass(frozen=True, slots=True)
class Change:
    """Against the period before."""

    by: int
    percent: float | None
    """None: there was nothing before."""

    @property
    def sign(self) -> str:
        return "+" if self.by > 0 else "−" if self.by < 0 else "±"


@dataclass(frozen=True, slots=True)
class Sums:
    requests: int
    failed: int
    refused: int
    unbilled: int
    prompt_tokens: int
    completion_tokens: int
    cost_micros: int
    mean_queue_s: float | None
    mean_ttft_s: float | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Whose:
    """One value of a column."""

    column: str
    id: str
    name: str
    asked_as: str
    """What is asked for it alone; empty: it cannot be."""


@dataclass(frozen=True, slots=True)
class Line:
    at: float | None
    """When its part of time begins."""
    label: str
    """That moment, by the zone's calendar."""
    whose: tuple[Whose, ...]
    sums: Sums
    share: float
    """Of all that the question's measure has."""
    tokens_change: Change | None
    cost_change: Change | None


@dataclass(frozen=True, slots=True)
class UsageView:
    begin: float
    end: float
    lines: tuple[Line, ...]
    total: Sums
    before: Sums | None
    changes: Mapping[str, Change]
    """Of the total: requests, tokens, cost, failed."""
    next_page: str


def usage_view(
    told: wire.QueryUsageResponse, asked: Asked, names: Mapping[str, str], total_before: wire.UsageSums | None
) -> UsageView:
    """`names`: of backends, by id."""
    total = sums_of(told.total)
    before = sums_of(total_before) if total_before is not None else None
    whole = _measured(told.total, asked.order)
    lines = tuple(_line(line, asked, names, whole) for line in told.lines)
    changes = {}
    if before is not None:
        changes = {
            "requests": change(before.requests, total.requests),
            "tokens": change(before.tokens, total.tokens),
            "cost": change(before.cost_micros, total.cost_micros),
            "failed": change(before.failed, total.failed),
        }
    return UsageView(told.from_us / 1e6, told.to_us / 1e6, lines, total, before, changes, told.next_page)


def change(before: int, now: int) -> Change:
    return Change(now - before, 100 * (now - before) / before if before else None)


def sums_of(sums: wire.UsageSums) -> Sums:
    return Sums(
        requests=sums.requests,
        failed=sums.failed,
        refused=sums.refused,
        unbilled=sums.unbilled,
        prompt_tokens=sums.prompt_tokens,
        completion_tokens=sums.completion_tokens,
        cost_micros=sums.cost_micros,
        mean_queue_s=sums.queue_ms / sums.requests / 1000 if sums.requests else None,
        mean_ttft_s=sums.ttft_ms / sums.answered / 1000 if sums.answered else None,
        tokens=sums.prompt_tokens + sums.completion_tokens,
    )


def plot_of(told: wire.QueryUsageResponse, asked: Asked, names: Mapping[str, str]) -> dict[str, Any]:
    """{t, series}: one series for each of what the columns tell apart, those with the most; the others together."""
    at = sorted({line.at_us for line in told.lines})
    place = {one: index for index, one in enumerate(at)}
    values: dict[str, list[float]] = {}
    weights: defaultdict[str, float] = defaultdict(float)
    for line in told.lines:
        label = " · ".join(one.name for one in _whose(line, asked, names)) or asked.order
        amount = _measured(line.sums, asked.order)
        values.setdefault(label, [0.0] * len(at))[place[line.at_us]] += amount
        weights[label] += amount
    kept = sorted(values, key=lambda label: (label == OTHERS, -weights[label], label))
    shown, rest = kept[:MOST_SERIES], kept[MOST_SERIES:]
    if rest:
        together = [sum(values[label][i] for label in rest) for i in range(len(at))]
        old = values.get(OTHERS) if OTHERS in shown else None
        values[OTHERS] = [a + b for a, b in zip(together, old, strict=True)] if old is not None else together
        shown = [*(label for label in shown if label != OTHERS), OTHERS]
    unit = MEASURES[asked.order]
    return {
        "t": [one // 1_000_000 for one in at],
        "series": [{"label": label, "unit": unit, "values": values[label]} for label in shown],
    }


# --- a file -----------------------------------------------------------------------------------------------------------

_NUMBERS = (
    *("requests", "finished", "refused", "failed", "cancelled", "prompt_tokens", "cached_prompt_tokens"),
    *("completion_tokens", "cost_micros", "unbilled", "queue_ms", "answered", "ttft_ms", "duration_ms"),
)


def file_columns(asked: Asked) -> tuple[Column, ...]:
    return (
        *((Column("begins_at", Kind.MOMENT),) if asked.part else ()),
        *(column for one in asked.columns for column in _file_columns_of(one)),
        *(Column(name, Kind.WHOLE) for name in _NUMBERS),
    )


def file_rows(lines: Iterable[wire.UsageLine], asked: Asked, names: Mapping[str, str]) -> Iterable[Row]:
    for line in lines:
        row: dict[str, Any] = {name: getattr(line.sums, name) for name in _NUMBERS}
        row["begins_at_us"] = line.at_us
        for whose in _whose(line, asked, names):
            row[whose.column] = OTHERS if line.rest else whose.name if whose.name != NOTHING else ""
            row[f"{whose.column}_id"] = "" if line.rest else whose.id
        for column in asked.columns:
            row.setdefault(column, OTHERS)
            row.setdefault(f"{column}_id", "")
        yield row


def _file_columns_of(column: str) -> Sequence[Column]:
    named = column in ("user", "group", "key", "backend")
    return (Column(column, Kind.TEXT), *((Column(f"{column}_id", Kind.TEXT),) if named else ()))


# --- rows of the ledger -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerRow:
    id: str
    label: str
    at: float
    user: str
    key_id: str
    model: str
    backend: str
    outcome: str
    tone: str
    reason: str
    tokens: tuple[int, int]
    took_s: float
    cost_micros: int | None
    unbilled: str


def ledger_row(record: usage_pb2.UsageRecord, users: Mapping[str, str], backends: Mapping[str, str]) -> LedgerRow:
    outcome = word(record, "outcome") or "unknown"
    return LedgerRow(
        id=id_of(record.ledger_id),
        label=record.request_id or id_of(record.ledger_id),
        at=record.started_at_us / 1e6,
        user=users.get(record.user_id, record.user_id) or NOTHING,
        key_id=record.key_id,
        model=record.model or record.model_requested or NOTHING,
        backend=backends.get(record.backend_id, record.backend_id),
        outcome=outcome,
        tone=tone_of(outcome),
        reason=record.reason,
        tokens=(record.usage.prompt_tokens, record.usage.completion_tokens),
        took_s=record.duration_ms / 1000,
        cost_micros=record.cost_micros if record.HasField("cost_micros") else None,
        unbilled=record.unbilled if record.HasField("unbilled") else "",
    )


# --- lines ------------------------------------------------------------------------------------------------------------


def _line(line: wire.UsageLine, asked: Asked, names: Mapping[str, str], whole: float) -> Line:
    then = sums_of(line.before) if line.HasField("before") else Sums(0, 0, 0, 0, 0, 0, 0, None, None, 0)
    sums = sums_of(line.sums)
    is_compared = asked.compare and not asked.part and not line.rest and bool(asked.columns)
    return Line(
        at=line.at_us / 1e6 if asked.part else None,
        label=part_label(line.at_us / 1e6, asked) if asked.part else "",
        whose=tuple(_whose(line, asked, names)),
        sums=sums,
        share=_measured(line.sums, asked.order) / whole if whole else 0.0,
        tokens_change=change(then.tokens, sums.tokens) if is_compared else None,
        cost_change=change(then.cost_micros, sums.cost_micros) if is_compared else None,
    )


def part_label(at: float, asked: Asked) -> str:
    moment = datetime.fromtimestamp(at, ZoneInfo(asked.zone) if asked.zone else UTC)
    return moment.strftime({"hour": "%Y-%m-%d %H:%M", "month": "%Y-%m"}.get(asked.part, "%Y-%m-%d"))


def _whose(line: wire.UsageLine, asked: Asked, names: Mapping[str, str]) -> Iterable[Whose]:
    if line.rest:
        return (Whose(asked.columns[0], "", OTHERS, ""),)
    return tuple(_value(line, column, names) for column in asked.columns)


def _value(line: wire.UsageLine, column: str, names: Mapping[str, str]) -> Whose:
    if column == "outcome":
        told = word(line, "outcome") or ""
        return Whose(column, told, told or NOTHING, told)
    if column in ("user", "group", "key"):
        id_, name = getattr(line, f"{column}_id"), getattr(line, f"{column}_name")
        # Keys are asked about by their ids, people and groups by their names, which those who are gone no longer have.
        return Whose(column, id_, name or id_ or NOTHING, id_ if column == "key" else name)
    id_ = line.backend_id if column == "backend" else getattr(line, column)
    name = names.get(id_, id_) if column == "backend" else id_
    return Whose(column, id_, name or NOTHING, id_)


def _measured(sums: wire.UsageSums, order: str) -> float:
    if order == "tokens":
        return sums.prompt_tokens + sums.completion_tokens
    if order == "cost":
        return sums.cost_micros / 1_000_000
    return sums.requests if order == "requests" else sums.duration_ms / 1000
