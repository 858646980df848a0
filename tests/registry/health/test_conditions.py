"""When a backend counts as healthy: the state machine, told and then searched for mistakes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_registry.backend import Condition
from forebay_registry.engines.outcome import Outcome
from forebay_registry.health.conditions import (
    FAILURES_TO_FALL,
    REFUSALS_TO_FALL,
    SUCCESSES_TO_RETURN,
    Breaker,
    Health,
    Rhythm,
    Thresholds,
    damping,
    doubt,
    next_look_s,
    recalled,
    step,
    successes_needed,
)

OK, REFUSED, SLOW, LOADS = Outcome.SUCCESS, Outcome.REFUSED, Outcome.TIMEOUT, Outcome.LOADING


def after(*outcomes: Outcome) -> Health:
    health = Health()
    for at, outcome in enumerate(outcomes):
        health = step(health, outcome, float(at))
    return health


def test_one_success_makes_an_unknown_backend_healthy() -> None:
    assert after().condition is Condition.UNKNOWN
    assert after(OK).condition is Condition.HEALTHY


def test_a_healthy_backend_falls_at_the_third_failure_in_a_row() -> None:
    assert after(OK, SLOW, SLOW).condition is Condition.HEALTHY
    assert after(OK, SLOW, SLOW, OK, SLOW, SLOW).condition is Condition.HEALTHY
    assert after(OK, SLOW, SLOW, SLOW).condition is Condition.UNHEALTHY


def test_two_refused_connections_are_enough() -> None:
    assert after(OK, REFUSED).condition is Condition.HEALTHY
    assert after(OK, REFUSED, REFUSED).condition is Condition.UNHEALTHY
    assert after(OK, REFUSED, SLOW).condition is Condition.HEALTHY


def test_an_unhealthy_backend_returns_after_two_successes_in_a_row() -> None:
    fallen = (OK, REFUSED, REFUSED)
    assert after(*fallen, OK).condition is Condition.UNHEALTHY
    assert after(*fallen, OK, SLOW, OK).condition is Condition.UNHEALTHY
    assert after(*fallen, OK, OK).condition is Condition.HEALTHY


def test_a_new_backend_that_never_answers_becomes_unhealthy_with_its_reason_not_unknown_for_ever() -> None:
    assert after(SLOW, SLOW).condition is Condition.UNKNOWN
    assert after(SLOW, SLOW, SLOW).condition is Condition.UNHEALTHY


def test_looks_come_often_in_doubt_and_seldom_after_long_death() -> None:
    def interval(health: Health, now: float) -> float:
        return round(next_look_s(health, now, jitter=0.5), 6)

    assert interval(after(OK), 100.0) == 2.0
    assert interval(after(OK, SLOW), 100.0) == 1.0
    assert interval(after(), 100.0) == 1.0
    dead = after(REFUSED, REFUSED)
    assert interval(dead, 2.0) == 1.0
    assert interval(dead, 1.0 + 30.0) == 5.0
    assert interval(dead, 10_000.0) == 10.0
    assert interval(step(dead, OK, 10_000.0), 10_000.0) == 1.0


def test_one_that_loads_is_starting_and_has_not_failed() -> None:
    assert after(LOADS).condition is Condition.STARTING
    assert after(LOADS, OK).condition is Condition.HEALTHY
    assert after(OK, LOADS).condition is Condition.STARTING, "it says itself that it cannot serve"
    assert after(SLOW, SLOW, LOADS, SLOW).condition is Condition.STARTING
    assert after(OK, REFUSED, REFUSED, LOADS).condition is Condition.STARTING
    assert after(OK, REFUSED, REFUSED, LOADS, OK).condition is Condition.STARTING, "one that fell needs two good looks"
    assert after(OK, REFUSED, REFUSED, LOADS, OK, OK).condition is Condition.HEALTHY


def test_one_that_loads_for_ever_is_unhealthy_until_it_has_loaded() -> None:
    limits = Thresholds(starting_s=100.0)
    health = step(Health(), LOADS, 0.0, limits)
    assert step(health, LOADS, 99.0, limits).condition is Condition.STARTING
    late = step(health, LOADS, 100.0, limits)
    assert late.condition is Condition.UNHEALTHY
    assert step(late, LOADS, 101.0, limits).condition is Condition.UNHEALTHY
    assert step(step(late, OK, 102.0, limits), OK, 103.0, limits).condition is Condition.HEALTHY


def test_a_gateways_failure_lets_one_failed_look_decide_and_one_good_look_clear_it() -> None:
    doubted = doubt(after(OK), is_refusal=True)
    assert (doubted.condition, doubted.breaker) == (Condition.HEALTHY, Breaker.HALF_OPEN)
    fallen = step(doubted, REFUSED, 1.0)
    assert (fallen.condition, fallen.breaker) == (Condition.UNHEALTHY, Breaker.OPEN)
    assert step(doubt(after(OK), is_refusal=False), SLOW, 1.0).condition is Condition.UNHEALTHY
    cleared = step(doubted, OK, 1.0)
    assert (cleared.condition, cleared.breaker) == (Condition.HEALTHY, Breaker.CLOSED)
    assert step(cleared, SLOW, 2.0).condition is Condition.HEALTHY
    assert step(fallen, OK, 2.0).breaker is Breaker.HALF_OPEN


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=20)
def test_no_number_of_lying_gateways_fells_a_backend_whose_looks_succeed(hints: list[bool]) -> None:
    health = after(OK)
    for at, is_refusal in enumerate(hints):
        for _ in range(5):
            health = doubt(health, is_refusal=is_refusal)
        assert health.condition is Condition.HEALTHY
        health = step(health, OK, float(at))
    assert health.condition is Condition.HEALTHY


def test_one_that_falls_again_and_again_has_to_succeed_for_longer_each_time_and_says_so() -> None:
    health, now, needed = Health(), 0.0, []
    for _ in range(6):
        while health.condition is not Condition.HEALTHY:
            now += 1.0
            health = step(health, OK, now)
        for _ in range(2):
            now += 1.0
            health = step(health, REFUSED, now)
        needed.append(successes_needed(health, now))
    assert needed == [2, 2, 4, 8, 16, 32]
    assert damping(health, now).startswith("It fell 6 times in 10 min, so it serves again after 32 good looks")
    assert successes_needed(health, now + 600.0) == 2, "what is long ago is forgiven"
    assert damping(health, now + 600.0) == ""


def test_what_was_known_before_a_restart_goes_on() -> None:
    assert recalled(Condition.SATURATED, (), 5.0) == Health(Condition.HEALTHY, 5.0)
    dead = recalled(Condition.OFFLINE, (4.0,), 5.0)
    assert (dead.condition, dead.falls) == (Condition.UNHEALTHY, (4.0,))
    assert step(dead, OK, 6.0).condition is Condition.UNHEALTHY
    assert recalled(Condition.DRAINED, (), 5.0).condition is Condition.UNKNOWN


@given(st.lists(st.sampled_from(Outcome), max_size=40))
def test_whatever_happens_the_condition_is_what_the_last_outcomes_say(outcomes: list[Outcome]) -> None:
    health = Health()
    for at, outcome in enumerate(outcomes):
        before = health.condition
        health = step(health, outcome, float(at))
        recent = outcomes[: at + 1]
        fell = len(recent) >= FAILURES_TO_FALL and {OK, LOADS}.isdisjoint(recent[-FAILURES_TO_FALL:])
        refused = len(recent) >= REFUSALS_TO_FALL and set(recent[-REFUSALS_TO_FALL:]) == {REFUSED}
        returned = set(recent[-SUCCESSES_TO_RETURN:]) == {OK}
        if health.condition is Condition.UNHEALTHY and before is not Condition.UNHEALTHY:
            assert fell or refused
        if health.condition is Condition.HEALTHY and before is Condition.UNHEALTHY:
            assert returned
        if fell or refused:
            assert health.condition is Condition.UNHEALTHY
        if outcome is OK:
            assert health.condition is not Condition.UNKNOWN
        if health.condition is not before:
            assert health.since == float(at)


@given(
    st.lists(st.sampled_from(Outcome), max_size=20),
    st.floats(0, 1e6),
    st.floats(0, 1),
)
def test_the_next_look_is_never_at_once_and_never_forgotten(
    outcomes: list[Outcome], later: float, jitter: float
) -> None:
    rhythm = Rhythm()
    seconds = next_look_s(after(*outcomes), len(outcomes) + later, jitter, rhythm)
    assert 0.9 * rhythm.doubt_s <= seconds <= 1.1 * rhythm.dead_s


def test_no_hint_keeps_one_out_that_answers() -> None:
    health = after(OK, REFUSED, REFUSED, LOADS)
    for at in range(4, 10):
        health = step(doubt(health, is_refusal=True), OK, float(at))
    assert health.condition is Condition.HEALTHY


def test_one_that_loads_for_ever_and_now_and_then_fails_a_look_is_unhealthy_in_the_end() -> None:
    health, ends = Health(), Thresholds().starting_s
    for at in range(0, int(ends) + 1, 10):
        health = step(health, SLOW if at % 600 == 300 else LOADS, float(at))
    assert health.condition is Condition.UNHEALTHY
    for at in range(3):
        health = step(health, REFUSED, ends + 1.0 + at)
    assert step(health, LOADS, ends + 10.0).condition is Condition.STARTING, "another start has its own time"
