"""Backends as a table that can be filtered and sorted, and what is known of one of them. Pure; None is what was not told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from forebay.wire.v1 import admin_pb2, discovery_pb2, fleet_pb2, lifecycle_pb2, registry_pb2, usage_queries_pb2
from forebay_admin.fleet.picture import BackendNow, picture
from forebay_admin.json_form import word
from forebay_admin.web.fleet.alerts_view import US
from forebay_admin.web.fleet.nodes_view import WindowRow, state_of, window_rows
from forebay_admin.web.fleet.states import MEANINGS, Machine, cause_in_words, machine, tone
from forebay_admin.web.words import count, percent, size, span

_NEVER_S = 366 * 86_400
"""A model that stays for longer than this was told to stay for ever."""


@dataclass(frozen=True, slots=True)
class Lately:
    """What the ledger says of a backend's last hour."""

    requests: int
    failed: int
    ttft_s: float | None
    duration_s: float | None

    @property
    def error_rate(self) -> float | None:
        return self.failed / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class BackendRow:
    name: str
    url: str
    state: str
    tone: str
    reason: str
    pool: str
    engine: str
    node: str
    models: tuple[str, ...]
    now: BackendNow
    checked_at: float | None
    load_at: float | None
    is_load_stale: bool
    has_credential: bool
    is_enabled: bool
    found_by: str
    missing: tuple[str, ...]
    slots_assumed: bool
    closed_because: str
    lately: Lately | None


@dataclass(frozen=True, slots=True)
class Filter:
    text: str = ""
    pool: str = ""
    state: str = ""
    sort: str = "name"
    is_descending: bool = False

    def query(self, **changed: object) -> str:
        """Of an address that asks for the same, but for what is said."""
        values = {
            "q": self.text,
            "pool": self.pool,
            "state": self.state,
            "sort": self.sort if self.sort != "name" else "",
            "desc": "1" if self.is_descending else "",
            **changed,
        }
        return urlencode({name: value for name, value in values.items() if value})

    def sorted_by(self, column: str) -> str:
        if column != self.sort:
            return ""
        return "descending" if self.is_descending else "ascending"

    def href(self, column: str) -> str:
        """Of the column's title: by it, and the other way round when it is so already."""
        turned = column == self.sort and not self.is_descending
        query = self.query(sort=column if column != "name" else "", desc="1" if turned else "")
        return f"/console/backends?{query}" if query else "/console/backends"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    title: str
    is_number: bool = False


COLUMNS = (
    Column("name", "Backend"),
    Column("state", "State"),
    Column("pool", "Pool"),
    Column("engine", "Engine"),
    Column("models", "Models"),
    Column("held", "Slots held", is_number=True),
    Column("running", "Inside", is_number=True),
    Column("errors", "Failed, 1 h", is_number=True),
    Column("ttft", "First token, 1 h", is_number=True),
)


@dataclass(frozen=True, slots=True)
class BackendsView:
    rows: tuple[BackendRow, ...]
    in_all: int
    pools: tuple[str, ...]
    states: tuple[str, ...]
    asked: Filter
    found: int | None
    """Engines that wait for somebody to adopt them; None: not known."""


def read_filter(query: Mapping[str, str]) -> Filter:
    """What makes no sense is left out: a link that somebody kept still leads to the page."""
    sort = query.get("sort", "name")
    return Filter(
        query.get("q", "").strip()[:100],
        query.get("pool", "").strip()[:100],
        query.get("state", "").strip()[:100],
        sort if any(column.name == sort for column in COLUMNS) else "name",
        query.get("desc", "") == "1",
    )


