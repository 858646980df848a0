"""What one used: as it is asked for, shown, drawn and written to a file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

from forebay.wire.v1 import types_pb2, usage_pb2
from forebay.wire.v1 import usage_queries_pb2 as usage
from forebay_admin.row_files import Column, Kind, Row
from forebay_admin.web.forms import Form, WrongField
from forebay_admin.web.words import id_of, money

T = TypeVar("T")

PATH = "/me/usage"
_OTHERS = "all others"
SPANS = {"day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
SPAN_WORDS = (("day", "24 hours"), ("week", "7 days"), ("month", "30 days"), ("year", "a year"))
_BUCKETS = {
    "day": (usage.USAGE_BUCKET_HOUR, 3600),
    "week": (usage.USAGE_BUCKET_DAY, 86_400),
    "month": (usage.USAGE_BUCKET_DAY, 86_400),
    "year": (usage.USAGE_BUCKET_DAY, 86_400),
}
PLOTS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "tokens": (("prompt_tokens", "Read", "tokens"), ("completion_tokens", "Written", "tokens")),
    "requests": (("requests", "Requests", "requests"),),
    "cost": (("cost_micros", "Cost", ""),),
}
"""Field of the sums, what it is called, its unit."""
_MICRO = 1_000_000
_MOST_LINES = 10_000
_MOST_APART = 100
"""Pairs of a model and a key, over the whole span."""
_ADDED = ("requests", "prompt_tokens", "completion_tokens", "cost_micros")
"""Fields of sums that pages tell of steps, models and keys."""
_OUTCOMES = {
    types_pb2.OUTCOME_FINISHED: ("finished", "good"),
    types_pb2.OUTCOME_CANCELLED: ("cancelled", ""),
    types_pb2.OUTCOME_FAILED: ("failed", "bad"),
    types_pb2.OUTCOME_REFUSED: ("refused", "warn"),
    types_pb2.OUTCOME_GATEWAY_LOST: ("lost", "bad"),
}
COLUMNS = (
    Column("day", Kind.MOMENT),
    Column("model", Kind.TEXT),
    Column("key_id", Kind.TEXT),
    Column("key_name", Kind.TEXT),
    Column("requests", Kind.WHOLE),
    Column("finished", Kind.WHOLE),
    Column("refused", Kind.WHOLE),
    Column("failed", Kind.WHOLE),
    Column("cancelled", Kind.WHOLE),
    Column("prompt_tokens", Kind.WHOLE),
    Column("cached_prompt_tokens", Kind.WHOLE),
    Column("completion_tokens", Kind.WHOLE),
    Column("cost_micros", Kind.WHOLE),
)


@dataclass(frozen=True, slots=True)
class Asked:
    span: str
    key: str
    """Empty: all of one's keys."""
    model: str
    """Empty: all."""

    @property
    def query(self) -> str:
        told = {"span": self.span, "key": self.key, "model": self.model}
        return urlencode({name: value for name, value in told.items() if value})


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    note: str
    href: str
    """Empty for all the others together."""
    requests: int
    tokens: int
    cost: str


@dataclass(frozen=True, slots=True)
class Point:
    at: float
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: str


@dataclass(frozen=True, slots=True)
class UsageView:
    requests: int
    failed: int
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    cost: str
    has_cost: bool
    ttft_s: float | None
    until: float


@dataclass(frozen=True, slots=True)
class RequestRow:
    id: str
    path: str
    """To what became of it."""
    at: float
    model: str
    key_id: str
    outcome: str
    tone: str
    reason: str
    tokens: int
    ttft_s: float | None
    took_s: float
    cost: str


def asked_from(query: Form) -> Asked:
    """Raises WrongField."""
    span = query.get("span", "week") or "week"
    if span not in SPANS:
        raise WrongField("span", f"There is usage of a {', '.join(SPANS)}.")
    key, model = query.get("key"), query.get("model")
    if len(key) > 100 or len(model) > 256:
        raise WrongField("key" if len(key) > 100 else "model", "There is nothing of that name.")
    return Asked(span, key, model)


def question(
    asked: Asked, user: str, now: float, *by: usage.UsageColumn.ValueType, bucketed: bool = False
) -> usage.QueryUsageRequest:
    until = round(now * _MICRO)
    since = until - SPANS[asked.span] * _MICRO
    return usage.QueryUsageRequest(
        from_us=since,
        to_us=until,
        user=user,
        key_id=asked.key,
        model=asked.model,
        by=by,
        bucket=_BUCKETS[asked.span][0] if bucketed else usage.USAGE_BUCKET_UNSPECIFIED,
        limit=_MOST_LINES,
    )


