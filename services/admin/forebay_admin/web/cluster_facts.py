"""How the cluster is, for everybody: found out once for all who look, a few seconds old at most, and by nobody's right. So
nobody is named here, and neither is a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay.wire.v1 import alerts_pb2, registry_pb2, scheduler_pb2
from forebay.wire.v1 import usage_queries_pb2 as usage
from forebay_admin.lately import Lately
from forebay_admin.money.price_book import PriceBook
from forebay_admin.money.prices import Prices
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role

T = TypeVar("T")

SPANS = ("hour", "day", "week")
_SPAN_S = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}
_BUCKETS = {
    "hour": (usage.USAGE_BUCKET_MINUTE, 60),
    "day": (usage.USAGE_BUCKET_HOUR, 3600),
    "week": (usage.USAGE_BUCKET_HOUR, 3600),
}
_KEPT_S = {"hour": 15.0, "day": 30.0, "week": 120.0}
_NOW_S, _SUMS_S, _USERS_S, _MODELS_S, _INCIDENTS_S, _ASKED_S = 2.0, 5.0, 60.0, 5.0, 15.0, 60.0
"""How long each is kept: anybody may ask, and the long ones go through many lines."""
_MINUTE_S, _LATELY_S, _DAY_S = 60.0, 10.0, 86_400.0
_MOST_LINES, _MOST_PAGES = 10_000, 20
_MOST_INCIDENTS = 500
_NOBODY = Actor("status page", Role.AUDITOR)


class KnowsFleet(Protocol):
    async def backends(self) -> Sequence[registry_pb2.Backend]: ...
    async def models(self) -> Sequence[registry_pb2.FleetModel]: ...


class KnowsQueue(Protocol):
    async def queue(self) -> scheduler_pb2.ShowQueueResponse: ...


class KnowsUsage(Protocol):
    async def query(self, request: usage.QueryUsageRequest, actor: Actor) -> usage.QueryUsageResponse: ...


class KnowsAlerts(Protocol):
    async def list(self, request: alerts_pb2.ListAlertsRequest) -> alerts_pb2.ListAlertsResponse: ...


class KnowsPrices(Protocol):
    @property
    def book(self) -> PriceBook: ...


@dataclass(frozen=True, slots=True)
class Now:
    """None: who knows it did not answer."""

    at: float
    """Unix seconds."""
    backends: Sequence[registry_pb2.Backend] | None
    queue: scheduler_pb2.ShowQueueResponse | None
    minute: usage.UsageSums | None
    """Of requests that began in the last one."""
    lately: usage.UsageSums | None
    """Of the last ten seconds."""
    users_of_day: int | None


@dataclass(frozen=True, slots=True)
class Point:
    at: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0
    users: int = 0


@dataclass(frozen=True, slots=True)
class Trends:
    made_at: float
    step_s: int
    points: Sequence[Point]
    """Of the whole span, oldest first, those too in which nothing was."""


class ClusterFacts:
    def __init__(
        self,
        fleet: KnowsFleet,
        queue: KnowsQueue,
        used: KnowsUsage,
        alerts: KnowsAlerts,
        prices: KnowsPrices,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._queue = queue
        self._used = used
        self._alerts = alerts
        self._prices = prices
        self._clock = clock
        self._lately = Lately(clock)

    async def now(self) -> Now:
        return await self._lately.told("now", _NOW_S, self._now)

    async def incidents(self) -> Sequence[alerts_pb2.Alert]:
        """Open and closed ones. Raises Unavailable."""
        return await self._lately.told("incidents", _INCIDENTS_S, self._incidents)

    async def models(self) -> Sequence[registry_pb2.FleetModel]:
        """Raises Unavailable."""
        return await self._lately.told("models", _MODELS_S, self._models)

    async def asked(self) -> dict[str, int]:
        """How many requests each model had in a week. Raises Unavailable."""
        return await self._lately.told("asked", _ASKED_S, self._asked)

    async def trends(self, span: str) -> Trends:
        """`span`: of SPANS. Raises Unavailable, NotPossible."""
        return await self._lately.told(span, _KEPT_S[span], lambda: self._trends(span))

    def price(self, model: str) -> Prices | None:
        version = self._prices.book.price_at(model, datetime.fromtimestamp(self._clock.now(), UTC))
        return version.prices if version is not None else None

    async def _now(self) -> Now:
        return Now(
            self._clock.now(),
            await _or_none(self._fleet.backends()),
            await _or_none(self._queue.queue()),
            await _or_none(self._lately.told("minute", _SUMS_S, lambda: self._sums(_MINUTE_S))),
            await _or_none(self._lately.told("seconds", _SUMS_S, lambda: self._sums(_LATELY_S))),
            await _or_none(self._lately.told("users", _USERS_S, self._users)),
        )

    async def _sums(self, span_s: float) -> usage.UsageSums:
        return (await self._usage(span_s)).total

    async def _users(self) -> int:
        answer = await self._usage(_DAY_S, by=[usage.USAGE_COLUMN_USER])
        return sum(1 for line in answer.lines if line.user_id)

    async def _incidents(self) -> Sequence[alerts_pb2.Alert]:
        request = alerts_pb2.ListAlertsRequest(closed=True, limit=_MOST_INCIDENTS)
        return tuple((await self._alerts.list(request)).alerts)

    async def _models(self) -> Sequence[registry_pb2.FleetModel]:
        return tuple(await self._fleet.models())

    async def _asked(self) -> dict[str, int]:
        answer = await self._usage(_SPAN_S["week"], by=[usage.USAGE_COLUMN_MODEL])
        return {line.model: line.sums.requests for line in answer.lines if line.model}

    async def _trends(self, span: str) -> Trends:
        bucket, step_s = _BUCKETS[span]
        to_us = round(self._clock.now() * 1_000_000)
        sums = await self._usage(_SPAN_S[span], bucket=bucket, to_us=to_us)
        users: Counter[int] = Counter()
        page = ""
        for _ in range(_MOST_PAGES):
            by = [usage.USAGE_COLUMN_USER]
            answer = await self._usage(_SPAN_S[span], by=by, bucket=bucket, to_us=to_us, page=page)
            users.update(line.at_us for line in answer.lines if line.user_id)
            page = answer.next_page
            if not page:
                break
        known = {
            line.at_us // 1_000_000 // step_s: Point(
                0, line.sums.prompt_tokens, line.sums.completion_tokens, line.sums.requests, users[line.at_us]
            )
            for line in sums.lines
        }
        now = to_us / 1_000_000
        first = int(now - _SPAN_S[span]) // step_s + 1  # the one before is cut off at its start
        nothing = Point(0)
        return Trends(
            now,
            step_s,
            tuple(_at(number * step_s, known.get(number, nothing)) for number in range(first, int(now) // step_s + 1)),
        )

    async def _usage(self, span_s: float, **more: Any) -> usage.QueryUsageResponse:
        """`more`: fields of the question."""
        now = more["to_us"] / 1_000_000 if "to_us" in more else self._clock.now()
        request = usage.QueryUsageRequest(from_us=round((now - span_s) * 1_000_000), limit=_MOST_LINES, **more)
        return await self._used.query(request, _NOBODY)


async def _or_none(asked: Awaitable[T]) -> T | None:
    try:
        return await asked
    except ForebayError:
        return None


def _at(at: float, point: Point) -> Point:
    return Point(at, point.prompt_tokens, point.completion_tokens, point.requests, point.users)