def backends_view(
    backends: Sequence[registry_pb2.Backend],
    nodes: Sequence[registry_pb2.Node] | None,
    queue: admin_pb2.ViewQueueResponse | None,
    lately: Mapping[str, Lately] | None,
    found: discovery_pb2.ListFoundBackendsResponse | None,
    asked: Filter,
) -> BackendsView:
    rows = backend_rows(backends, nodes, queue, lately)
    shown = sorted((row for row in rows if _fits(row, asked)), key=lambda row: row.name)
    shown.sort(key=_SORTS[asked.sort], reverse=asked.is_descending)
    return BackendsView(
        rows=tuple(shown),
        in_all=len(rows),
        pools=tuple(sorted({row.pool for row in rows})),
        states=tuple(sorted({row.state for row in rows})),
        asked=asked,
        found=_suggested(found) if found is not None else None,
    )


def backend_rows(
    backends: Sequence[registry_pb2.Backend],
    nodes: Sequence[registry_pb2.Node] | None,
    queue: admin_pb2.ViewQueueResponse | None,
    lately: Mapping[str, Lately] | None,
) -> list[BackendRow]:
    node_names = {node.id: node.name for node in nodes or ()}
    closed = {held.backend_id: held.closed_because for held in queue.queue.held} if queue is not None else {}
    now = {one.name: one for one in picture(queue, backends, None, None).backends}
    return [
        BackendRow(
            name=b.name,
            url=b.url,
            state=state_of(b),
            tone=tone(state_of(b)),
            reason=b.health_reason,
            pool=b.pool,
            engine=engine_in_words(b),
            node=node_names.get(b.node_id, b.node_id),
            models=tuple(model.name for model in b.models),
            now=now[b.name],
            checked_at=b.checked_at_us / US if b.HasField("checked_at_us") else None,
            load_at=b.load.measured_at_us / US if b.HasField("load") else None,
            is_load_stale=b.load.stale,
            has_credential=b.has_credential,
            is_enabled=b.enabled,
            found_by=b.found_by,
            missing=tuple(b.missing_models),
            slots_assumed=b.slots_assumed,
            closed_because=closed.get(b.id, ""),
            lately=lately.get(b.id) if lately is not None else None,
        )
        for b in backends
    ]


def engine_in_words(backend: registry_pb2.Backend) -> str:
    return f"{word(backend, 'kind') or 'not known yet'} {backend.engine_version}".strip()


def lately_by_backend(told: usage_queries_pb2.QueryUsageResponse) -> dict[str, Lately]:
    """By its id; of what was asked by backend."""
    return {line.backend_id: lately_of(line.sums) for line in told.lines if line.backend_id}


def lately_of(sums: usage_queries_pb2.UsageSums) -> Lately:
    return Lately(
        sums.requests,
        sums.failed,
        sums.ttft_ms / sums.answered / 1000 if sums.answered else None,
        sums.duration_ms / sums.requests / 1000 if sums.requests else None,
    )


def _fits(row: BackendRow, asked: Filter) -> bool:
    if (asked.pool and row.pool != asked.pool) or (asked.state and row.state != asked.state):
        return False
    wanted = asked.text.lower()
    return not wanted or any(wanted in text.lower() for text in (row.name, row.url, row.node, row.engine, *row.models))


_GRAVEST_FIRST = {"bad": 0, "warn": 1, "": 2, "info": 3, "good": 4}
_SORTS: Mapping[str, Callable[[BackendRow], Any]] = {
    "name": lambda row: row.name,
    "state": lambda row: (_GRAVEST_FIRST[row.tone], row.state),
    "pool": lambda row: row.pool,
    "engine": lambda row: row.engine,
    "models": lambda row: len(row.models),
    "held": lambda row: row.now.held or 0,
    "running": lambda row: (row.now.running or 0) + (row.now.waiting or 0),
    "errors": lambda row: (row.lately.error_rate or 0.0) if row.lately is not None else 0.0,
    "ttft": lambda row: (row.lately.ttft_s or 0.0) if row.lately is not None else 0.0,
}


def _suggested(found: discovery_pb2.ListFoundBackendsResponse) -> int:
    return sum(one.standing == discovery_pb2.FOUND_STANDING_SUGGESTED for one in found.found)


