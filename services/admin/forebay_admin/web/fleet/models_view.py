"""Models: where each is and how, what is being done to them, what they are called, require and cost. Pure; None is what was
not told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from forebay.wire.v1 import admin_pb2, library_pb2, prices_pb2, registry_pb2
from forebay_admin.json_form import word
from forebay_admin.models.rule_words import effects, whose
from forebay_admin.web.fleet.alerts_view import US
from forebay_admin.web.fleet.nodes_view import state_of
from forebay_admin.web.fleet.states import tone
from forebay_admin.web.words import count, money

_BUSY = (library_pb2.MODEL_JOB_STATE_WAITING, library_pb2.MODEL_JOB_STATE_RUNNING)
_BRINGS = (library_pb2.MODEL_ACTION_PULL, library_pb2.MODEL_ACTION_PRELOAD)
_USUAL_TAG = ":latest"


# --- where models are -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A model on one backend."""

    backend: str
    state: str
    """resident, on disk, there (its engine does not tell), loading, or missing: its pool requires it."""
    tone: str
    is_pinned: bool
    is_required: bool
    detail: str
    backend_state: str
    backend_tone: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A model on one node: the places there, the most resident first."""

    places: tuple[Place, ...] = ()

    @property
    def state(self) -> str:
        return self.places[0].state if self.places else ""

    @property
    def tone(self) -> str:
        return self.places[0].tone if self.places else ""

    @property
    def mark(self) -> str:
        return MARKS.get(self.state, "")

    @property
    def is_pinned(self) -> bool:
        return any(place.is_pinned for place in self.places)

    @property
    def said(self) -> str:
        """For who points at it, or hears it."""
        return "; ".join(
            f"{place.backend}: {place.state}{', pinned' if place.is_pinned else ''}"
            f"{', required' if place.is_required and place.state != 'missing' else ''}"
            for place in self.places
        )


STATES = (
    ("loading", "info", "is being fetched or loaded"),
    ("resident", "good", "in memory"),
    ("there", "good", "the engine has it, and does not tell whether in memory"),
    ("on disk", "", "not in memory; it is loaded when it is asked for"),
    ("missing", "bad", "its pool requires it, and it is not there"),
)
"""Each with its tone and what it means; the first of those in a cell is shown."""
MARKS = {"resident": "●", "there": "◉", "on disk": "○", "loading": "◐", "missing": "✕"}
_RANK = {state: rank for rank, (state, _, _) in enumerate(STATES)}
_TONE = {state: look for state, look, _ in STATES}


@dataclass(frozen=True, slots=True)
class NodeColumn:
    name: str
    href: str
    is_backend: bool
    """It stands for a backend that is on no node of ours."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    name: str
    cells: tuple[Cell, ...]
    """By column."""
    backends: int
    healthy: int
    context: int | None
    capabilities: tuple[str, ...]
    size: int | None
    pools: tuple[str, ...]
    description: str
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Residency:
    columns: tuple[NodeColumn, ...]
    rows: tuple[ModelRow, ...]
    in_all: int


def residency(
    models: Sequence[registry_pb2.FleetModel],
    backends: Sequence[registry_pb2.Backend],
    nodes: Sequence[registry_pb2.Node] | None,
    jobs: Sequence[library_pb2.ModelJob] | None,
    pins: Sequence[library_pb2.ModelPin] | None,
    rules: admin_pb2.ListModelRulesResponse | None,
    pools: Sequence[admin_pb2.Pool] | None,
    text: str = "",
) -> Residency:
    """`text`: only models with that in their names or aliases."""
    node_names = {node.id: node.name for node in nodes or ()}
    columns = _columns(backends, node_names)
    places = _places(backends, jobs or (), pins or (), _required(pools or ()))
    facts = {model.name: model for model in models}
    aliases: dict[str, list[str]] = {}
    for alias in rules.aliases if rules is not None else ():
        aliases.setdefault(alias.model, []).append(alias.alias)
    of_column = {backend.name: _column_of(backend, node_names) for backend in backends}
    rows = []
    for name in sorted({*facts, *places}):
        known = facts.get(name, registry_pb2.FleetModel())
        by_column: dict[str, list[Place]] = {}
        for place in places.get(name, ()):
            by_column.setdefault(of_column[place.backend], []).append(place)
        rows.append(
            ModelRow(
                name=name,
                cells=tuple(
                    Cell(tuple(sorted(by_column.get(column.name, ()), key=lambda one: (_RANK[one.state], one.backend))))
                    for column in columns
                ),
                backends=len(known.backends),
                healthy=known.healthy_backends,
                context=known.context_length if known.HasField("context_length") else None,
                capabilities=tuple(known.capabilities),
                size=known.size_bytes if known.HasField("size_bytes") else None,
                pools=tuple(known.pools),
                description=known.description,
                aliases=tuple(sorted(aliases.get(name, ()))),
            )
        )
    wanted = text.strip().lower()
    shown = [row for row in rows if not wanted or any(wanted in one.lower() for one in (row.name, *row.aliases))]
    return Residency(columns, tuple(shown), len(rows))