def question_of_all(asked: Asked, user: str, now: float) -> usage.QueryUsageRequest:
    """Of which steps, models and keys are told: the ledger is asked once. Whoever used more models with more keys than lines
    are told is told the rest of them together."""
    request = question(asked, user, now, usage.USAGE_COLUMN_MODEL, usage.USAGE_COLUMN_KEY, bucketed=True)
    steps = SPANS[asked.span] // _BUCKETS[asked.span][1] + 1  # the first and the last are cut
    request.top = min(_MOST_APART, _MOST_LINES // steps - 1)
    return request


def steps_of(told: usage.QueryUsageResponse) -> usage.QueryUsageResponse:
    """The answer as if nobody had asked for models and keys."""
    steps = usage.QueryUsageResponse(from_us=told.from_us, to_us=told.to_us, total=told.total)
    for at_us, sums in _together(told, lambda line: line.at_us).items():
        steps.lines.add(at_us=at_us, sums=sums)
    return steps


def usage_view(told: usage.QueryUsageResponse) -> UsageView:
    sums = told.total
    return UsageView(
        sums.requests,
        sums.failed + sums.refused,
        sums.prompt_tokens,
        sums.cached_prompt_tokens,
        sums.completion_tokens,
        money(sums.cost_micros),
        bool(sums.cost_micros),
        sums.ttft_ms / sums.answered / 1000 if sums.answered else None,
        told.to_us / _MICRO,
    )


def models_of(told: usage.QueryUsageResponse, asked: Asked) -> tuple[Line, ...]:
    """Those of most tokens first."""
    return tuple(
        _line(model or "unknown", "", Asked(asked.span, asked.key, model), sums)
        if model is not None
        else _line(_OTHERS, "", None, sums)
        for model, sums in _most_first(_together(told, lambda line: None if line.rest else line.model))
    )


def keys_of(told: usage.QueryUsageResponse, asked: Asked) -> tuple[Line, ...]:
    """Those of most tokens first."""
    names = {line.key_id: line.key_name for line in told.lines}
    return tuple(
        _line(names[key] or key or "unknown", key, Asked(asked.span, key, asked.model), sums)
        if key is not None
        else _line(_OTHERS, "", None, sums)
        for key, sums in _most_first(_together(told, lambda line: None if line.rest else line.key_id))
    )


def points_of(told: usage.QueryUsageResponse) -> tuple[Point, ...]:
    """Newest first, only those in which something was."""
    return tuple(
        Point(
            line.at_us / _MICRO,
            line.sums.requests,
            line.sums.prompt_tokens,
            line.sums.completion_tokens,
            money(line.sums.cost_micros),
        )
        for line in reversed(told.lines)
        if line.sums.requests
    )


def plot(told: usage.QueryUsageResponse, asked: Asked, of: str) -> dict[str, object]:
    """As scripts draw it, with every step of the span. `of`: of PLOTS."""
    step = _BUCKETS[asked.span][1]
    known = {line.at_us // _MICRO // step: line.sums for line in told.lines}
    first, last = told.from_us // _MICRO // step, told.to_us // _MICRO // step
    nothing = usage.UsageSums()
    steps = range(first, last + 1)
    share = _MICRO if of == "cost" else 1
    return {
        "t": [number * step for number in steps],
        "series": [
            {
                "label": label,
                "unit": unit,
                "values": [getattr(known.get(number, nothing), field) / share for number in steps],
            }
            for field, label, unit in PLOTS[of]
        ],
    }


def file_rows(told: usage.QueryUsageResponse) -> list[Row]:
    return [
        {
            "day_us": line.at_us,
            "model": line.model,
            "key_id": line.key_id,
            "key_name": line.key_name,
            **{column.name: getattr(line.sums, column.name) for column in COLUMNS if column.kind is Kind.WHOLE},
        }
        for line in told.lines
    ]


def request_rows(rows: Sequence[usage_pb2.UsageRecord]) -> tuple[RequestRow, ...]:
    return tuple(
        RequestRow(
            row.request_id or id_of(row.ledger_id),
            f"/console/explain/{id_of(row.ledger_id)}",
            row.started_at_us / _MICRO,
            row.model or row.model_requested or "unknown",
            row.key_id,
            *_OUTCOMES.get(row.outcome, ("unknown", "warn")),
            row.reason.replace("_", " "),
            row.usage.prompt_tokens + row.usage.completion_tokens,
            row.ttft_ms / 1000 if row.HasField("ttft_ms") else None,
            row.duration_ms / 1000,
            money(row.cost_micros) if row.HasField("cost_micros") else "",
        )
        for row in rows
    )


def _together(told: usage.QueryUsageResponse, whose: Callable[[usage.UsageLine], T]) -> dict[T, usage.UsageSums]:
    """What lines of the same have, in the order in which each is told first."""
    found: dict[T, usage.UsageSums] = {}
    for line in told.lines:
        sums = found.setdefault(whose(line), usage.UsageSums())
        for name in _ADDED:
            setattr(sums, name, getattr(sums, name) + getattr(line.sums, name))
    return found


def _most_first(found: Mapping[str | None, usage.UsageSums]) -> list[tuple[str | None, usage.UsageSums]]:
    """All the others together come last."""
    return sorted(found.items(), key=lambda one: (one[0] is None, -_tokens(one[1]), one[0] or ""))


def _line(name: str, note: str, asked: Asked | None, sums: usage.UsageSums) -> Line:
    href = f"{PATH}?{asked.query}" if asked is not None else ""
    return Line(name, note, href, sums.requests, _tokens(sums), money(sums.cost_micros))


def _tokens(sums: usage.UsageSums) -> int:
    return sums.prompt_tokens + sums.completion_tokens
