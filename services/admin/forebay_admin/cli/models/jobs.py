"""`forebay model job`: orders about models that are under way or were, and the bars that show how they go."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from forebay.errors import ForebayError, NotFound, Unavailable
from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.cli.connection import Calls, ask
from forebay_admin.cli.output import json_option, print_json, print_table
from forebay_admin.cli.plain import plain, word
from forebay_admin.cli.words import age, coloured

_AWAY_S = 60.0
"""How long nobody may tell while a job is followed; a registry that restarts goes on with it."""
_LOOK_S = 1.0
_OVER = (wire.MODEL_JOB_STATE_DONE, wire.MODEL_JOB_STATE_FAILED, wire.MODEL_JOB_STATE_CANCELLED)


class _Amount(ProgressColumn):
    """How much of how much, and how fast, where bytes are counted at all."""

    def render(self, task: Task) -> Text:
        if not task.fields["counts"] or not task.total:
            return Text("")
        speed = task.finished_speed or task.speed or 0.0
        return Text(f"{task.completed / 1e9:.2f} of {task.total / 1e9:.2f} GB  {speed / 1e6:.0f} MB/s")


COLUMNS = (TextColumn("{task.description}"), BarColumn(), _Amount(), TextColumn("{task.fields[said]}"))
"""Of a bar."""


class Shows(Protocol):
    def show(self, job: wire.ModelJob) -> None: ...


@click.command("jobs")
@click.option("--all", "finished", is_flag=True, help="Also those that are over, for 30 days.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@json_option
def jobs(finished: bool, limit: int, as_json: bool) -> None:
    """List orders about models that are under way.

    With --json: a list of {"id", "action", "model", "actor", "state", "created_at", "ended_at", "targets": [{"backend",
    "state", "status", "completed_bytes", "total_bytes", "attempts", "error", "note", …}]}
    """

    async def work(calls: Calls) -> wire.ListModelJobsResponse:
        request = wire.ListModelJobsRequest(limit=limit, unfinished=not finished)
        return await calls(calls.stub.ListModelJobs, request)

    found = ask(work).jobs
    if as_json:
        print_json([plain(job) for job in found])
        return
    now = time.time()
    print_table(
        ("Id", "What", "Model", "State", "Backends", "By", "Begun"),
        (
            (
                job.id,
                word(job, "action") or "",
                escape(job.model),
                coloured(word(job, "state") or ""),
                escape(", ".join(target.backend for target in job.targets)),
                escape(job.actor),
                age(job.created_at_us, now),
            )
            for job in found
        ),
        nothing="No jobs." if finished else "No jobs are under way. Those that are over: forebay model jobs --all",
    )


@click.command("job")
@click.argument("job_id", metavar="ID")
@click.option("--follow", is_flag=True, help="Show how it goes until it is over.")
@json_option
def job(job_id: str, follow: bool, as_json: bool) -> None:
    """Show the job ID.

    With --json: the job as in `forebay model jobs --json`; with --follow too, one such object a line whenever it changes
    """
    if follow:
        finish(ask(lambda calls: watch(calls, job_id, as_json=as_json)), as_json=as_json)
        return

    async def work(calls: Calls) -> wire.ModelJob:
        async for found in calls.stream(calls.stub.FollowModelJob, wire.FollowModelJobRequest(id=job_id)):
            return found
        raise NotFound(f"There is no job {job_id}.")

    found = ask(work)
    if as_json:
        print_json(plain(found))
        return
    title = f"{word(found, 'action')} {found.model}: {word(found, 'state')}, by {found.actor}"
    click.echo(title)
    print_table(
        ("Backend", "State", "#Done", "#Attempts", "What it says"),
        (
            (escape(t.backend), coloured(word(t, "state") or ""), _share(t), str(t.attempts), escape(_said(t)))
            for t in found.targets
        ),
        nothing="It has no backends.",
    )


@click.command("cancel")
@click.argument("job_id", metavar="ID")
@json_option
def cancel(job_id: str, as_json: bool) -> None:
    """Cancel the job ID. What is done stays done; a pull that is cut off goes on there when it is ordered again.

    With --json: the job as in `forebay model jobs --json`
    """

    async def work(calls: Calls) -> wire.CancelModelJobResponse:
        return await calls(calls.stub.CancelModelJob, wire.CancelModelJobRequest(id=job_id))

    cancelled = ask(work).job
    if as_json:
        print_json(plain(cancelled))
        return
    states = ", ".join(f"{t.backend} {word(t, 'state')}" for t in cancelled.targets)
    click.echo(f"Job {cancelled.id} ({word(cancelled, 'action')} {cancelled.model}) is over: {states}.")


async def watch(calls: Calls, job_id: str, *, as_json: bool) -> wire.ModelJob:
    """Shows it until it is over: bars where there is a terminal, else a line for each change of a state, or JSON. The job
    goes on whoever looks away. Raises Unavailable when nobody has told of it for a while."""
    with _display(as_json=as_json) as display:
        request, last = wire.FollowModelJobRequest(id=job_id), wire.ModelJob()
        heard = time.monotonic()
        while last.state not in _OVER:
            try:
                async for last in calls.stream(calls.stub.FollowModelJob, request):
                    heard = time.monotonic()
                    display.show(last)
            except Unavailable:
                if time.monotonic() - heard > _AWAY_S:
                    raise
                await asyncio.sleep(_LOOK_S)
    return last


def finish(job: wire.ModelJob, *, as_json: bool) -> None:
    """The last word. Raises what makes the command end with a status other than zero."""
    failed = [target for target in job.targets if target.state == wire.MODEL_JOB_STATE_FAILED]
    if failed:
        raise ForebayError("\n".join(target.error for target in failed))
    if job.state == wire.MODEL_JOB_STATE_CANCELLED:
        raise ForebayError(f"Job {job.id} was cancelled.")
    if as_json:
        return
    where = ", ".join(target.backend for target in job.targets)
    click.echo(f"{(word(job, 'action') or '').capitalize()} {job.model}: done on {where}.")
    for target in job.targets:
        if said := _times(target) or target.note:
            click.echo(f"  {target.backend}: {said}")


class _Lines:
    """Where nobody watches, or into a file: what changed, once."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, str]] = {}

    def show(self, job: wire.ModelJob) -> None:
        for target in job.targets:
            now = target.state, target.error
            if self._told.get(target.backend) != now:
                self._told[target.backend] = now
                click.echo(f"{target.backend}: {word(target, 'state')} {_said(target)}".rstrip(), err=True)


