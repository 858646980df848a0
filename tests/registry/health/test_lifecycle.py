"""One backend's life: what is told, remembered and kept of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from forebay.clock import ManualClock
from forebay_registry.backend import BackendId, Condition, Desired, Load, NodeId, Observed, Verdict
from forebay_registry.health.attempts import Tally
from forebay_registry.health.lifecycle import CHANGES_KEPT, Change, Lifecycle
from forebay_registry.health.order_book import Orders
from forebay_registry.health.orders import Drain, Scope, Window

ONE = BackendId("be-1")
GPU = Desired(ONE, "gpu", "http://gpu", None, "default", 4, NodeId("no-1"), "ada", 0.0)
START = 1_000_000.0


class Life:
    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.lifecycle = Lifecycle(self.clock)
        self.observed = Observed()
        self.news: list[BackendId] = []
        self.lifecycle.on_news = self.hear

    def hear(self, backend_ids: Iterable[BackendId]) -> None:
        self.news += backend_ids

    @property
    def verdict(self) -> Verdict:
        return self.lifecycle.verdict(GPU, self.observed)

    @property
    def condition(self) -> str:
        return str(self.verdict.condition)

    def look(self, condition: Condition, cause: str = "answered", reason: str = "", **more: object) -> Verdict:
        now = self.clock.now()
        self.observed = replace(
            self.observed,
            condition=condition,
            cause=cause,
            reason=reason,
            checked_at=now,
            **more,  # type: ignore[arg-type]
        )
        return self.verdict

    def story(self) -> list[tuple[str, str, str]]:
        return [(str(c.before), str(c.after), c.cause) for c in reversed(self.lifecycle.changes_of(ONE))]


def test_each_change_is_told_and_saved_once_with_its_cause_and_time() -> None:
    life = Life()
    assert life.verdict.condition is Condition.UNKNOWN
    life.look(Condition.HEALTHY)
    life.look(Condition.HEALTHY)
    life.clock.advance(10.0)
    dead = life.look(Condition.UNHEALTHY, "refused", "Nothing listens at gpu.")
    assert (dead.condition, dead.since, dead.cause) == (Condition.UNHEALTHY, START + 10.0, "refused")
    assert life.story() == [("unknown", "healthy", "answered"), ("healthy", "unhealthy", "refused")]
    assert list(life.lifecycle.untold) == list(life.lifecycle.unsaved) == list(reversed(life.lifecycle.changes_of(ONE)))
    assert life.lifecycle.changed.is_set()


def test_gateways_failures_degrade_and_fell_nothing() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    life.lifecycle.attempts.take("liar", 1, 1, [("be-1", Tally(failed=1000))], life.clock.monotonic())
    assert life.look(Condition.HEALTHY).condition is Condition.DEGRADED
    life.clock.advance(61.0)
    assert life.look(Condition.HEALTHY).condition is Condition.HEALTHY


def test_three_slow_looks_degrade_and_one_does_not() -> None:
    life = Life()
    for took_s, expected in ((2.5, "healthy"), (0.1, "healthy"), (2.5, "healthy"), (2.5, "healthy"), (2.5, "degraded")):
        life.clock.advance(2.0)
        assert life.look(Condition.HEALTHY, took_s=took_s).condition == expected


def test_a_full_host_degrades_and_a_silent_one_makes_a_dead_backend_offline() -> None:
    life = Life()
    life.lifecycle.hear_host(NodeId("no-1"), 100, 2, silent_after_s=150.0)
    assert life.look(Condition.HEALTHY).cause == "low_memory"
    assert life.look(Condition.UNHEALTHY, "refused").condition is Condition.UNHEALTHY
    life.clock.advance(140.0)
    meanwhile = life.verdict
    assert meanwhile.condition is Condition.UNHEALTHY, "its agent may tell of it less often"
    life.clock.advance(11.0)
    assert life.verdict.condition is Condition.OFFLINE


def test_an_engines_queue_saturates_by_its_slots() -> None:
    life = Life()
    waiting = Load(running=4, waiting=2, kv_used_fraction=None, measured_at=START)
    assert life.look(Condition.HEALTHY, load=waiting).condition is Condition.SATURATED
    life.clock.advance(30.0)
    assert life.look(Condition.HEALTHY, load=replace(waiting, waiting=1)).condition is Condition.SATURATED
    assert life.look(Condition.HEALTHY, load=replace(waiting, waiting=0)).condition is Condition.HEALTHY


def test_a_drain_is_over_when_the_scheduler_that_knows_of_it_holds_nothing_there() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    life.lifecycle.hear_held({"be-1": 0})
    life.clock.advance(1.0)
    life.lifecycle.orders.put_drain(Drain(Scope.BACKEND, "be-1", START, "ada", START + 60.0, is_forced=True))
    assert life.news[-1] == ONE
    draining = life.verdict
    assert (draining.condition, draining.drain_deadline, draining.drain_forced) == (
        Condition.DRAINING,
        START + 60.0,
        True,
    )
    assert draining.drain_reason == "It is drained by ada."
    life.lifecycle.hear_held({"be-1": 2})
    assert life.condition == "draining"
    life.lifecycle.hear_held({"be-1": 0})
    assert life.condition == "drained"
    life.clock.advance(60.0)
    assert life.condition == "drained", "no word of a scheduler undoes it"
    life.lifecycle.orders.lift_drain(Scope.BACKEND, "be-1")
    back = life.verdict
    assert (back.condition, back.is_draining) == (Condition.HEALTHY, False)


def test_without_a_scheduler_the_engines_own_count_says_that_it_is_empty() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    life.lifecycle.orders.put_drain(Drain(Scope.NODE, "no-1", START, "ada"))
    idle = Load(running=0, waiting=0, kv_used_fraction=None, measured_at=START + 1.0)
    life.clock.advance(2.0)
    assert life.look(Condition.HEALTHY, load=idle).condition is Condition.DRAINING, "counted too soon after the order"
    life.clock.advance(5.0)
    assert life.look(Condition.HEALTHY, load=replace(idle, running=1, measured_at=START + 6.0)).condition is (
        Condition.DRAINING
    )
    assert life.look(Condition.HEALTHY, load=replace(idle, measured_at=START + 6.0)).condition is Condition.DRAINED


def test_a_window_drains_alerts_nobody_and_ends_by_itself() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    window = Window("mw-1", Scope.POOL, "default", START + 10.0, START + 50.0, 0, "", "ada", START)
    life.lifecycle.orders.put_window(window)
    assert life.condition == "healthy"
    life.clock.advance(10.0)
    assert (life.verdict.cause, life.verdict.maintenance_until) == ("maintenance", START + 50.0)
    assert life.look(Condition.UNHEALTHY, "refused").condition is Condition.DRAINED
    assert all(change.in_maintenance for change in life.lifecycle.changes_of(ONE)[:2])
    life.clock.advance(41.0)
    assert life.condition == "unhealthy", "it comes back only when looks say so"
    assert life.lifecycle.orders.windows() == (window,), "what is over stays listed for a day"
    life.clock.advance(90_000.0)
    life.lifecycle.orders.windows()
    life.clock.advance(61.0)
    assert life.lifecycle.orders.windows() == ()


def test_a_restart_goes_on_from_what_was_stored() -> None:
    life = Life()
    falls = [
        Change(ONE, "gpu", START - 100.0 + at, before, after, "refused", "", in_maintenance=False)
        for at, before, after in (
            (0.0, Condition.HEALTHY, Condition.UNHEALTHY),
            (10.0, Condition.UNHEALTHY, Condition.HEALTHY),
            (20.0, Condition.HEALTHY, Condition.UNHEALTHY),
        )
    ]
    life.lifecycle.adopt_history({ONE: falls})
    stood = life.verdict
    assert (stood.condition, stood.since) == (Condition.UNHEALTHY, START - 80.0)
    assert life.story() == [(str(c.before), str(c.after), c.cause) for c in falls], "and that is no change"
    health = life.lifecycle.recall(ONE, life.clock.monotonic())
    assert health is not None
    assert (health.condition, len(health.falls)) == (Condition.UNHEALTHY, 2)
    life.look(Condition.HEALTHY)
    life.lifecycle.adopt_history({ONE: falls})
    assert life.verdict.condition is Condition.HEALTHY, "what is known here is newer"


def test_another_address_begins_anew_and_a_backend_that_is_gone_is_forgotten() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    life.lifecycle.begin_anew(ONE)
    life.observed = Observed()
    assert life.verdict.condition is Condition.UNKNOWN
    life.lifecycle.forget(ONE)
    assert life.lifecycle.changes_of(ONE) == ()
    assert life.lifecycle.recall(ONE, 0.0) is None


def test_only_the_last_changes_are_kept() -> None:
    life = Life()
    for _ in range(CHANGES_KEPT):
        life.look(Condition.HEALTHY)
        life.look(Condition.UNHEALTHY, "refused")
    assert len(life.lifecycle.changes_of(ONE)) == CHANGES_KEPT


def test_orders_are_adopted_whole() -> None:
    life = Life()
    drain = Drain(Scope.BACKEND, "be-1", START, "ada")
    life.lifecycle.orders.adopt(Orders((drain,), ()))
    assert life.verdict.is_draining
    assert life.lifecycle.orders.of(GPU) == Orders((drain,), ())
    life.lifecycle.orders.adopt(Orders())
    assert not life.verdict.is_draining


def test_what_one_that_stands_by_notes_is_nobodys_news_and_the_leaders_history_goes_before() -> None:
    life = Life()
    life.lifecycle.orders.put_drain(Drain(Scope.BACKEND, "be-1", START, "ada"))
    assert life.condition == "draining"
    life.lifecycle.stand_by()
    assert not life.lifecycle.untold
    assert not life.lifecycle.unsaved
    stored = Change(
        ONE, "gpu", START - 5.0, Condition.HEALTHY, Condition.UNHEALTHY, "refused", "", in_maintenance=False
    )
    life.lifecycle.adopt_history({ONE: [stored]})
    assert life.lifecycle.changes_of(ONE) == (stored,)


def test_what_is_held_on_backends_that_nobody_knows_is_not_remembered() -> None:
    life = Life()
    life.look(Condition.HEALTHY)
    life.news.clear()
    life.lifecycle.hear_held({"be-9": 1, "be-1": 2})
    life.lifecycle.hear_held({"be-9": 2, "be-1": 2})
    assert life.news == [ONE]
