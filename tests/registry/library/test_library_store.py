"""Jobs and pins in a real Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from forebay.database import Database
from forebay.errors import NotFound
from forebay_registry.backend import BackendId
from forebay_registry.keeping.tables import backends, model_job_targets, model_jobs
from forebay_registry.library.job import Action, Job, JobId, State, Target
from forebay_registry.library.store import LibraryStore, Pin

A, B = BackendId("be-a"), BackendId("be-b")


def job(name: str, at: float, *targets: Target, action: Action = Action.PULL) -> Job:
    return Job(JobId(name), action, "llama", "ada", at, targets or (Target(A, "a"), Target(B, "b")))


async def test_jobs_are_kept_as_they_were_and_forgotten_after_their_time(database: Database) -> None:
    store = LibraryStore(database)
    first, second = job("mj-1", 100.0), job("mj-2", 200.0, Target(A, "a"), action=Action.COPY)
    second = replace(second, destination="mine", keep_alive="2h", source="x/y", force=True)
    await store.add(first)
    await store.add(second)
    assert await store.get(second.id) == second
    assert await store.newest(10) == (second, first)
    assert await store.newest(1) == (second,)
    done = Target(
        A,
        "a",
        State.DONE,
        status="success",
        completed_bytes=2**40,
        total_bytes=2**40,
        attempts=2,
        note="n",
        load_ms=1,
        warmup_ms=2,
        started_at=101.0,
        ended_at=102.0,
    )
    failed = replace(Target(B, "b", State.FAILED), error="a says: no", ended_at=103.0)
    over = replace(first.with_target(done).with_target(failed), ended_at=103.0)
    await store.save(over)
    assert await store.get(first.id) == over
    assert await store.unfinished() == (second,)
    assert await store.get(JobId("mj-none")) is None
    assert await store.forget(103.0) == 0
    assert await store.forget(104.0) == 1
    assert await store.newest(10) == (second,)


async def test_a_job_of_a_newer_version_is_left_to_it_and_one_that_is_removed_is_gone(database: Database) -> None:
    store = LibraryStore(database)
    known, newer, odd = job("mj-1", 100.0), job("mj-2", 200.0), job("mj-3", 300.0)
    for one in (known, newer, odd):
        await store.add(one)
    async with database.writing() as connection:
        await connection.execute(model_jobs.update().where(model_jobs.c.id == newer.id).values(action="fold"))
        targets = model_job_targets
        await connection.execute(targets.update().where(targets.c.job_id == odd.id).values(state="frozen"))
    assert await store.unfinished() == (known,)
    await store.remove(known.id)
    assert await store.unfinished() == ()


async def test_pins_are_kept_once_and_go_with_their_backend(database: Database) -> None:
    store = LibraryStore(database)
    row = {"pool": "default", "slots": 0, "enabled": True, "changed_by": "ada"}
    async with database.writing() as connection:
        for name in ("a", "b"):
            values = {
                **row,
                "id": f"be-{name}",
                "name": name,
                "url": f"http://{name}",
                "changed_at": datetime.fromtimestamp(1.0, UTC),
            }
            await connection.execute(backends.insert().values(values))
    pins = [Pin(A, "m", 1.0, "ada"), Pin(B, "m", 1.0, "ada"), Pin(A, "other", 1.0, "ada")]
    await store.pin(pins)
    await store.pin([Pin(A, "m", 9.0, "bob")])
    assert sorted(await store.pins(), key=lambda p: (p.model, p.backend_id)) == [pins[0], pins[1], pins[2]]
    await store.unpin("m", [A])
    async with database.writing() as connection:
        await connection.execute(backends.delete().where(backends.c.id == B))
    assert await store.pins() == (pins[2],)
    with pytest.raises(NotFound, match="removed meanwhile"):
        await store.pin([Pin(BackendId("gone"), "m", 1.0, "ada")])
