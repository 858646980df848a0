"""The states of a backend, told one by one, and then the whole machine searched for mistakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.backend import Condition
from forebay_registry.health.states import RULES, Cause, Facts, Limits, State, as_table, judge

WELL = Facts(looks=Condition.HEALTHY)
DEAD = Facts(looks=Condition.UNHEALTHY, looks_cause="refused", looks_reason="Nothing listens at gpu.")


def after(*facts: Facts, every_s: float = 10.0) -> State:
    state = State()
    for at, one in enumerate(facts):
        state = judge(state, one, at * every_s)
    return state


def test_a_backend_whose_looks_say_so_is_unknown_starting_healthy_or_unhealthy() -> None:
    assert after(Facts(looks=Condition.UNKNOWN)).condition is Condition.UNKNOWN
    loading = after(Facts(looks=Condition.STARTING, looks_reason="It loads."))
    assert (loading.condition, loading.cause, loading.reason) == (Condition.STARTING, Cause.LOADING, "It loads.")
    well = after(WELL)
    assert (well.condition, well.cause, well.reason) == (Condition.HEALTHY, Cause.ANSWERED, "")
    dead = after(WELL, DEAD)
    assert (dead.condition, dead.cause, dead.reason) == (Condition.UNHEALTHY, "refused", "Nothing listens at gpu.")


def test_one_that_is_dead_for_long_or_whose_node_is_silent_is_offline() -> None:
    assert after(replace(DEAD, down_s=299.0)).condition is Condition.UNHEALTHY
    assert after(replace(DEAD, down_s=300.0)).cause == Cause.LONG_DEAD
    silent = after(replace(DEAD, is_node_silent=True))
    assert (silent.condition, silent.cause) == (Condition.OFFLINE, Cause.NODE_SILENT)
    assert silent.reason == "Nothing listens at gpu. Its node is silent too."
    assert after(replace(WELL, is_node_silent=True)).condition is Condition.HEALTHY, (
        "it answers, whatever its agent does"
    )


def test_degraded_is_entered_at_one_level_and_left_at_another() -> None:
    failing = after(WELL, replace(WELL, failing=0.2))
    assert (failing.condition, failing.cause) == (Condition.DEGRADED, Cause.FAILING)
    assert failing.reason == "20% of the gateways' attempts there failed in the last minute."
    between = replace(WELL, failing=0.1)
    assert after(WELL, between).condition is Condition.HEALTHY
    still = judge(judge(failing, between, 40.0), between, 70.0)
    assert (still.condition, still.since) == (Condition.DEGRADED, 10.0)
    assert judge(still, replace(WELL, failing=0.05), 80.0).condition is Condition.HEALTHY


def test_slow_looks_and_a_full_host_degrade_a_full_cache_and_a_queue_saturate() -> None:
    assert after(WELL, replace(WELL, slow_s=2.0)).cause == Cause.SLOW
    assert after(WELL, replace(WELL, memory_used=0.97)).cause == Cause.LOW_MEMORY
    full = after(WELL, replace(WELL, kv_used=0.95))
    assert (full.condition, full.cause) == (Condition.SATURATED, Cause.CACHE_FULL)
    queue = after(WELL, replace(WELL, queued=0.5))
    assert (queue.condition, queue.cause) == (Condition.SATURATED, Cause.QUEUE)
    assert after(WELL, replace(WELL, kv_used=1.0, failing=1.0)).condition is Condition.DEGRADED, "the graver first"


def test_what_is_not_known_is_no_reason_to_leave_healthy() -> None:
    assert after(WELL, WELL).strains == frozenset()
    assert after(replace(WELL, kv_used=1.0), WELL, WELL, WELL).condition is Condition.HEALTHY


def test_a_saturated_backend_stays_so_for_a_while_unless_something_worse_comes() -> None:
    full = after(WELL, replace(WELL, kv_used=1.0))
    assert judge(full, WELL, 29.9).condition is Condition.SATURATED
    assert judge(full, WELL, 30.0).condition is Condition.HEALTHY
    assert judge(full, DEAD, 10.1).condition is Condition.UNHEALTHY


def test_an_order_empties_it_and_it_is_drained_when_nothing_runs_there() -> None:
    kept = replace(WELL, kept_empty="It is drained by ada.")
    busy = after(WELL, replace(kept, runs=True))
    assert (busy.condition, busy.cause, busy.reason) == (Condition.DRAINING, Cause.ORDER, "It is drained by ada.")
    assert after(WELL, kept).condition is Condition.DRAINING, "nobody knows whether something runs there"
    empty = judge(busy, replace(kept, runs=False), 20.0)
    assert (empty.condition, empty.cause) == (Condition.DRAINED, Cause.EMPTY)
    assert judge(empty, kept, 21.0).condition is Condition.DRAINED, "nothing new came since"
    assert judge(empty, replace(kept, runs=True), 21.0).condition is Condition.DRAINING
    assert after(WELL, replace(kept, is_maintenance=True)).cause == Cause.MAINTENANCE
    stopped = after(WELL, replace(DEAD, kept_empty="x", runs=True))
    assert (stopped.condition, stopped.cause) == (Condition.DRAINED, Cause.STOPPED), (
        "one that does not answer runs nothing"
    )
    assert judge(stopped, DEAD, 30.0).condition is Condition.UNHEALTHY, "and comes back only when looks say so"


def test_the_table_in_the_readme_is_the_machine() -> None:
    readme = Path("services/registry/README.md").read_text()
    assert as_table() in readme
    assert {rule.condition for rule in RULES} == set(Condition)


_shares = st.none() | st.floats(0, 2)
_facts = st.builds(
    Facts,
    looks=st.sampled_from([Condition.UNKNOWN, Condition.STARTING, Condition.HEALTHY, Condition.UNHEALTHY]),
    down_s=st.floats(0, 1000),
    is_node_silent=st.booleans(),
    failing=_shares,
    slow_s=_shares,
    memory_used=_shares,
    kv_used=_shares,
    queued=_shares,
    kept_empty=st.sampled_from(["", "An order."]),
    runs=st.none() | st.booleans(),
)


@given(st.lists(st.tuples(_facts, st.floats(0, 60)), max_size=30))
@settings(max_examples=30)
def test_whatever_happens_only_what_answers_and_is_not_kept_empty_takes_new_work(
    story: list[tuple[Facts, float]],
) -> None:
    state, now, limits = State(), 0.0, Limits()
    relieved: list[float] = []
    for facts, passed in story:
        before, now = state, now + passed
        state = judge(state, facts, now)
        takes = facts.looks is Condition.HEALTHY and not facts.kept_empty
        assert state.condition.takes_new == takes
        assert state.condition.is_emptied == bool(facts.kept_empty)
        if state.condition is not before.condition:
            assert state.since == now
            if before.condition in (Condition.DEGRADED, Condition.SATURATED) and takes:
                relieved.append(now - before.since)
        else:
            assert state.since == before.since
    assert all(stayed >= limits.dwell_s for stayed in relieved)
