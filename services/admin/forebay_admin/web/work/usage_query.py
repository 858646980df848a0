"""What the usage explorer is asked, as its address says it: read field by field, and written again for links. Pure: the time
is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import available_timezones

from forebay.wire.v1 import types_pb2
from forebay.wire.v1 import usage_queries_pb2 as wire
from forebay_admin.ledger.usage_words import BUCKETS, COLUMNS, ORDERS, OUTCOMES
from forebay_admin.web.forms import WrongField

PARTS = {name: bucket for name, bucket in BUCKETS.items() if name != "minute"}
"""Of time."""
LASTS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
    "365d": timedelta(days=365),
}
USUAL = "7d"
MOST_TOP = 100
_ONLY = ("user", "group", "key", "model", "backend", "pool", "outcome")
_LONGEST = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is empty is not asked for."""

    by: str = "model"
    then: str = ""
    last: str = ""
    """One of LASTS; empty where `since` says it."""
    since: str = ""
    until: str = ""
    """Days or moments of UTC, as `<input type=datetime-local>` writes them."""
    zone: str = ""
    user: str = ""
    group: str = ""
    key: str = ""
    model: str = ""
    backend: str = ""
    """Its id."""
    pool: str = ""
    outcome: str = ""
    order: str = "tokens"
    top: int = 0
    compare: bool = False
    page: str = ""

    @property
    def part(self) -> str:
        """Of time, when one of the two is one."""
        return next((one for one in (self.by, self.then) if one in PARTS), "")

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for one in (self.by, self.then) if one in COLUMNS))

    @property
    def only(self) -> dict[str, str]:
        return {name: value for name in _ONLY if (value := getattr(self, name))}

    def span(self, now: float) -> tuple[datetime, datetime]:
        """Raises WrongField."""
        end = _moment("until", self.until) if self.until else datetime.fromtimestamp(now, UTC)
        begin = _moment("since", self.since) if self.since else end - LASTS[self.last or USUAL]
        if begin >= end:
            raise WrongField("until", "The span ends before it begins.")
        return begin, end

    def query(self, **changed: object) -> str:
        """As an address says it, without what is usual."""
        usual, told = Asked(), replace(self, **changed)  # type: ignore[arg-type]
        values = {one.name: getattr(told, one.name) for one in fields(Asked)}
        shown = {name: value for name, value in values.items() if value != getattr(usual, name)}
        if "compare" in shown:
            shown["compare"] = "1"
        return urlencode(shown)

    def narrowed(self, column: str, value: str) -> str:
        """As `query`, for that value alone, told apart by something else."""
        rest = tuple(one for one in (self.by, self.then) if one and one != column)
        by = rest or ("user" if column == "model" else "model",)
        return self.query(**{column: value, "by": by[0], "then": by[1] if len(by) > 1 else "", "page": ""})

    def asking(self, now: float, **more: object) -> wire.QueryUsageRequest:
        """Raises WrongField."""
        begin, end = self.span(now)
        return wire.QueryUsageRequest(
            from_us=_us(begin),
            to_us=_us(end),
            by=[COLUMNS[one] for one in self.columns],
            bucket=PARTS[self.part] if self.part else wire.USAGE_BUCKET_UNSPECIFIED,
            time_zone=self.zone,
            user=self.user,
            group=self.group,
            key_id=self.key,
            model=self.model,
            backend_id=self.backend,
            pool=self.pool,
            outcome=OUTCOMES[self.outcome] if self.outcome else types_pb2.OUTCOME_UNSPECIFIED,
            order=ORDERS[self.order],
            top=self.top,
            compare=self.compare and not self.part,
            **more,  # type: ignore[arg-type]
        )


def read_asked(query: Mapping[str, str]) -> Asked:
    """Raises WrongField."""

    def told(name: str) -> str:
        value = query.get(name, "").strip()
        if len(value) > _LONGEST or not value.isprintable():
            raise WrongField(name, f"This has at most {_LONGEST} letters, digits and signs.")
        return value

    def one_of(name: str, known: Mapping[str, object], usual: str = "") -> str:
        value = told(name) if name in query else usual
        if value and value not in known:
            raise WrongField(name, f"There is no {value[:40]!r} here; there are {', '.join(known)}.")
        return value

    by = one_of("by", {**PARTS, **COLUMNS}, "model")
    then = one_of("then", {**PARTS, **COLUMNS})
    if by in PARTS and then in PARTS:
        raise WrongField("then", "Time is divided once: choose something else as the second.")
    zone = told("zone")
    if zone and zone not in available_timezones():
        raise WrongField("zone", f"There is no time zone {zone[:40]!r}; write one such as Europe/Berlin.")
    top = told("top") or "0"
    if not (top.isascii() and top.isdigit() and int(top[:9]) <= MOST_TOP):
        raise WrongField("top", f"This has to be a whole number up to {MOST_TOP}.")
    asked = Asked(
        by=by,
        then="" if then == by else then,
        last=one_of("last", LASTS),
        since=told("since"),
        until=told("until"),
        zone=zone,
        order=one_of("order", ORDERS) or "tokens",
        top=int(top),
        compare=bool(told("compare")),
        page=told("page"),
        outcome=one_of("outcome", OUTCOMES),
        **{name: told(name) for name in _ONLY if name != "outcome"},
    )
    for name in ("since", "until"):
        if value := getattr(asked, name):
            _moment(name, value)
    # A span that was named begins and ends where it says, whatever is chosen beside it.
    return replace(asked, last="") if asked.since else asked


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        at.timestamp()
    except (ValueError, OverflowError) as error:
        raise WrongField(
            name, f"This has to be a day or a moment, such as 2030-01-31T12:00, and not {text[:40]!r}."
        ) from error
    if at.year < 1971:
        raise WrongField(name, "That is before there was anything to count.")
    return at


def _us(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)