# --- one backend ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelOnBackend:
    name: str
    engine_name: str
    adapts: str
    in_memory: str
    context: int | None
    size: str
    kind: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HealthChangeRow:
    at: float
    before: str
    after: str
    tone: str
    cause: str
    reason: str
    in_maintenance: bool


@dataclass(frozen=True, slots=True)
class DrainRow:
    of: str
    since: float
    by: str
    deadline: float | None
    is_forced: bool
    reason: str


@dataclass(frozen=True, slots=True)
class BackendView:
    row: BackendRow
    meaning: str
    cause: str
    since: float | None
    why: tuple[str, ...]
    """Sentences: what is so, what keeps it from requests, and what can be done."""
    facts: tuple[tuple[str, str], ...]
    machine: Machine
    models: tuple[ModelOnBackend, ...]
    is_draining: bool
    is_drained_by_order: bool
    """By its own name, so that undraining it means something."""


@dataclass(frozen=True, slots=True)
class HealthView:
    changes: tuple[HealthChangeRow, ...]
    drains: tuple[DrainRow, ...]
    windows: tuple[WindowRow, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backend as it is wanted, field by field as a form has it."""

    fields: Mapping[str, str]
    is_declared: bool
    """The registry's configuration file says it."""


def backend_view(
    backend: registry_pb2.Backend,
    nodes: Sequence[registry_pb2.Node] | None,
    queue: admin_pb2.ViewQueueResponse | None,
    lately: Lately | None,
    health: lifecycle_pb2.ShowHealthResponse | None,
    now: float,
) -> BackendView:
    row = backend_rows([backend], nodes, queue, {backend.id: lately} if lately is not None else None)[0]
    drains = health.drains if health is not None else ()
    return BackendView(
        row=row,
        meaning=MEANINGS.get(row.state, ""),
        cause=cause_in_words(backend.health_cause) if backend.health_cause else "",
        since=backend.health_since_us / US if backend.health_since_us else None,
        why=tuple(_why(backend, row)),
        facts=tuple(_facts(backend, row)),
        machine=machine(row.state),
        models=tuple(_model(model, now) for model in backend.models),
        is_draining=backend.draining,
        is_drained_by_order=any(drain.name == backend.name and word(drain, "scope") == "backend" for drain in drains),
    )


def health_view(health: lifecycle_pb2.ShowHealthResponse, now: float) -> HealthView:
    return HealthView(
        changes=tuple(
            HealthChangeRow(
                change.at_us / US,
                word(change, "before") or "unknown",
                word(change, "after") or "unknown",
                tone(word(change, "after") or "unknown"),
                cause_in_words(change.cause),
                change.reason,
                change.in_maintenance,
            )
            for change in health.changes
        ),
        drains=tuple(
            DrainRow(
                f"{word(drain, 'scope') or ''} {drain.name}".strip(),
                drain.since_us / US,
                drain.by,
                drain.deadline_us / US if drain.HasField("deadline_us") else None,
                drain.force,
                drain.reason,
            )
            for drain in health.drains
        ),
        windows=window_rows(health.windows, now),
    )


def wanted_of(name: str, told: fleet_pb2.ExportFleetResponse) -> Wanted | None:
    """None: it is not in the wanted fleet, as one that was added by itself."""
    spec = next((one for one in told.fleet.backends if one.name == name), None)
    if spec is None:
        return None
    fields = {
        "url": spec.url,
        "kind": spec.kind,
        "pool": spec.pool,
        "node": spec.node,
        "gpus": ", ".join(str(index) for index in spec.gpu_indices),
        "slots": str(spec.slots) if spec.slots else "",
        "labels": "\n".join(f"{label}={value}" for label, value in sorted(spec.labels.items())),
        "weight": f"{spec.weight:g}" if spec.HasField("weight") else "",
        "kv_tokens": str(spec.kv_tokens) if spec.HasField("kv_tokens") else "",
        "requests_per_minute": str(spec.requests_per_minute) if spec.HasField("requests_per_minute") else "",
        "models_at_once": str(spec.models_at_once) if spec.HasField("models_at_once") else "",
    }
    return Wanted(fields, f"backends.{name}" in told.declared)


def _why(b: registry_pb2.Backend, row: BackendRow) -> Iterable[str]:
    """Nothing where all is well."""
    if not b.enabled:
        yield "An operator has switched it off: it gets no requests until it is enabled."
    if b.health_reason:
        yield b.health_reason
    if b.draining:
        yield b.drain_reason or "It is drained: nothing new is sent there."
    if row.closed_because:
        yield f"The scheduler sends it nothing now: {row.closed_because}"
    if b.missing_models:
        yield f"Its pool requires what it does not have: {', '.join(b.missing_models)}."
    if b.HasField("load") and b.load.stale:
        yield "Its engine has not told for a while how busy it is."
    if not b.models and row.state == "healthy":
        yield "It has no models, so nothing can be asked of it."
    advice = _ADVICE.get(b.health_cause)
    if advice and row.state in ("unhealthy", "offline", "starting", "degraded", "saturated"):
        yield advice


_ADVICE = {
    "refused": "See whether its engine runs and listens at that address, and whether a firewall is between.",
    "unreachable": "See whether the host is up, and whether its name and its network are right.",
    "timeout": "See whether its engine hangs: its log, its GPU's memory, its host's load.",
    "credential": "Give it the right key below, under Keys.",
    "status": "See its engine's log for the error that it answers with.",
    "bad_answer": "See whether that address is an engine's, and of the kind that is said here.",
    "loading": "Large models take minutes. After half an hour it counts as unhealthy.",
    "long_dead": "See whether its engine runs at all; it is looked at again and again, and comes back by itself.",
    "node_silent": "See the node first: its agent is silent too, so the whole host may be down.",
    "failing": "See its engine's log: requests that gateways send there fail.",
    "slow": "See what keeps its engine busy: its host's processors, or a model that is being loaded.",
    "low_memory": "See what takes its host's memory, before the system ends a process.",
    "cache_full": "Give it fewer slots, or another backend of the same models beside it.",
    "queue": "Give it fewer slots, so that requests wait in Forebay's fair queue and not inside the engine.",
    "flapping": "It comes and goes: see its engine's log for restarts.",
}


def _facts(b: registry_pb2.Backend, row: BackendRow) -> Iterable[tuple[str, str]]:
    load = b.load if b.HasField("load") and not b.load.stale else registry_pb2.EngineLoad()
    yield "Address", b.url
    yield "Engine", row.engine
    yield "Pool", b.pool
    yield "Node", row.node or "none: no agent watches its host"
    if row.node:
        yield "GPUs", ", ".join(map(str, b.gpu_indices)) or "all of the node's"
    yield "Slots", f"up to {b.slots}: nobody said how many, so Forebay finds out" if b.slots_assumed else str(b.slots)
    yield "Key", "it is called with one" if b.has_credential else "it is called without"
    if b.weight_milli:
        yield "Weight", f"{b.weight_milli / 1000:g}"
    if b.HasField("requests_per_minute"):
        yield "Requests a minute", f"{count(b.requests_per_minute)} at most"
    if b.HasField("kv_tokens"):
        yield "Cache", f"{count(b.kv_tokens)} tokens"
    if b.HasField("models_at_once"):
        yield "Models at once", count(b.models_at_once)
    if b.found_by:
        yield "Wanted by", f"nobody: added by itself, found by {_FINDERS.get(b.found_by, b.found_by)}"
    if b.labels:
        yield "Labels", ", ".join(f"{name}={value}" for name, value in sorted(b.labels.items()))
    if load.HasField("prefix_hit_fraction"):
        yield "Found in its cache", f"{percent(load.prefix_hit_fraction)} of the prompts"
    if load.HasField("ttft_s"):
        yield "First token inside", f"after {span(load.ttft_s)} on average"
    if load.HasField("queue_s"):
        yield "Wait inside", f"{span(load.queue_s)} on average"
    if load.HasField("swapped"):
        yield "Swapped out", count(load.swapped)
    if load.HasField("preemptions_per_s"):
        yield "Preemptions", f"{load.preemptions_per_s * 60:.1f} a minute"
    if load.running_loras:
        yield "Adapters in use", ", ".join(load.running_loras)


_FINDERS = {"agent": "its node's agent", "kubernetes": "Kubernetes"}


def _model(model: registry_pb2.BackendModel, now: float) -> ModelOnBackend:
    return ModelOnBackend(
        name=model.name,
        engine_name=model.engine_name,
        adapts=model.parent,
        in_memory=_residency(model, now),
        context=model.context_length if model.HasField("context_length") else None,
        size=_size(model),
        kind=" ".join(part for part in (model.family, model.parameter_size, model.quantization) if part),
        capabilities=tuple(model.capabilities),
    )


def _residency(model: registry_pb2.BackendModel, now: float) -> str:
    if not model.HasField("loaded"):
        return "not told"
    if not model.loaded:
        return "no"
    left_s = model.expires_at_us / US - now if model.HasField("expires_at_us") else 0.0
    if left_s > _NEVER_S:
        return "for ever"
    return f"until it is unused for {span(left_s)}" if left_s > 0 else "yes"


def _size(model: registry_pb2.BackendModel) -> str:
    if model.HasField("size_bytes"):
        on_gpu = ""
        if model.HasField("vram_bytes") and model.size_bytes:
            on_gpu = f", {percent(min(1.0, model.vram_bytes / model.size_bytes))} on GPU"
        return size(model.size_bytes) + on_gpu
    return f"{size(model.disk_bytes)} on disk" if model.HasField("disk_bytes") else ""


# --- what was found ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FoundRow:
    name: str
    standing: str
    tone: str
    engine: str
    node: str
    gpus: str
    url: str
    why_not: str
    gone_at: float | None
    can_be_adopted: bool


_STANDINGS = {
    "suggested": ("waits for somebody", "info"),
    "added": ("added by itself", "good"),
    "declared": ("a backend", ""),
    "turned_away": ("turned away", ""),
    "not_possible": ("cannot be reached", "bad"),
}


def found_rows(told: discovery_pb2.ListFoundBackendsResponse, node: str | None = None) -> tuple[FoundRow, ...]:
    """Those that wait first. `node`: only there."""
    rows = [_found_row(one) for one in told.found if node is None or one.node == node]
    return tuple(sorted(rows, key=lambda row: (not row.can_be_adopted, row.name)))


def _found_row(one: discovery_pb2.FoundBackend) -> FoundRow:
    standing, look = _STANDINGS.get(word(one, "standing") or "", ("not known", ""))
    engine, gpus = one.found_by, ""
    if one.HasField("engine"):
        told = [f"{word(one.engine, 'kind') or 'unknown'} {one.engine.version}".strip()]
        if one.engine.HasField("models"):
            told.append(f"{one.engine.models} model{'' if one.engine.models == 1 else 's'}")
        engine = ", ".join(told)
        gpus = ", ".join(map(str, one.engine.gpu_indices)) or ("none" if one.engine.gpus_known else "")
    can = discovery_pb2.FOUND_STANDING_SUGGESTED, discovery_pb2.FOUND_STANDING_ADDED, _TURNED_AWAY
    gone_at = one.gone_at_us / US if one.HasField("gone_at_us") else None
    is_there = bool(one.url) and gone_at is None
    return FoundRow(
        one.name,
        standing,
        look,
        engine,
        one.node,
        gpus,
        one.url,
        one.why_not,
        gone_at,
        one.standing in can and is_there,
    )


_TURNED_AWAY = discovery_pb2.FOUND_STANDING_TURNED_AWAY