def places_of(
    model: str,
    backends: Sequence[registry_pb2.Backend],
    jobs: Sequence[library_pb2.ModelJob] | None,
    pins: Sequence[library_pb2.ModelPin] | None,
    pools: Sequence[admin_pb2.Pool] | None,
) -> tuple[Place, ...]:
    found = _places(backends, jobs or (), pins or (), _required(pools or ())).get(model, [])
    return tuple(sorted(found, key=lambda place: (_RANK[place.state], place.backend)))


def _columns(backends: Sequence[registry_pb2.Backend], node_names: Mapping[str, str]) -> tuple[NodeColumn, ...]:
    on_nodes = sorted({_column_of(b, node_names) for b in backends if b.node_id})
    alone = sorted(b.name for b in backends if not b.node_id)
    return (
        *(NodeColumn(name, f"/console/nodes/{name}", is_backend=False) for name in on_nodes),
        *(NodeColumn(name, f"/console/backends/{name}", is_backend=True) for name in alone if name not in on_nodes),
    )


def _column_of(backend: registry_pb2.Backend, node_names: Mapping[str, str]) -> str:
    return node_names.get(backend.node_id, backend.node_id) if backend.node_id else backend.name


def _required(pools: Iterable[admin_pb2.Pool]) -> dict[str, frozenset[str]]:
    return {pool.terms.pool: frozenset(pool.described.required_models) for pool in pools}


def _places(
    backends: Iterable[registry_pb2.Backend],
    jobs: Iterable[library_pb2.ModelJob],
    pins: Iterable[library_pb2.ModelPin],
    required: Mapping[str, frozenset[str]],
) -> dict[str, list[Place]]:
    coming = {
        (_plain(job.model), target.backend)
        for job in jobs
        if job.action in _BRINGS
        for target in job.targets
        if target.state in _BUSY
    }
    pinned = {(_plain(pin.model), pin.backend) for pin in pins}
    found: dict[str, list[Place]] = {}

    def put(backend: registry_pb2.Backend, name: str, state: str, detail: str = "") -> None:
        place = _plain(name), backend.name
        health = state_of(backend)
        is_required = name in required.get(backend.pool, ()) or state == "missing"
        now = "loading" if place in coming and state != "resident" else state
        found.setdefault(name, []).append(
            Place(backend.name, now, _TONE[now], place in pinned, is_required, detail, health, tone(health))
        )

    for backend in backends:
        has = {_plain(model.name) for model in backend.models}
        for model in backend.models:
            state = "there" if not model.HasField("loaded") else "resident" if model.loaded else "on disk"
            put(backend, model.name, state, model.quantization)
        for name in backend.missing_models:
            if _plain(name) not in has:
                put(backend, name, "missing")
                has.add(_plain(name))
        for name, on in sorted(coming):
            if on == backend.name and name not in has:
                put(backend, name, "missing")
    return found


def _plain(model: str) -> str:
    """Ollama says the usual tag, and people do not."""
    return model.removesuffix(_USUAL_TAG)


# --- orders about models ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TargetRow:
    backend: str
    state: str
    tone: str
    done: int | None
    total: int | None
    said: str
    attempts: int
    is_failed: bool