class _Json:
    def show(self, job: wire.ModelJob) -> None:
        click.echo(json.dumps(plain(job), ensure_ascii=False))


class Bars:
    """One for each backend."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, job: wire.ModelJob) -> None:
        for target in job.targets:
            if target.backend_id not in self._tasks:
                self._tasks[target.backend_id] = self._progress.add_task(
                    escape(target.backend), total=None, said="", counts=False
                )
            total = target.total_bytes if target.HasField("total_bytes") else None
            if target.state in _OVER and total is None:
                total = 1
            self._progress.update(
                self._tasks[target.backend_id],
                total=total,
                counts=target.HasField("total_bytes"),
                completed=total if target.state == wire.MODEL_JOB_STATE_DONE else target.completed_bytes,
                said=f"{coloured(word(target, 'state') or '')} {escape(_said(target))}",
            )


@contextmanager
def _display(*, as_json: bool) -> Iterator[Shows]:
    if as_json:
        yield _Json()
    elif sys.stderr.isatty():
        with Progress(*COLUMNS, console=Console(stderr=True)) as progress:
            yield Bars(progress)
    else:
        yield _Lines()


def _said(target: wire.ModelJobTarget) -> str:
    return target.error or target.note or _times(target) or target.status


def _times(target: wire.ModelJobTarget) -> str:
    if not target.HasField("load_ms"):
        return ""
    loaded = f"loaded in {target.load_ms / 1000:.1f} s"
    if not target.HasField("warmup_ms"):
        return f"{loaded}; {target.note}"
    return f"{loaded}, first word after {target.warmup_ms / 1000:.1f} s"


def _share(target: wire.ModelJobTarget) -> str:
    if not target.HasField("total_bytes") or not target.total_bytes:
        return ""
    return f"{100 * target.completed_bytes / target.total_bytes:.0f} % of {target.total_bytes / 1e9:.1f} GB"
