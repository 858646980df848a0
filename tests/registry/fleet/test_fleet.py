"""What watchers hear: no change is missed, nothing is told that is no news, and the slow get no queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from forebay_registry.backend import (
    ASSUMED_SLOTS,
    BackendId,
    Condition,
    Desired,
    EngineKind,
    Load,
    Model,
    Observed,
    Seen,
)
from forebay_registry.fleet import fleet as fleet_module
from forebay_registry.fleet.fleet import Difference, Fleet, View, apply, difference, view_of
from forebay_registry.wire import to_backend

WANTED = Desired(
    BackendId("be-1"), "one", "http://one:8000", None, "default", 0, None, changed_by="ada", changed_at=1.0
)


def view(number: int = 1, **changes: Any) -> View:
    wanted = replace(WANTED, id=BackendId(f"be-{number}"), name=f"b{number}")
    return replace(view_of(wanted, Observed(), has_credential=False), **changes)


def load(running: int, at: float = 0.0) -> Load:
    return Load(running, None, None, at)


def test_what_the_operator_said_goes_before_what_the_engine_says() -> None:
    seen = Observed(seen=Seen(EngineKind.LLAMACPP, 8, (Model("m"),)))
    plain = view_of(WANTED, seen, has_credential=True)
    assert (plain.kind, plain.slots, plain.models, plain.has_credential) == (
        EngineKind.LLAMACPP,
        8,
        (Model("m"),),
        True,
    )
    told = view_of(replace(WANTED, kind=EngineKind.OPENAI, slots=2), seen, has_credential=False)
    assert (told.kind, told.slots) == (EngineKind.OPENAI, 2)
    assert (plain.slots_assumed, told.slots_assumed) == (False, False)


def test_where_nobody_says_how_many_slots_there_are_the_most_to_try_is_told_as_such() -> None:
    assumed = view_of(WANTED, Observed(), has_credential=False)
    assert (assumed.slots, assumed.slots_assumed) == (ASSUMED_SLOTS, True)
    assert to_backend(assumed).slots_assumed
    heard = view_of(WANTED, Observed(seen=Seen(EngineKind.LLAMACPP, 2)), has_credential=False)
    assert difference(assumed, heard) is Difference.PRESSING


def test_a_look_that_found_nothing_new_is_no_news() -> None:
    told = view(checked_at=1.0, load=load(2, at=1.0))
    assert difference(told, replace(told, checked_at=3.0, load=load(2, at=3.0))) is Difference.NONE
    assert difference(told, replace(told, load=load(3, at=3.0))) is Difference.LOAD
    assert difference(told, replace(told, load=None)) is Difference.LOAD
    assert difference(told, replace(told, condition=Condition.HEALTHY)) is Difference.PRESSING
    assert difference(told, replace(told, models=(Model("new"),))) is Difference.PRESSING


def test_an_idle_engine_is_told_to_be_still_idle_now_and_then() -> None:
    fleet = Fleet()
    fleet.put(view(load=load(0, at=0.0)))
    heard = [at for at in range(1, 11) if fleet.put(view(load=load(0, at=float(at))))]
    assert heard == [4, 8]


def test_a_watcher_that_knows_nothing_gets_a_snapshot_and_one_that_is_up_to_date_gets_nothing() -> None:
    fleet = Fleet()
    fleet.put(view(1))
    snapshot = fleet.since(None)
    assert (snapshot.is_snapshot, snapshot.version, [v.name for v in snapshot.changed]) == (True, 1, ["b1"])
    nothing = fleet.since(snapshot.version)
    assert (nothing.changed, nothing.removed, nothing.is_snapshot) == ((), (), False)


def test_a_slow_watcher_hears_of_many_changes_at_once_each_in_its_newest_state() -> None:
    fleet = Fleet()
    fleet.put(view(1))
    fleet.put(view(2))
    known = fleet.version
    for slots in range(1, 100):
        fleet.put(view(1, slots=slots))
    fleet.remove(BackendId("be-2"))
    update = fleet.since(known)
    assert [v.slots for v in update.changed] == [99]
    assert update.removed == (BackendId("be-2"),)


def test_a_watcher_that_missed_more_removals_than_are_remembered_gets_a_snapshot() -> None:
    fleet = Fleet()
    fleet.put(view(0))
    known = fleet.version
    for number in range(1, fleet_module.REMOVALS_KEPT + 2):
        fleet.put(view(number))
        fleet.remove(BackendId(f"be-{number}"))
    assert fleet.since(known).is_snapshot
    assert not fleet.since(fleet.version - 1).is_snapshot


def untimed(views: dict[BackendId, View]) -> dict[BackendId, View]:
    """Without the times that are no news."""
    return {i: replace(v, checked_at=None, load=v.load and replace(v.load, measured_at=0.0)) for i, v in views.items()}


class Watching(RuleBasedStateMachine):
    """Three watchers of any speed, and any changes: whoever has caught up knows exactly the fleet that is."""

    @initialize()
    def begin(self) -> None:
        self.fleet = Fleet()
        self.real: dict[BackendId, View] = {}
        self.known: list[dict[BackendId, View]] = [{}, {}, {}]
        self.versions: list[int | None] = [None, None, None]
        self.kept = fleet_module.REMOVALS_KEPT
        fleet_module.REMOVALS_KEPT = 3

    def teardown(self) -> None:
        fleet_module.REMOVALS_KEPT = getattr(self, "kept", fleet_module.REMOVALS_KEPT)

    @rule(
        number=st.integers(0, 5),
        slots=st.integers(1, 3),
        condition=st.sampled_from(Condition),
        running=st.none() | st.integers(0, 2),
        at=st.floats(0, 100),
    )
    def put(self, number: int, slots: int, condition: Condition, running: int | None, at: float) -> None:
        now = view(
            number,
            slots=slots,
            condition=condition,
            checked_at=at,
            load=None if running is None else load(running, at),
        )
        before = self.fleet.version
        told = self.fleet.put(now)
        assert self.fleet.version == before + told
        self.real[now.id] = now

    @rule(number=st.integers(0, 5))
    def remove(self, number: int) -> None:
        backend_id = BackendId(f"be-{number}")
        assert self.fleet.remove(backend_id) == (self.real.pop(backend_id, None) is not None)

    @rule(watcher=st.integers(0, 2))
    def catch_up(self, watcher: int) -> None:
        update = self.fleet.since(self.versions[watcher])
        self.known[watcher] = apply(self.known[watcher], update)
        self.versions[watcher] = update.version
        assert untimed(self.known[watcher]) == untimed(self.real)

    @rule(watcher=st.integers(0, 2))
    def forget(self, watcher: int) -> None:
        self.known[watcher], self.versions[watcher] = {}, None

    @invariant()
    def a_delta_holds_only_what_changed(self) -> None:
        if not hasattr(self, "fleet"):
            return
        update = self.fleet.since(self.fleet.version)
        assert (update.is_snapshot, update.changed, update.removed) == (False, (), ())
        assert self.fleet.pressing_version <= self.fleet.version


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
