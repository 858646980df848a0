"""Many seeds and disciplines on the same workloads, on as many cores as one likes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from forebay.errors import CannotStart
from forebay_scheduler.simulator import workloads
from forebay_scheduler.simulator.discipline import Discipline
from forebay_scheduler.simulator.jobs import Workload
from forebay_scheduler.simulator.measures import Figures, measure
from forebay_scheduler.simulator.product import Product
from forebay_scheduler.simulator.routing_rules import (
    AnyEngine,
    BlockCost,
    EnginesInTurn,
    LeastLoaded,
    PrefixOnly,
    WeightedScores,
)
from forebay_scheduler.simulator.running import Run, simulate
from forebay_scheduler.simulator.trace_files import read_trace
from forebay_scheduler.simulator.turn_rules import (
    ChargedAtCompletion,
    FirstCome,
    FixedLimit,
    LongestPrefix,
    TokenCounters,
    Turns,
)

TURN_POLICIES: dict[str, Callable[[Random], Discipline]] = {
    "fcfs": lambda random: FirstCome(),
    "round_robin": lambda random: Turns(),
    "least_loaded": LeastLoaded,
    "wdrr": lambda random: ChargedAtCompletion(),
    "vtc": lambda random: TokenCounters(),
    "prefix_only": lambda random: LongestPrefix(),
    "llm_d": WeightedScores,
    "dynamo": BlockCost,
}
"""Where users compete. (`round_robin` takes users in turn.)"""
ROUTING_POLICIES: dict[str, Callable[[Random], Discipline]] = {
    "fcfs": lambda random: FirstCome(),
    "random": AnyEngine,
    "round_robin": EnginesInTurn,
    "least_loaded": LeastLoaded,
    "prefix_only": PrefixOnly,
    "llm_d": WeightedScores,
    "dynamo": BlockCost,
}
"""Where one crowd without names is placed. (`round_robin` takes engines in turn.)"""
POLICIES = ("forebay", *dict.fromkeys([*TURN_POLICIES, *ROUTING_POLICIES]))


@dataclass(frozen=True, slots=True)
class Question:
    """One run: what is asked, of which discipline, with which seed."""

    workload: str
    """A name of `workloads.WORKLOADS`, or a trace file."""
    policy: str
    seed: int
    rate: float | None = None
    """None: the workload's own."""
    engines: int | None = None
    window: int | None = None
    """Of locality, for ours; None: as it ships."""
    is_uneven: bool = False
    """A quarter of the engines are two and a half times slower."""


def ask(question: Question, on_progress: Callable[[float], None] | None = None) -> Run:
    workload = draw_workload(question)
    return simulate(workload, discipline(question, workload), on_progress)


def figures_of(question: Question) -> tuple[Question, Figures]:
    return question, measure(ask(question))


def draw_workload(question: Question) -> Workload:
    drawn = _draw(question)
    if question.is_uneven:
        return replace(drawn, engines=workloads.slowed(drawn.engines[0], len(drawn.engines)))
    return drawn


def _draw(question: Question) -> Workload:
    random = Random(question.seed)
    if question.workload in workloads.WORKLOADS:
        draw = workloads.WORKLOADS[question.workload]
        drawn = draw(random) if question.rate is None else draw(random, question.rate)
        if question.engines is not None:
            drawn = replace(
                drawn, engines=tuple(drawn.engines[n % len(drawn.engines)] for n in range(question.engines))
            )
        return drawn
    file = Path(question.workload)
    if not file.exists():
        known = ", ".join(sorted(workloads.WORKLOADS))
        raise CannotStart(f"{question.workload!r} is neither a file nor one of the workloads {known}.")
    return workloads.of_trace(read_trace(file, question.rate or 1.0), file.stem, question.engines or 8)


def discipline(question: Question, workload: Workload) -> Discipline:
    random = Random(question.seed + 1)
    if question.policy == "forebay":
        return Product(question.seed, window=question.window)
    if question.policy.startswith("fixed_"):
        return FixedLimit(int(question.policy.removeprefix("fixed_")))
    known = TURN_POLICIES if workload.is_about_fairness else ROUTING_POLICIES
    if question.policy not in known:
        raise CannotStart(
            f"{question.policy!r} says whose turn it is, and {workload.name} has no users to tell apart."
            f" Here there are: forebay, {', '.join(known)}."
        )
    return known[question.policy](random)


def ask_all(questions: Sequence[Question], processes: int) -> Iterator[tuple[Question, Figures]]:
    """In the order in which they are answered."""
    if processes <= 1 or len(questions) == 1:
        yield from map(figures_of, questions)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of whatever threads there are
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting = [pool.submit(figures_of, question) for question in questions]
        for done in as_completed(waiting):
            yield done.result()
