"""Jobs, rests and what has to be looked after: all of it without a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forebay_registry.backend import BackendId, Condition, EngineKind, Model, Pool, Pull
from forebay_registry.fleet.required import missing
from forebay_registry.library.job import Action, Job, JobId, State, Target, begun, rest_s, resumed
from forebay_registry.library.store import Pin
from forebay_registry.library.upkeep import Need, Rests, to_load, to_pull
from tests.registry.library.views import view

W, R, D, F, C = State.WAITING, State.RUNNING, State.DONE, State.FAILED, State.CANCELLED


@pytest.mark.parametrize(
    ("states", "whole"),
    [((W, W), W), ((W, D), R), ((R, F), R), ((D, F), F), ((D, C), C), ((F, C), F), ((D, D), D)],
)
def test_a_job_is_what_its_targets_are(states: tuple[State, ...], whole: State) -> None:
    targets = tuple(Target(BackendId(str(n)), str(n), state) for n, state in enumerate(states))
    assert Job(JobId("j"), Action.PULL, "m", "ada", 0.0, targets).state is whole


def test_it_is_tried_three_times_with_longer_rests() -> None:
    assert [rest_s(n) for n in (1, 2, 3)] == [2.0, 8.0, None]


def test_an_attempt_that_a_restart_cut_off_does_not_count() -> None:
    running = begun(begun(Target(BackendId("b"), "b"), 1.0), 2.0)
    assert (running.attempts, running.started_at) == (2, 1.0)
    assert (resumed(running).state, resumed(running).attempts) == (W, 1)
    waiting = replace(running, state=W)
    assert resumed(waiting) == waiting


def test_what_a_pool_requires_and_a_backend_lacks_is_missing() -> None:
    has = (Model("a:latest"), Model("b:8b"))
    assert missing(("b", "a", "c"), has, Condition.HEALTHY) == ("b", "c")
    assert missing(("a",), (), Condition.UNKNOWN) == (), "of one that never told, nothing is known to be missing"
    assert missing(("a",), (), Condition.HEALTHY) == ("a",)


def test_missing_models_are_pulled_on_ollama_and_where_the_pool_says_so() -> None:
    pools = {"auto": Pool("auto", required_models=("m",)), "told": Pool("told", pull=Pull.NEVER)}
    views = [
        view("one", pool="auto", missing_models=("m",)),
        view("told", pool="told", missing_models=("m",)),
        view("vllm", pool="auto", missing_models=("m",), kind=EngineKind.VLLM),
        view("down", pool="auto", missing_models=("m",), condition=Condition.UNHEALTHY),
        view("nobodys", pool="other", missing_models=("m",)),
    ]
    assert [(need.view.name, need.model) for need in to_pull(views, pools)] == [("one", "m")]


def test_a_pinned_model_is_loaded_when_the_engine_says_that_it_is_not() -> None:
    views = [
        view("out", Model("m:latest", loaded=False)),
        view("in", Model("m", loaded=True)),
        view("untold", Model("m")),
        view("without", "other"),
    ]
    pins = [Pin(v.id, "m", 0.0, "ada") for v in views] + [Pin(BackendId("gone"), "m", 0.0, "ada")]
    assert [need.view.name for need in to_load(views, pins)] == ["out"]


def test_what_does_not_last_is_ordered_less_and_less_often_and_afresh_after_it_lasted() -> None:
    need, rests, now = Need(Action.PULL, "m", view("a")), Rests(), 1000.0
    waits = []
    for _ in range(9):
        began = now
        while not rests.may(need, now):
            now += 10.0
        waits.append(now - began)
        rests.ordered(need, now)
    assert waits == [0.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
    now += 3600.0 + 1000.0
    rests.ordered(need, now)
    assert rests.may(need, now + 60.0)


def test_what_never_lasts_is_ordered_every_hour_for_years() -> None:
    need, rests, now = Need(Action.PULL, "m", view("a")), Rests(), 1000.0
    for _ in range(1100):
        while not rests.may(need, now):
            now += 60.0
        rests.ordered(need, now)
    assert not rests.may(need, now + 3599.0)
