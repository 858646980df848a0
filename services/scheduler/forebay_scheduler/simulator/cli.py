"""`forebay simulate`: what would happen if, in virtual time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from forebay_scheduler.simulator import comparing
from forebay_scheduler.simulator.comparing import POLICIES, Question
from forebay_scheduler.simulator.measures import Figures, measure
from forebay_scheduler.simulator.running import Run
from forebay_scheduler.simulator.workloads import WORKLOADS

_WORKLOAD_LINES = "\n".join(f"  {name:15} {(draw.__doc__ or '').splitlines()[0]}" for name, draw in WORKLOADS.items())


@click.command(
    short_help="Compare scheduling policies in virtual time.",
    help=f"""Compare scheduling policies on a workload, in virtual time.

The policy forebay is the scheduler itself: the same classes that run in the service, driven by a virtual clock. The others
are the rules of other systems, written anew. Engines are a model (continuous batching, chunked prefill, a KV pool, a prefix
cache), so numbers compare policies with each other; they do not predict your GPU.

\b
Workloads for --trace, drawn anew for each seed:
{_WORKLOAD_LINES}

\b
Or a trace file of your own:
  CSV             with a header: TIMESTAMP,ContextTokens,GeneratedTokens and, if you like, User,Model
  JSON lines      timestamp (ms), input_length, output_length, hash_ids (of 512-token blocks), user, model

\b
For example:
  forebay simulate --policy forebay --policy vtc --policy fcfs --seeds 12 --plot pictures
  forebay simulate --trace conversation --policy forebay --policy llm_d --policy dynamo --rate 1.25
  forebay simulate --trace requests.csv --engines 4 --rate 2 --json
""",
)
@click.option("--trace", "workload", default="arena", show_default=True, metavar="FILE|NAME", help="What is asked for.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice(POLICIES),
    help="Whom to compare; may be given more than once.  [default: forebay, fcfs and, where users compete, vtc]",
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Draws of the workload.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Of arrivals; of a file, as a multiple of its own."
)
@click.option("--engines", type=click.IntRange(1, 1000), help="How many.  [default: the workload's own; 8 for a file]")
@click.option(
    "--window", type=click.IntRange(0), metavar="TOKENS", help="Of locality, for forebay; 0 is strict fairness."
)
@click.option(
    "--plot", "directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Draw PNGs here."
)
@click.option("--processes", type=click.IntRange(1), help="At once.  [default: one for each core]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def simulate(
    workload: str,
    policies: Sequence[str],
    seeds: int,
    rate: float | None,
    engines: int | None,
    window: int | None,
    directory: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from forebay_scheduler.simulator import plots, tables

    if directory is not None:
        plots.load_pyplot()  # says what is missing before anything takes long
    first = Question(workload, "forebay", 0, rate, engines, window)
    drawn = comparing.draw_workload(first)
    chosen = list(dict.fromkeys(policies)) or ["forebay", "fcfs", "vtc" if drawn.is_about_fairness else "least_loaded"]
    questions = [Question(workload, policy, seed, rate, engines, window) for seed in range(seeds) for policy in chosen]
    for question in questions[: len(chosen)]:
        comparing.discipline(question, drawn)  # whoever cannot play says so now
    answers: dict[Question, Figures] = {}
    runs: dict[str, Run] = {}
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(f"{drawn.name}: {len(drawn.jobs)} requests × {len(questions)} runs", total=len(questions))
        drawing = questions[: len(chosen)] if directory is not None else []
        for number, question in enumerate(drawing):
            run = comparing.ask(question, lambda share, number=number: bar.update(task, completed=number + share))  # type: ignore[misc]
            runs[question.policy] = run
            answers[question] = measure(run)
            bar.update(task, completed=number + 1)
        rest = [question for question in questions if question not in answers]
        for question, measured in comparing.ask_all(rest, processes or os.cpu_count() or 1):
            answers[question] = measured
            bar.advance(task)
    figures = {policy: [answers[question] for question in questions if question.policy == policy] for policy in chosen}
    files = plots.draw(runs, directory, drawn.name) if directory is not None else []
    if as_json:
        told = {"workload": drawn.name, "requests": len(drawn.jobs), "runs": tables.summary(figures)}
        click.echo(json.dumps(told | {"plots": [str(file) for file in files]}))
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables.tables(drawn.name, figures, is_about_fairness=drawn.is_about_fairness):
        console.print(table)
    for file in files:
        console.print(f"drawn: {file}", soft_wrap=True)
