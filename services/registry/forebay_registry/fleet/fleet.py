"""The fleet as others see it, and the changes that a watcher has not seen yet. Pure: facts in, versions and deltas out.

Each backend remembers the version at which it last changed. A watcher at version v gets whatever changed after v, in its
newest state: one that is slow gets fewer and larger updates, and nothing waits in a queue for it. Versions count within one
epoch, the lead of one registry, and a new epoch always opens with a snapshot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from types import MappingProxyType

from forebay_registry.backend import (
    ASSUMED_SLOTS,
    BackendId,
    Condition,
    Desired,
    EngineKind,
    Labels,
    Load,
    Model,
    ModelFacts,
    NodeId,
    Observed,
    Pool,
    Verdict,
)
from forebay_registry.fleet.model_facts import as_operators_say
from forebay_registry.fleet.model_names import Names, as_the_fleet_calls
from forebay_registry.fleet.required import missing

LOAD_REFRESH_S = 4.0
"""An unchanged load is told again when it is this much younger: whoever waits for an engine to agree that it is idle needs
to know that it still is, not only that it once was."""
EXPIRY_STEP_S = 60.0
REMOVALS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class View:
    """A backend: what is wanted and what is seen, joined."""

    id: BackendId
    name: str
    url: str
    kind: EngineKind | None
    pool: str
    node_id: NodeId | None
    slots: int
    slots_assumed: bool
    """Nobody said how many: `slots` is the most to try."""
    enabled: bool
    condition: Condition
    reason: str
    checked_at: float | None
    models: tuple[Model, ...]
    load: Load | None
    has_credential: bool
    model_names: Names = ()
    verdict: Verdict | None = None
    """What the condition rests on; None where only looks count."""
    missing_models: tuple[str, ...] = ()
    """That its pool requires and it does not have."""
    found_by: str = ""
    gpu_indices: tuple[int, ...] = ()
    weight_milli: int = 0
    """0: its slots."""
    kv_tokens: int | None = None
    requests_per_minute: int | None = None
    models_at_once: int | None = None
    labels: Labels = ()
    engine_version: str = ""


def view_of(
    desired: Desired,
    observed: Observed,
    *,
    has_credential: bool,
    verdict: Verdict | None = None,
    required: Collection[str] = (),
    facts: Mapping[str, ModelFacts] = MappingProxyType({}),
) -> View:
    """What the operator said goes before what the engine says. `required`: models that its pool demands. `facts`: what
    operators say of models, by name."""
    told_slots = desired.slots or observed.seen.slots
    kind = desired.kind or observed.seen.kind
    models = as_operators_say(as_the_fleet_calls(observed.seen.models, desired.model_names, kind), facts)
    return View(
        id=desired.id,
        name=desired.name,
        url=desired.url,
        kind=kind,
        pool=desired.pool,
        node_id=desired.node_id,
        slots=told_slots or ASSUMED_SLOTS,
        slots_assumed=not told_slots,
        enabled=desired.enabled,
        condition=observed.condition if verdict is None else verdict.condition,
        reason=observed.reason if verdict is None else verdict.reason,
        checked_at=observed.checked_at,
        models=models,
        load=observed.load,
        has_credential=has_credential,
        model_names=desired.model_names,
        verdict=verdict,
        missing_models=missing(required, models, observed.condition),
        gpu_indices=desired.gpu_indices,
        found_by=desired.found_by,
        weight_milli=desired.weight_milli,
        kv_tokens=desired.kv_tokens or observed.seen.kv_tokens,
        requests_per_minute=desired.requests_per_minute,
        models_at_once=desired.models_at_once or observed.seen.models_at_once,
        labels=desired.labels,
        engine_version=observed.seen.version,
    )


class Difference(IntEnum):
    """Between what was told of a backend and what is so now."""

    NONE = 0
    LOAD = 1
    """Only gauges: a watcher may hear of it a little later, together with others."""
    PRESSING = 2


def difference(told: View, now: View) -> Difference:
    """When it was last looked at is no news by itself: that would be a message per backend and probe."""
    if replace(told, checked_at=None, load=None) != replace(now, checked_at=None, load=None):
        return Difference.PRESSING
    if (told.load is None) != (now.load is None) or _has_new_expiry(told, now):
        return Difference.LOAD
    if told.load is None or now.load is None:
        return Difference.NONE
    is_refreshed = now.load.measured_at - told.load.measured_at >= LOAD_REFRESH_S
    return Difference.LOAD if told.load.numbers != now.load.numbers or is_refreshed else Difference.NONE


def _has_new_expiry(told: View, now: View) -> bool:
    """Of a model in memory, by more than a little: each use moves it. The models are the same here."""
    return any(
        (was.expires_at is None) != (new.expires_at is None)
        or (new.expires_at is not None and abs(new.expires_at - (was.expires_at or 0.0)) >= EXPIRY_STEP_S)
        for was, new in zip(told.models, now.models, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Update:
    version: int
    is_snapshot: bool
    """What is not in it is gone."""
    changed: tuple[View, ...]
    removed: tuple[BackendId, ...]
    pools: tuple[Pool, ...] | None = None
    """All that operators have described, by name; None: as they were."""


def apply(known: Mapping[BackendId, View], update: Update) -> dict[BackendId, View]:
    """The fleet as a watcher knows it after one more update."""
    fleet = {} if update.is_snapshot else {i: v for i, v in known.items() if i not in update.removed}
    return fleet | {view.id: view for view in update.changed}


@dataclass(slots=True)
class _Entry:
    now: View
    told: View
    version: int


class Fleet:
    def __init__(self) -> None:
        self.version = 0
        self.pressing_version = 0
        """The version of the last change that is more than gauges."""
        self._entries: dict[BackendId, _Entry] = {}
        self._removed: OrderedDict[BackendId, int] = OrderedDict()
        self._forgotten = 0
        """The version of the newest removal that is no longer remembered."""
        self._pools: tuple[Pool, ...] = ()
        self._pools_version = 0

    def views(self) -> tuple[View, ...]:
        """As of now, by name."""
        return tuple(sorted((entry.now for entry in self._entries.values()), key=lambda view: view.name))

    def get(self, backend_id: BackendId) -> View | None:
        entry = self._entries.get(backend_id)
        return entry.now if entry else None

    def put(self, view: View) -> bool:
        """Adds or changes a backend; whether watchers have something to hear."""
        entry = self._entries.get(view.id)
        kind = Difference.PRESSING if entry is None else difference(entry.told, view)
        if kind is not Difference.NONE:
            self._advance(kind)
            self._removed.pop(view.id, None)
            self._entries[view.id] = _Entry(view, view, self.version)
        elif entry is not None:
            entry.now = view
        return kind is not Difference.NONE

    def remove(self, backend_id: BackendId) -> bool:
        """Whether it was there."""
        if self._entries.pop(backend_id, None) is None:
            return False
        self._advance(Difference.PRESSING)
        self._removed[backend_id] = self.version
        while len(self._removed) > REMOVALS_KEPT:
            _, self._forgotten = self._removed.popitem(last=False)
        return True

    def put_pools(self, pools: Iterable[Pool]) -> bool:
        """These are all that operators have described; whether watchers have something to hear."""
        now = tuple(sorted(pools, key=lambda pool: pool.name))
        if now == self._pools:
            return False
        self._advance(Difference.PRESSING)
        self._pools, self._pools_version = now, self.version
        return True

    def since(self, version: int | None) -> Update:
        """What a watcher at `version` has to hear; None is one that knows nothing."""
        if version is None or version < self._forgotten:
            return Update(self.version, True, self.views(), (), self._pools)
        changed: Iterable[View] = (e.now for e in self._entries.values() if e.version > version)
        removed = (i for i, at in self._removed.items() if at > version)
        pools = self._pools if self._pools_version > version else None
        return Update(self.version, False, tuple(changed), tuple(removed), pools)

    def _advance(self, kind: Difference) -> None:
        self.version += 1
        if kind is Difference.PRESSING:
            self.pressing_version = self.version
