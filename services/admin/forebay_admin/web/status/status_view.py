"""The status page's facts as they are shown. Pure: what was told comes in, words and numbers go out, and no name of anything
within."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.wire.v1 import alerts_pb2, registry_pb2
from forebay_admin.seeds.mindrouter.shapes import backend_status
from forebay_admin.web.cluster_facts import Now, Point, Trends

PERIOD_S = 10.0
"""After so long what is shown looks old."""
INCIDENT_DAYS = 7
_MOST_INCIDENTS = 30
_WELL = "healthy"


@dataclass(frozen=True, slots=True)
class Pool:
    name: str
    well: int
    backends: int
    running: int | None
    slots: int | None
    waiting: int | None


@dataclass(frozen=True, slots=True)
class StatusView:
    tone: str
    word: str
    """One sentence: is it well."""
    measured_at: float
    well: int | None
    backends: int | None
    running: int | None
    slots: int | None
    waiting: int | None
    oldest_s: float | None
    """How long the request waits that waits longest."""
    tokens_in_per_s: float | None
    tokens_out_per_s: float | None
    requests_of_minute: int | None
    ttft_s: float | None
    """Mean of the last minute; None: nothing was answered, or nobody knows."""
    users_of_day: int | None
    pools: tuple[Pool, ...]
    knows_fleet: bool
    knows_queue: bool


def status_view(now: Now) -> StatusView:
    known = list(now.backends) if now.backends is not None else None
    wanted = [backend for backend in known or () if backend.enabled]
    well = [backend for backend in wanted if backend_status(backend) == _WELL]
    pools = _pools(now, wanted)
    queue = now.queue
    minute = now.minute
    return StatusView(
        *_word(
            None if known is None else len(well), len(wanted), sum(not pool.well for pool in pools if pool.backends)
        ),
        measured_at=now.at,
        well=len(well) if known is not None else None,
        backends=len(wanted) if known is not None else None,
        running=sum(one.held for one in queue.held) if queue is not None else None,
        slots=sum(one.cap for one in queue.held) if queue is not None else None,
        waiting=sum(line.requests for line in queue.waiting) if queue is not None else None,
        oldest_s=max((line.oldest_ms for line in queue.waiting), default=0) / 1000 if queue is not None else None,
        tokens_in_per_s=_rate(known, "prompt_tokens_per_s", now.lately.prompt_tokens if now.lately else None),
        tokens_out_per_s=_rate(known, "completion_tokens_per_s", now.lately.completion_tokens if now.lately else None),
        requests_of_minute=minute.requests if minute is not None else None,
        ttft_s=minute.ttft_ms / minute.answered / 1000 if minute is not None and minute.answered else None,
        users_of_day=now.users_of_day,
        pools=pools,
        knows_fleet=known is not None,
        knows_queue=queue is not None,
    )


def _word(well: int | None, wanted: int, pools_away: int) -> tuple[str, str]:
    """Tone and sentence."""
    if well is None:
        return "warn", "How the engines are is not known at the moment."
    if not wanted:
        return "info", "No engines are here yet."
    if not well:
        return "bad", "No engine answers at the moment."
    if pools_away:
        return "warn", "Not every pool is served at the moment."
    if well < wanted:
        return "warn", "Every pool is served, by fewer engines than usual."
    return "good", "All engines are well."


def _rate(backends: Sequence[registry_pb2.Backend] | None, field: str, lately: int | None) -> float | None:
    """Engines tell at once and not all of them do; the ledger tells of requests that have ended."""
    loads = [backend.load for backend in backends or () if backend.HasField("load") and not backend.load.stale]
    told: list[float] = [getattr(load, field) for load in loads if load.HasField(field)]  # type: ignore[arg-type]
    if not told and lately is None:
        return None
    return max(sum(told), (lately or 0) / 10)


def _pools(now: Now, wanted: Sequence[registry_pb2.Backend]) -> tuple[Pool, ...]:
    held = {one.backend_id: one for one in now.queue.held} if now.queue is not None else {}
    waiting: dict[str, int] = {}
    for line in now.queue.waiting if now.queue is not None else ():
        waiting[line.pool or "default"] = waiting.get(line.pool or "default", 0) + line.requests
    names = sorted({backend.pool or "default" for backend in wanted} | set(waiting))
    found = []
    for name in names:
        mine = [backend for backend in wanted if (backend.pool or "default") == name]
        slots = [held[backend.id] for backend in mine if backend.id in held]
        found.append(
            Pool(
                name,
                sum(backend_status(backend) == _WELL for backend in mine),
                len(mine),
                sum(one.held for one in slots) if now.queue is not None else None,
                sum(one.cap for one in slots) if now.queue is not None else None,
                waiting.get(name, 0) if now.queue is not None else None,
            )
        )
    return tuple(found)


# --- incidents ---------------------------------------------------------------------------------------------------------

_WHAT: Mapping[str, str] = {
    "backend_unhealthy": "An engine did not answer",
    "backend_flapping": "An engine came and went",
    "models_unserved": "A model was not served",
    "model_missing": "A model was missing on an engine",
    "node_silent": "A machine was silent",
    "gpu_driver_failed": "A GPU failed",
    "gpu_lost": "A GPU failed",
    "gpu_xid": "A GPU failed",
    "gpu_ecc": "A GPU had memory errors",
    "gpu_hot": "A GPU was too hot",
    "gpu_memory_hot": "A GPU was too hot",
    "gpu_throttling": "A GPU was slowed down",
    "disk_full": "A disk was nearly full",
    "registry_without_postgres": "A part of Forebay lost its database",
    "registry_without_nats": "A part of Forebay lost its bus",
}
"""What users may feel. Others are nobody's business but operators'."""
_SEVERITIES = {
    alerts_pb2.ALERT_SEVERITY_CRITICAL: ("bad", "serious"),
    alerts_pb2.ALERT_SEVERITY_WARNING: ("warn", "minor"),
}


@dataclass(frozen=True, slots=True)
class Incident:
    what: str
    tone: str
    severity: str
    began_at: float
    ended_at: float | None
    """None: it goes on."""

    @property
    def lasted_s(self) -> float | None:
        return self.ended_at - self.began_at if self.ended_at is not None else None


def incidents_view(alerts: Sequence[alerts_pb2.Alert], now: float) -> tuple[Incident, ...]:
    """Those that go on, then those of a week, the newest first."""
    found = [
        Incident(
            _WHAT[alert.rule],
            *_SEVERITIES[alert.severity],
            alert.began_at_us / 1_000_000,
            alert.closed_at_us / 1_000_000 if alert.HasField("closed_at_us") else None,
        )
        for alert in alerts
        if alert.rule in _WHAT and alert.severity in _SEVERITIES
    ]
    recent = [one for one in found if one.ended_at is None or one.ended_at > now - INCIDENT_DAYS * 86_400]
    recent.sort(key=lambda one: (one.ended_at is not None, -one.began_at))
    return tuple(recent[:_MOST_INCIDENTS])


# --- trends ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrendsView:
    span: str
    points: tuple[Point, ...]
    prompt_tokens: int
    completion_tokens: int
    requests: int
    made_at: float


def trends_view(span: str, trends: Trends) -> TrendsView:
    return TrendsView(
        span,
        tuple(reversed([point for point in trends.points if point.requests])),
        sum(point.prompt_tokens for point in trends.points),
        sum(point.completion_tokens for point in trends.points),
        sum(point.requests for point in trends.points),
        trends.made_at,
    )


def plot(trends: Trends, of: str) -> dict[str, object]:
    """As scripts draw it. `of`: of PLOTS."""
    return {
        "t": [point.at for point in trends.points],
        "series": [
            {"label": label, "unit": unit, "values": [getattr(point, field) for point in trends.points]}
            for field, label, unit in PLOTS[of]
        ],
    }


PLOTS: Mapping[str, Sequence[tuple[str, str, str]]] = {
    "tokens": (("prompt_tokens", "Read", "tokens"), ("completion_tokens", "Written", "tokens")),
    "requests": (("requests", "Requests", "requests"),),
    "users": (("users", "Users", "users"),),
}
"""Field of a point, what it is called, its unit."""
