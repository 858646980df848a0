"""Models on the engines, ordered by operators: passed on in their names, audited, and shown by the commands."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from rich.progress import Progress

from forebay.errors import ForebayError, NotFound, Unavailable
from forebay.launch import cli
from forebay.wire.v1 import library_pb2 as wire
from forebay_admin.cli.models import jobs as model_jobs
from forebay_admin.cli.models.jobs import COLUMNS, Bars
from forebay_admin.people.people import Role
from tests.admin.replica import Running
from tests.admin.test_operator import query, refused, somebody

Invoke = Callable[..., Awaitable[Result]]


@pytest.fixture
async def forebay(admin: Running) -> Invoke:
    """`await forebay("model", "jobs")`, as the first admin, with two backends there."""
    operator = await admin.operator()
    for number, name in enumerate(("one", "two")):
        await operator.RegisterBackend(name=name, url=f"http://127.0.0.1:{number + 1}")

    async def invoke(*words: str) -> Result:
        environment = {"FOREBAY_ADMIN": admin.grpc_address, "FOREBAY_TOKEN": admin.site.first_key}
        return await asyncio.to_thread(CliRunner().invoke, cli, words, None, environment)

    return invoke


async def acts(admin: Running) -> list[tuple[str, str, str, Any, Any]]:
    rows = await query(
        admin,
        "SELECT actor, action, subject, before, after FROM admin.audit_log WHERE action LIKE 'model%' ORDER BY id",
    )
    return [
        (r["actor"], r["action"], r["subject"], *(json.loads(r[c]) if r[c] else None for c in ("before", "after")))
        for r in rows
    ]


async def test_an_order_goes_to_the_registry_with_the_operators_name_and_is_audited(admin: Running) -> None:
    operator = await somebody(admin, "dana", Role.OPERATOR)
    await operator.RegisterBackend(name="one", url="http://127.0.0.1:1")
    on = wire.BackendChoice(backends=["one"])
    begun = await operator.StartModelJob(
        actor="somebody else", action=wire.MODEL_ACTION_DELETE, model="tiny:latest", on=on
    )
    await operator.StartModelJob(action=wire.MODEL_ACTION_PULL, model="llama", on=on, force=True)
    await operator.PinModel(model="tiny", on=on)
    await operator.PinModel(model="tiny", on=on, undo=True)
    await operator.CancelModelJob(id=begun.job.id)
    library = admin.site.library
    assert [order.actor for order in library.orders] + library.actors == ["dana"] * 5
    assert await acts(admin) == [
        (
            "dana",
            "model.delete",
            "tiny:latest",
            {"backends_with_it": ["one"]},
            {"job": "mj-1", "backends": ["one"]},
        ),
        (
            "dana",
            "model.pull",
            "llama",
            {"backends_with_it": []},
            {"job": "mj-2", "backends": ["one"], "force": True},
        ),
        ("dana", "model.pin", "tiny", {"pinned_on": []}, {"pinned_on": ["one"]}),
        ("dana", "model.unpin", "tiny", {"pinned_on": ["one"]}, {"pinned_on": []}),
        ("dana", "model_job.cancel", "mj-1", None, {"backends": ["one=cancelled"]}),
    ]
    told = await refused(
        operator.StartModelJob(action=wire.MODEL_ACTION_PULL, model="x", on=wire.BackendChoice(backends=["nobody"]))
    )
    assert told == "NOT_FOUND: There is no backend 'nobody'."


async def test_a_pull_is_followed_to_its_end_and_ends_with_what_failed(forebay: Invoke, admin: Running) -> None:
    done = await forebay("model", "pull", "llama", "--all")
    assert done.exit_code == 0, done.output
    assert "Pull llama: done on one, two." in done.stdout
    assert "Passed over: vllm is vLLM, which cannot pull models." in done.output
    assert "one: running pulling" in done.output
    lines = [json.loads(line) for line in (await forebay("model", "pull", "x", "--all", "--json")).stdout.splitlines()]
    assert [(line["state"], line["targets"][0]["completed_bytes"]) for line in lines] == [
        ("running", None),
        ("done", 100),
    ]
    admin.site.library.error = "one says: no space left on device"
    failed = await forebay("model", "pull", "llama", "--backend", "one")
    assert isinstance(failed.exception, ForebayError)
    assert str(failed.exception) == "one says: no space left on device"


async def test_a_job_goes_on_without_its_command_and_is_found_again(forebay: Invoke, admin: Running) -> None:
    admin.site.library.never_ends = True
    begun = await forebay("model", "pull", "llama", "--backend", "one", "--detach", "--json")
    job_id = json.loads(begun.stdout)["id"]
    listed = await forebay("model", "jobs")
    assert [word for word in (job_id, "pull", "llama", "one", "running") if word not in listed.output] == []
    shown = await forebay("model", "job", job_id)
    assert "pull llama: running, by admin" in shown.output
    admin.site.library.never_ends = False
    followed = await forebay("model", "job", job_id, "--follow")
    assert "Pull llama: done on one." in followed.output
    assert "No jobs are under way" in (await forebay("model", "jobs")).output
    assert [j["id"] for j in json.loads((await forebay("model", "jobs", "--all", "--json")).stdout)] == [job_id]
    cancelled = await forebay("model", "cancel", job_id)
    assert cancelled.output == f"Job {job_id} (pull llama) is over: one cancelled.\n"
    assert isinstance((await forebay("model", "job", "mj-none")).exception, NotFound)


async def test_models_are_copied_loaded_pinned_and_shown(forebay: Invoke, admin: Running) -> None:
    on = ("--backend", "one")
    assert "Copy tiny: done on one." in (await forebay("model", "copy", "tiny", "mine", *on)).output
    await forebay("model", "preload", "tiny", "--keep-alive", "2h", "--from", "a/b", *on)
    await forebay("model", "unload", "tiny", *on)
    await forebay("model", "delete", "tiny", *on)
    told = [(o.action, o.destination, o.keep_alive, o.source) for o in admin.site.library.orders]
    assert told == [
        (wire.MODEL_ACTION_COPY, "mine", "", ""),
        (wire.MODEL_ACTION_PRELOAD, "", "2h", "a/b"),
        (wire.MODEL_ACTION_UNLOAD, "", "", ""),
        (wire.MODEL_ACTION_DELETE, "", "", ""),
    ]
    assert (await forebay("model", "pin", "tiny", "--all")).output == "tiny is pinned on one, two.\n"
    assert "yes" in (await forebay("model", "pins")).output
    assert (await forebay("model", "unpin", "tiny", *on)).output == "tiny is pinned no longer on one.\n"
    assert [p["backend"] for p in json.loads((await forebay("model", "pins", "--json")).stdout)] == ["two"]
    admin.site.registry.known["one"].missing_models.append("llama")
    lacking = (await forebay("backend", "show", "one")).output
    assert "Its pool requires what it does not have: llama." in lacking
    shown = await forebay("model", "show", "tiny")
    assert [word for word in ("one", "two", "llama", "Q4_K_M") if word not in shown.output] == []


async def test_who_follows_a_job_follows_it_over_a_restart_of_the_registry(
    forebay: Invoke, admin: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_jobs, "_LOOK_S", 0.01)
    admin.site.library.restarts = 2
    assert "Pull llama: done on one." in (await forebay("model", "pull", "llama", "--backend", "one")).output
    admin.site.library.restarts = 100
    monkeypatch.setattr(model_jobs, "_AWAY_S", -1.0)
    lost = await forebay("model", "pull", "llama", "--backend", "one")
    assert isinstance(lost.exception, Unavailable)


def test_each_backend_has_a_bar() -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    running = wire.ModelJobTarget(
        backend_id="1",
        backend="big-gpu",
        state=wire.MODEL_JOB_STATE_RUNNING,
        status="pulling 0123",
        completed_bytes=2_500_000_000,
        total_bytes=10**10,
    )
    failed = wire.ModelJobTarget(
        backend_id="2", backend="laptop", state=wire.MODEL_JOB_STATE_FAILED, error="laptop says: [disk] full"
    )
    with Progress(*COLUMNS, console=console) as progress:
        bars = Bars(progress)
        for _ in range(2):
            bars.show(wire.ModelJob(targets=[running, failed]))
        assert [(task.completed, task.total) for task in progress.tasks] == [(2_500_000_000, 10**10), (0, 1)]
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert [
        word
        for word in ("big-gpu", "2.50 of 10.00 GB", "pulling 0123", "laptop says: [disk] full")
        if word not in shown
    ] == []