@dataclass(frozen=True, slots=True)
class JobRow:
    id: str
    action: str
    model: str
    destination: str
    state: str
    tone: str
    by: str
    began_at: float
    ended_at: float | None
    targets: tuple[TargetRow, ...]

    @property
    def is_over(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def done(self) -> int | None:
        told = [target.done for target in self.targets if target.total]
        return sum(one or 0 for one in told) if told else None

    @property
    def total(self) -> int | None:
        told = [target.total for target in self.targets if target.total]
        return sum(told) if told else None


def job_rows(jobs: Sequence[library_pb2.ModelJob]) -> tuple[JobRow, ...]:
    """Those under way first, then the newest."""
    rows = [job_row(job) for job in jobs]
    return tuple(sorted(rows, key=lambda row: (row.is_over, -row.began_at)))


def job_row(job: library_pb2.ModelJob) -> JobRow:
    state = word(job, "state") or "waiting"
    return JobRow(
        id=job.id,
        action=word(job, "action") or "",
        model=job.model,
        destination=job.destination,
        state=state,
        tone=tone(state),
        by=job.actor,
        began_at=job.created_at_us / US,
        ended_at=job.ended_at_us / US if job.HasField("ended_at_us") else None,
        targets=tuple(_target_row(target) for target in job.targets),
    )


def _target_row(target: library_pb2.ModelJobTarget) -> TargetRow:
    state = word(target, "state") or "waiting"
    return TargetRow(
        backend=target.backend,
        state=state,
        tone=tone(state),
        done=target.completed_bytes if target.HasField("completed_bytes") else None,
        total=target.total_bytes if target.HasField("total_bytes") else None,
        said=target.error or target.note or _times(target) or target.status,
        attempts=target.attempts,
        is_failed=state == "failed",
    )


def _times(target: library_pb2.ModelJobTarget) -> str:
    if not target.HasField("load_ms"):
        return ""
    loaded = f"loaded in {target.load_ms / 1000:.1f} s"
    if not target.HasField("warmup_ms"):
        return loaded
    return f"{loaded}, first word after {target.warmup_ms / 1000:.1f} s"


# --- names, rules, stand-ins, what pools require ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleRow:
    whose: str
    scope: str
    of: str
    effects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FallbackRow:
    model: str
    pool: str
    others: tuple[str, ...]
    order: str
    after_s: float | None


@dataclass(frozen=True, slots=True)
class AliasRow:
    alias: str
    model: str
    pool: str


@dataclass(frozen=True, slots=True)
class RulesView:
    aliases: tuple[AliasRow, ...]
    rules: tuple[RuleRow, ...]
    fallbacks: tuple[FallbackRow, ...]


@dataclass(frozen=True, slots=True)
class PoolRow:
    name: str
    required: tuple[str, ...]
    pull: str
    backends: int | None


@dataclass(frozen=True, slots=True)
class PinRow:
    model: str
    backend: str
    is_loaded: bool | None
    by: str
    at: float


def rules_view(told: admin_pb2.ListModelRulesResponse) -> RulesView:
    return RulesView(
        tuple(AliasRow(one.alias, one.model, one.pool) for one in told.aliases),
        tuple(RuleRow(whose(one.scope), *_scope(one.scope), tuple(effects(one))) for one in told.rules),
        tuple(
            FallbackRow(
                one.model,
                one.pool,
                tuple(one.others),
                word(one, "order") or "listed",
                one.after_ms / 1000 if one.HasField("after_ms") else None,
            )
            for one in told.fallbacks
        ),
    )


def pool_rows(pools: Sequence[admin_pb2.Pool]) -> tuple[PoolRow, ...]:
    return tuple(
        PoolRow(
            pool.terms.pool,
            tuple(pool.described.required_models),
            pool.described.pull or "auto",
            pool.backends if pool.HasField("backends") else None,
        )
        for pool in pools
    )


def pin_rows(pins: Sequence[library_pb2.ModelPin]) -> tuple[PinRow, ...]:
    rows = [
        PinRow(
            pin.model, pin.backend, pin.loaded if pin.HasField("loaded") else None, pin.pinned_by, pin.pinned_at_us / US
        )
        for pin in pins
    ]
    return tuple(sorted(rows, key=lambda row: (row.model, row.backend)))


def _scope(scope: admin_pb2.ModelRuleScope) -> tuple[str, str]:
    match scope.WhichOneof("of"):
        case "pool":
            return "pool", scope.pool
        case "model":
            return "model", scope.model
        case "key_id":
            return "key", scope.key_id
    return "everyone", ""


# --- what they cost ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PriceRow:
    id: str
    model: str
    starts_at: float
    """0: always."""
    state: str
    tone: str
    prompt: str
    cached: str
    completion: str
    others: tuple[str, ...]
    by: str

    @property
    def can_be_cancelled(self) -> bool:
        return self.state == "to come"


@dataclass(frozen=True, slots=True)
class WeightRow:
    model: str
    weight: str


def price_rows(prices: Sequence[prices_pb2.PriceVersion], now: float) -> tuple[PriceRow, ...]:
    return tuple(_price_row(price, now) for price in prices)


def weight_rows(terms: Sequence[admin_pb2.ModelPolicy]) -> tuple[WeightRow, ...]:
    return tuple(WeightRow(one.model, f"{(one.weight_milli or 1000) / 1000:g}") for one in terms)


def _price_row(price: prices_pb2.PriceVersion, now: float) -> PriceRow:
    terms = price.terms
    if price.in_force:
        state, look = "in force", "good"
    else:
        state, look = ("to come", "info") if price.starts_at_us / US > now else ("over", "")
    has = price.HasField("terms")
    cached = terms.cached_prompt_micros if terms.HasField("cached_prompt_micros") else terms.prompt_micros
    return PriceRow(
        id=price.id,
        model=price.model,
        starts_at=max(0.0, price.starts_at_us / US),
        state=state,
        tone=look,
        prompt=money(terms.prompt_micros) if has else "no price",
        cached=money(cached) if has else "",
        completion=money(terms.completion_micros) if has else "",
        others=tuple(_others(terms)) if has else (),
        by=price.created_by,
    )


def _others(terms: prices_pb2.PriceTerms) -> Iterable[str]:
    for micros, what in (
        (terms.request_micros, "a request"),
        (terms.image_micros, "an image"),
        (terms.audio_second_micros, "a second of sound"),
    ):
        if micros:
            yield f"{money(micros)} {what}"
    for tier in terms.tiers:
        cached = tier.cached_prompt_micros if tier.HasField("cached_prompt_micros") else tier.prompt_micros
        yield (
            f"prompts from {count(tier.from_prompt_tokens)} tokens: {money(tier.prompt_micros)}, cached {money(cached)},"
            f" completion {money(tier.completion_micros)}"
        )
    if terms.HasField("hardware"):
        own = terms.hardware
        yield f"{money(own.gpu_hour_micros)} a GPU-hour ({own.gpus or 1} GPUs shared by {own.shared_by or 1})"
        if own.kwh_micros:
            yield f"{money(own.kwh_micros)} a kWh at {own.gpu_watts} W"


# --- one model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """What an engine says of a model."""

    backend: str
    error: str
    engine_name: str
    family: str
    parameter_size: str
    quantization: str
    format: str
    context: int | None
    capabilities: tuple[str, ...]
    parameters: str
    template: str
    system: str
    license: str
    modified_at: str


@dataclass(frozen=True, slots=True)
class ModelView:
    name: str
    is_known: bool
    """The fleet has it, or somebody says something of it."""
    facts: tuple[tuple[str, str], ...] = ()
    places: tuple[Place, ...] = ()
    said: tuple[Said, ...] = ()
    aliases: tuple[AliasRow, ...] = ()
    prices: tuple[PriceRow, ...] = ()
    fallbacks: tuple[FallbackRow, ...] = field(default_factory=tuple)


def model_facts(model: registry_pb2.FleetModel) -> Iterable[tuple[str, str]]:
    yield "Pools", ", ".join(model.pools)
    yield "Backends", f"{model.healthy_backends} of {len(model.backends)} are well"
    if model.HasField("context_length"):
        yield "Context", f"{count(model.context_length)} tokens{_by(model, 'context_length')}"
    if model.capabilities:
        yield "Can", ", ".join(model.capabilities) + _by(model, "capabilities")
    if model.quantization:
        yield "Quantised", model.quantization + _by(model, "quantization")
    if model.HasField("size_bytes"):
        yield "Size in memory", f"{model.size_bytes / 1e9:,.1f} GB{_by(model, 'size_bytes')}"
    if model.description:
        yield "Description", model.description


def said_rows(told: library_pb2.DescribeModelResponse) -> tuple[Said, ...]:
    return tuple(
        Said(
            one.backend,
            one.error,
            one.engine_name,
            one.family,
            one.parameter_size,
            one.quantization,
            one.format,
            one.context_length if one.HasField("context_length") else None,
            tuple(one.capabilities),
            one.parameters,
            one.template,
            one.system,
            one.license,
            one.modified_at,
        )
        for one in told.models
    )


def _by(model: registry_pb2.FleetModel, field_name: str) -> str:
    return ", as an operator says" if field_name in model.declared else ""
