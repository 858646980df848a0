"""What MindRouter tells everybody: how many backends are well, which models there are, how much was served. Nobody is named
here. It is kept for seconds, so that whoever asks often asks nobody else."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from forebay.clock import Clock
from forebay.errors import ForebayError
from forebay.wire.v1 import scheduler_pb2, types_pb2, usage_queries_pb2
from forebay_admin.fleet.fleet_desk import FleetDesk
from forebay_admin.lately import Lately
from forebay_admin.ledger.usage_desk import UsageDesk
from forebay_admin.people.access import Actor
from forebay_admin.people.people import Role
from forebay_admin.queue.scheduler_desk import SchedulerDesk
from forebay_admin.seeds.mindrouter.queue import health_shape, queue_shape
from forebay_admin.seeds.mindrouter.shapes import backend_status, since_us

WORDS = ("hour", "day", "week", "month", "year")
_NOBODY = Actor("status page", Role.AUDITOR)
_S = {"hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000, "year": 31_536_000}
_BUCKETS = {
    "hour": usage_queries_pb2.USAGE_BUCKET_MINUTE,
    "day": usage_queries_pb2.USAGE_BUCKET_HOUR,
    "week": usage_queries_pb2.USAGE_BUCKET_HOUR,
    "month": usage_queries_pb2.USAGE_BUCKET_DAY,
    "year": usage_queries_pb2.USAGE_BUCKET_WEEK,
}
_MOST_LINES, _MOST_PAGES = 10_000, 20
_LATELY_S = 10
_KEPT_S = {"status": 5.0, "tokens": 5.0, "throughput": 2.0}
_TRENDS_KEPT_S = {"hour": 15.0, "day": 15.0, "week": 60.0, "month": 300.0, "year": 300.0}
"""Anybody may ask, and the long ones go through many lines."""


class Cluster:
    def __init__(self, fleet: FleetDesk, scheduler: SchedulerDesk, usage: UsageDesk, clock: Clock) -> None:
        self._fleet = fleet
        self._scheduler = scheduler
        self._usage = usage
        self._clock = clock
        self._lately = Lately(clock)

    async def status(self) -> dict[str, Any]:
        return await self._lately.told("status", _KEPT_S["status"], self._status)

    async def total_tokens(self) -> dict[str, Any]:
        return await self._lately.told("tokens", _KEPT_S["tokens"], self._tokens)

    async def throughput(self) -> dict[str, Any]:
        return await self._lately.told("throughput", _KEPT_S["throughput"], self._throughput)

    async def trends(self, span: str) -> dict[str, Any]:
        """`span`: one of WORDS; others count as a day, as there."""
        word = span if span in WORDS else "day"
        told = await self._lately.told(word, _TRENDS_KEPT_S[word], lambda: self._trends(word))
        now = self._clock.now()
        return {**told, "range": word, "since": _iso(now - _S[word]), "now": _iso(now)}

    async def _status(self) -> dict[str, Any]:
        backends = list((await self._fleet.show_backends()).backends)
        well = [backend for backend in backends if backend_status(backend) == "healthy"]
        queue = await self._queue()
        day = await self._usage_of(86_400, [usage_queries_pb2.USAGE_COLUMN_USER])
        return {
            "service": "Forebay",
            "version": version("forebay"),
            "timestamp": _iso(self._clock.now()),
            "backends": {"total": len(backends), "healthy": len(well)},
            "models": sorted({model.name for backend in well for model in backend.models}),
            "queue": queue_shape(queue, with_users=False) if queue is not None else {},
            "queue_health": health_shape(queue) if queue is not None else {},
            "fair_share": {"total_users": len({share.user_id for share in queue.shares}) if queue is not None else 0},
            "active_users": sum(1 for line in day.lines if line.user_id),
        }

    async def _tokens(self) -> dict[str, Any]:
        answer = await self._usage_of(None, [])
        return _sums(answer.total)

    async def _throughput(self) -> dict[str, Any]:
        backends, queue = (await self._fleet.show_backends()).backends, await self._queue()
        told_by_engines = sum(backend.load.completion_tokens_per_s for backend in backends)
        lately = (await self._usage_of(_LATELY_S, [], outcome=types_pb2.OUTCOME_FINISHED)).total
        tokens = lately.prompt_tokens + lately.completion_tokens
        held = sum(one.held for one in queue.held) if queue is not None else 0
        return {
            "tokens_per_second": round(max(told_by_engines, tokens / _LATELY_S), 1),
            "requests_per_minute": lately.requests * 60 // _LATELY_S,
            "active_requests": held + (sum(line.requests for line in queue.waiting) if queue is not None else 0),
            "total_tokens_last_10s": tokens,
            "inflight_tokens": 0,
        }

    async def _trends(self, word: str) -> dict[str, Any]:
        tokens = await self._usage_of(_S[word], [], bucket=_BUCKETS[word])
        users: Counter[int] = Counter()
        to_us, page = round(self._clock.now() * 1_000_000), ""
        for _ in range(_MOST_PAGES):
            by = [usage_queries_pb2.USAGE_COLUMN_USER]
            answer = await self._usage_of(_S[word], by, bucket=_BUCKETS[word], to_us=to_us, page=page)
            users.update(line.at_us for line in answer.lines if line.user_id)
            page = answer.next_page
            if not page:
                break
        return {
            "tokens": [{"t": _iso(line.at_us / 1_000_000), **_sums(line.sums, "v")} for line in tokens.lines],
            "users": [{"t": _iso(at / 1_000_000), "v": count} for at, count in sorted(users.items())],
        }

    async def _usage_of(
        self, span_s: float | None, by: list[usage_queries_pb2.UsageColumn.ValueType], **more: Any
    ) -> usage_queries_pb2.QueryUsageResponse:
        """`span_s`: None is for ever. `more`: fields of the question."""
        now = more["to_us"] / 1_000_000 if "to_us" in more else self._clock.now()
        from_us = since_us(now, round((now - span_s) * 1_000_000) if span_s is not None else 0)
        request = usage_queries_pb2.QueryUsageRequest(from_us=from_us, by=by, limit=_MOST_LINES, **more)
        return await self._usage.query(request, _NOBODY)

    async def _queue(self) -> scheduler_pb2.ShowQueueResponse | None:
        """None while no scheduler tells."""
        try:
            return (await self._scheduler.view_queue()).queue
        except ForebayError:
            return None


def _sums(sums: usage_queries_pb2.UsageSums, total: str = "total_tokens") -> dict[str, int]:
    return {
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
        total: sums.prompt_tokens + sums.completion_tokens,
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
