"""What waits and runs, what the models can take, and who asked for what lately."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from forebay.errors import BadInput
from forebay.wire.v1 import admin_pb2, scheduler_pb2, usage_queries_pb2
from forebay_admin.seeds.asking import Asking
from forebay_admin.seeds.mindrouter.shapes import backend_status, iso, number, request_status
from forebay_admin.seeds.route import SeedRoute

_WINDOWS = {"1m": 60, "1h": 3600, "4h": 14_400, "12h": 43_200, "24h": 86_400}
_MOST_MINUTES = 1440
_TOP, _MOST_LINES = 10, 10_000
_STALE_MS = 120_000


def queue_shape(queue: scheduler_pb2.ShowQueueResponse, *, with_users: bool = True) -> dict[str, Any]:
    """The average is of the oldest request of each line: no line is told one by one."""
    by_user: dict[str, int] = defaultdict(int)
    by_model: dict[str, int] = defaultdict(int)
    for line in queue.waiting:
        by_user[str(number("user", line.user_id))] += line.requests
        by_model[line.model] += line.requests
    waits = [line.oldest_ms / 1000 for line in queue.waiting if line.requests]
    return {
        "total": sum(by_model.values()),
        "by_user": dict(by_user) if with_users else {},
        "by_model": dict(by_model),
        "average_wait_seconds": round(sum(waits) / len(waits), 3) if waits else 0.0,
    }


def health_shape(queue: scheduler_pb2.ShowQueueResponse) -> dict[str, Any]:
    oldest_ms = max((line.oldest_ms for line in queue.waiting), default=0)
    stale = sum(line.requests for line in queue.waiting if line.oldest_ms > _STALE_MS)
    return {
        "status": "critical" if stale else "healthy",
        "trend": "stable",
        "trend_rate": 0.0,
        "stale_jobs": stale,
        "oldest_job_age_seconds": round(oldest_ms / 1000, 1),
        "backend_depths": {str(number("backend", one.backend_id)): one.held for one in queue.held},
        "gc_last_run": None,
        "gc_last_evicted": 0,
    }


async def show(asking: Asking) -> Any:
    queue = (await asking.call("ViewQueue")).queue
    return {
        "queue": queue_shape(queue),
        "fair_share": {
            "total_users": len({share.user_id for share in queue.shares}),
            "global_recent_tokens": None,
            "fairness_window_seconds": None,
            "user_stats": [_share(share) for share in queue.shares],
        },
        "backend_queues": {str(number("backend", one.backend_id)): one.held for one in queue.held},
    }


async def monitor(asking: Asking) -> Any:
    minutes = asking.query.whole("window", 5, least=1, most=_MOST_MINUTES) or 5
    asking.query.done()
    queue = (await asking.call("ViewQueue")).queue
    backends = (await asking.call("ShowBackends")).backends
    from_us = round((asking.now - minutes * 60) * 1_000_000)
    model, outcome, user = (
        usage_queries_pb2.USAGE_COLUMN_MODEL,
        usage_queries_pb2.USAGE_COLUMN_OUTCOME,
        usage_queries_pb2.USAGE_COLUMN_USER,
    )
    by_model = await asking.call("QueryUsage", from_us=from_us, by=[model, outcome], limit=_MOST_LINES)
    by_user = await asking.call("QueryUsage", from_us=from_us, by=[model, outcome, user], limit=_MOST_LINES)
    return {
        "window_minutes": minutes,
        "queued": _queued(queue, asking.now),
        "capacity": _capacity(backends),
        "by_user": [{**_line(line), "username": line.user_name or None} for line in by_user.lines],
        "by_model": [_line(line) for line in by_model.lines],
    }


async def top_users(asking: Asking) -> Any:
    window = asking.query.text("window", "1h")
    asking.query.done()
    if window not in _WINDOWS:
        raise BadInput(f"Invalid window. Choose from: {', '.join(_WINDOWS)}")
    from_us = round((asking.now - _WINDOWS[window]) * 1_000_000)
    user, model, key = (
        usage_queries_pb2.USAGE_COLUMN_USER,
        usage_queries_pb2.USAGE_COLUMN_MODEL,
        usage_queries_pb2.USAGE_COLUMN_KEY,
    )
    answer = await asking.call("QueryUsage", from_us=from_us, by=[user], limit=_TOP + 1)
    by_requests = {"from_us": from_us, "order": usage_queries_pb2.USAGE_ORDER_REQUESTS, "limit": _MOST_LINES}
    models = await asking.call("QueryUsage", by=[user, model], **by_requests)
    keys = await asking.call("QueryUsage", by=[user, key], **by_requests)
    users = {user.id: user for user in (await asking.call("ListUsers")).users}
    lines = [line for line in answer.lines if line.user_id][:_TOP]
    told = [
        _top(line, users.get(line.user_id), _first(models, line.user_id), _first(keys, line.user_id)) for line in lines
    ]
    return {"window": window, "window_seconds": _WINDOWS[window], "users": told}


def _share(share: scheduler_pb2.UserShare) -> dict[str, Any]:
    return {
        "user_id": number("user", share.user_id),
        "weight": share.weight_milli / 1000,
        "deficit": -share.ahead_tokens,
        "burst_credits": 0,
        "recent_tokens": None,
        "active_requests": share.running,
    }


def _queued(queue: scheduler_pb2.ShowQueueResponse, now: float) -> list[dict[str, Any]]:
    lines: dict[str, list[scheduler_pb2.QueuedUser]] = defaultdict(list)
    for line in queue.waiting:
        lines[line.model].append(line)
    told = [
        {
            "model": model,
            "queued": sum(line.requests for line in waiting),
            "oldest": iso(round((now - max(line.oldest_ms for line in waiting) / 1000) * 1_000_000)),
            "newest": None,
        }
        for model, waiting in lines.items()
    ]
    return sorted(told, key=lambda one: -one["queued"])


def _capacity(backends: Any) -> dict[str, Any]:
    models: dict[str, dict[str, Any]] = {}
    for backend in backends:
        status = backend_status(backend)
        for model in backend.models if backend.enabled else ():
            held = models.setdefault(model.name, {"backends": [], "total_max_concurrent": 0, "healthy_backends": 0})
            held["backends"].append(
                {
                    "name": backend.name,
                    "status": status,
                    "max_concurrent": backend.slots,
                    "current_concurrent": backend.load.running if backend.HasField("load") else 0,
                }
            )
            held["total_max_concurrent"] += backend.slots
            held["healthy_backends"] += status == "healthy"
    return dict(sorted(models.items()))


def _line(line: usage_queries_pb2.UsageLine) -> dict[str, Any]:
    sums = line.sums
    return {
        "model": line.model,
        "status": request_status(line.outcome),
        "count": sums.requests,
        "min_s": None,
        "avg_s": round(sums.duration_ms / sums.requests / 1000, 1) if sums.requests else None,
        "max_s": round(sums.most_duration_ms / 1000, 1),
    }


def _first(answer: usage_queries_pb2.QueryUsageResponse, user_id: str) -> usage_queries_pb2.UsageLine:
    """Of this user, that with the most requests; an empty one where there is none."""
    return next((line for line in answer.lines if line.user_id == user_id), usage_queries_pb2.UsageLine())


def _top(
    line: usage_queries_pb2.UsageLine,
    user: admin_pb2.User | None,
    model: usage_queries_pb2.UsageLine,
    key: usage_queries_pb2.UsageLine,
) -> dict[str, Any]:
    return {
        "user_id": number("user", line.user_id),
        "username": line.user_name or line.user_id,
        "full_name": "",
        "group_name": user.group_name if user is not None else "",
        "account_type": "service" if user is not None and user.is_service_account else "local",
        "is_active": user is not None and not user.disabled,
        "top_model": model.model,
        "request_count": line.sums.requests,
        "prompt_tokens": line.sums.prompt_tokens,
        "completion_tokens": line.sums.completion_tokens,
        "total_tokens": line.sums.prompt_tokens + line.sums.completion_tokens,
        "top_api_key_id": number("key", key.key_id),
        "top_api_key_name": key.key_name,
    }


ROUTES = (
    SeedRoute("GET", "/queue", show, ("ViewQueue",)),
    SeedRoute("GET", "/queue/monitor", monitor, ("ViewQueue", "ShowBackends", "QueryUsage")),
    SeedRoute("GET", "/top-users", top_users, ("QueryUsage", "ListUsers")),
)
