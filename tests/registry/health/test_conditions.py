"""When a backend counts as healthy: the state machine, told and then searched for mistakes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forebay_registry.backend import Condition
from forebay_registry.health.conditions import (
    FAILURES_TO_FALL,
    REFUSALS_TO_FALL,
    SUCCESSES_TO_RETURN,
    Health,
    Outcome,
    Rhythm,
    next_look_s,
    step,
)

OK, REFUSED, SLOW = Outcome.SUCCESS, Outcome.REFUSED, Outcome.TIMEOUT


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


@given(st.lists(st.sampled_from(Outcome), max_size=40))
def test_whatever_happens_the_condition_is_what_the_last_outcomes_say(outcomes: list[Outcome]) -> None:
    health = Health()
    for at, outcome in enumerate(outcomes):
        before = health.condition
        health = step(health, outcome, float(at))
        recent = outcomes[: at + 1]
        fell = len(recent) >= FAILURES_TO_FALL and OK not in recent[-FAILURES_TO_FALL:]
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
