"""What the overview shows: the whole in a word, what is to be looked after, and the fleet in numbers. Pure; None is what
nobody knows, never zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from forebay.silence import silent_after_s
from forebay.wire.v1 import registry_pb2, status_pb2, usage_queries_pb2
from forebay_admin.fleet.picture import Picture
from forebay_admin.json_form import word
from forebay_admin.web.fleet.alerts_view import US, AlertRow, alert_rows
from forebay_admin.web.fleet.states import tone

_MOST_WELL = 6
"""Of a kind of part, that are named while all is well with them."""
MOST_ALERTS = 8
MOST_USERS = 8


@dataclass(frozen=True, slots=True)
class NodesInAll:
    nodes: int
    heard: int
    """Lately."""
    gpus: int
    busy_percent: float | None
    """Mean of the GPUs that tell it."""
    memory_used: int | None
    memory_total: int | None
    power_w: float | None
    """Of whole servers where their hosts tell, else of their GPUs."""


@dataclass(frozen=True, slots=True)
class StateCount:
    state: str
    tone: str
    backends: int


@dataclass(frozen=True, slots=True)
class PartRow:
    name: str
    word: str
    tone: str
    since: float | None
    detail: str
    todo: str


@dataclass(frozen=True, slots=True)
class PartKind:
    kind: str
    rows: tuple[PartRow, ...]
    and_well: str
    """How many more of it are well, and how; empty: none."""


@dataclass(frozen=True, slots=True)
class Overview:
    state: str
    tone: str
    summary: str
    measured_at: float
    version: str
    alerts: tuple[AlertRow, ...]
    more_alerts: int
    parts: tuple[PartKind, ...]
    picture: Picture
    nodes: NodesInAll | None
    states: tuple[StateCount, ...] | None


@dataclass(frozen=True, slots=True)
class ActiveUser:
    name: str
    """Empty: requests that were refused before it was known whose they were."""
    requests: int
    tokens: int
    failed: int


@dataclass(frozen=True, slots=True)
class LastHour:
    """Of the ledger."""

    users: tuple[ActiveUser, ...]
    requests: int
    tokens: int
    failed: int
    ttft_s: float | None
    """Mean, of requests of which a first byte came."""
    wait_s: float | None
    """Mean, of all."""
    until: float


def overview(
    status: status_pb2.ShowStatusResponse,
    picture: Picture,
    nodes: Sequence[registry_pb2.Node] | None,
    now: float,
) -> Overview:
    state = word(status, "state") or "unknown"
    alerts = alert_rows(status.alerts)
    return Overview(
        state=state,
        tone=tone(state),
        summary=status.summary,
        measured_at=status.at_us / US,
        version=status.version,
        alerts=alerts[:MOST_ALERTS],
        more_alerts=max(0, len(alerts) - MOST_ALERTS),
        parts=tuple(_part_kinds(status.parts)),
        picture=picture,
        nodes=nodes_in_all(nodes, now) if nodes is not None else None,
        states=_states(picture) if picture.serving is not None else None,
    )


def nodes_in_all(nodes: Sequence[registry_pb2.Node], now: float) -> NodesInAll:
    """Numbers are of those that were heard lately; what a silent one said once is not so any more."""
    heard = [node for node in nodes if is_heard(node, now)]
    gpus = [gpu for node in heard for gpu in node.last_sample.gpus]
    busy = [gpu.utilization_percent for gpu in gpus if gpu.HasField("utilization_percent")]
    with_memory = [g for g in gpus if g.HasField("memory_used_bytes") and g.HasField("memory_total_bytes")]
    power = [watts for node in heard if (watts := power_w(node)) is not None]
    return NodesInAll(
        nodes=len(nodes),
        heard=len(heard),
        gpus=sum(len(node.last_sample.gpus) for node in nodes),
        busy_percent=sum(busy) / len(busy) if busy else None,
        memory_used=sum(g.memory_used_bytes for g in with_memory) if with_memory else None,
        memory_total=sum(g.memory_total_bytes for g in with_memory) if with_memory else None,
        power_w=sum(power) if power else None,
    )


def is_heard(node: registry_pb2.Node, now: float) -> bool:
    if not node.HasField("heard_at_us"):
        return False
    return now - node.heard_at_us / US <= silent_after_s(node.last_sample.interval_ms / 1000)


def power_w(node: registry_pb2.Node) -> float | None:
    """The server's; else what its GPUs draw together, which is less."""
    sample = node.last_sample
    if sample.host.HasField("power_mw"):
        return sample.host.power_mw / 1000
    drawn = [gpu.power_mw for gpu in sample.gpus if gpu.HasField("power_mw")]
    return sum(drawn) / 1000 if drawn else None


def last_hour(told: usage_queries_pb2.QueryUsageResponse) -> LastHour:
    """Of what was asked by user."""
    total = told.total
    users = [
        ActiveUser(
            line.user_name or line.user_id,
            line.sums.requests,
            line.sums.prompt_tokens + line.sums.completion_tokens,
            line.sums.failed,
        )
        for line in told.lines
        if not line.rest
    ]
    return LastHour(
        users=tuple(users[:MOST_USERS]),
        requests=total.requests,
        tokens=total.prompt_tokens + total.completion_tokens,
        failed=total.failed,
        ttft_s=total.ttft_ms / total.answered / 1000 if total.answered else None,
        wait_s=total.queue_ms / total.requests / 1000 if total.requests else None,
        until=told.to_us / US,
    )


def _states(picture: Picture) -> tuple[StateCount, ...]:
    counted = Counter(backend.health for backend in picture.backends)
    return tuple(StateCount(state, tone(state), number) for state, number in counted.most_common())


def _part_kinds(parts: Sequence[status_pb2.StatusPart]) -> Iterable[PartKind]:
    for kind, group in groupby(parts, key=lambda part: part.kind):
        of_kind = list(group)
        well = [part for part in of_kind if part.state in (status_pb2.PART_STATE_OK, status_pb2.PART_STATE_STANDBY)]
        and_well = ""
        if len(well) > _MOST_WELL:
            words = Counter(part.word for part in well)
            told = ", ".join(f"{number} {name}" for name, number in words.most_common())
            and_well = f"{len(well)} of {len(of_kind)}: {told}"
            of_kind = [part for part in of_kind if part not in well]
        yield PartKind(kind, tuple(_part_row(part) for part in of_kind), and_well)


def _part_row(part: status_pb2.StatusPart) -> PartRow:
    return PartRow(
        name=part.name,
        word=part.word,
        tone=tone(word(part, "state") or "unknown"),
        since=part.since_us / US if part.HasField("since_us") else None,
        detail=part.detail,
        todo=part.todo,
    )
