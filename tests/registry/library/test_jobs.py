"""Jobs on engines: what they do there, how it is told, and what goes wrong in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from forebay.errors import BadInput, NotFound, NotPossible, Unavailable
from forebay_registry.backend import Load
from forebay_registry.library.choosing import Choice
from forebay_registry.library.job import Action, Job, JobId, State
from forebay_registry.library.order import Order
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Layer, Library
from tests.registry.library.views import NODE
from tests.registry.library.yard import GB, fresh, open_yard


async def test_a_pull_goes_to_all_at_once_and_tells_its_progress_until_the_end() -> None:
    async with open_yard("a", "b") as yard:
        for engine in yard.fleet.engines.values():
            engine.library.layers = (Layer(900), Layer(100))
        seen: list[Job] = []
        job = await yard.order(Action.PULL, "llama")
        async for seen_now in yard.runner.follow(job.id):
            seen.append(seen_now)
        last = seen[-1]
        assert last.state is State.DONE
        assert last.ended_at is not None
        assert [(t.backend, t.status, t.completed_bytes, t.total_bytes, t.attempts) for t in last.targets] == [
            ("a", "success", 1000, 1000, 1),
            ("b", "success", 1000, 1000, 1),
        ]
        assert all("llama" in engine.library.models for engine in yard.fleet.engines.values())
        assert {*yard.fleet.looks} == {"be-a", "be-b"}, "the fleet hears of it at once"
        assert (await yard.done(job)).state is State.DONE, "whoever comes later hears how it ended"


async def test_backends_that_share_a_folder_fetch_a_model_once() -> None:
    shared = Library(("tiny",))
    shared.layers = (Layer(5000),)
    async with open_yard("a", "b", "c", shared=shared) as yard:
        last = await yard.after(Action.PULL, "llama")
        assert [t.state for t in last.targets] == [State.DONE] * 3
        assert shared.fetched_bytes == 5000
        assert len([1 for path, _ in shared.asked if path == "/api/pull"]) == 1
        assert sorted(t.note for t in last.targets) == ["", *["Another pull on its node had brought it."] * 2]


async def test_a_node_fetches_no_more_models_at_once_than_it_should() -> None:
    async with open_yard("a") as yard:
        library = yard.fleet.engines["a"].library
        library.every_s, most = 0.002, 0
        jobs = [await yard.order(Action.PULL, f"model-{n}") for n in range(5)]

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, library.under_way)
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        assert [(await yard.done(job)).state for job in jobs] == [State.DONE] * 5
        watching.cancel()
        assert most == 2


async def test_a_model_that_does_not_exist_fails_with_the_engines_words_and_is_not_tried_again() -> None:
    async with open_yard("a") as yard:
        yard.fleet.engines["a"].library.missing.add("nosuch")
        target = (await yard.after(Action.PULL, "nosuch")).targets[0]
        assert (target.state, target.attempts) == (State.FAILED, 1)
        assert target.error == "a says: pull model manifest: file does not exist"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(FaultKind.CUT_AFTER, on="/api/pull", chunks=3, times=None), "The connection to a broke"),
        (Fault(FaultKind.MALFORMED_SSE, on="/api/pull", chunks=2, times=None), "sent something else than progress"),
        (Fault(FaultKind.CLOSE_BEFORE_HEADERS, on="/api/pull", times=None), "The connection to a broke"),
        (Fault(FaultKind.STATUS, on="/api/pull", status=502, message="Bad Gateway", times=None), "a says: Bad Gateway"),
    ],
)
async def test_what_breaks_is_tried_three_times_and_told(fault: Fault, words: str) -> None:
    async with open_yard("a", "b") as yard:
        yard.fleet.engines["a"].faults.add(fault)
        last = await yard.after(Action.PULL, "llama")
        broken, whole = last.targets
        assert (broken.state, broken.attempts) == (State.FAILED, 3)
        assert words in broken.error
        assert whole.state is State.DONE, "the other backend is not disturbed"
        assert last.state is State.FAILED


async def test_a_pull_that_is_cut_off_goes_on_where_it_was() -> None:
    async with open_yard("a") as yard:
        engine = yard.fleet.engines["a"]
        engine.library.layers = (Layer(4000),)
        engine.faults.add(Fault(FaultKind.CUT_AFTER, on="/api/pull", chunks=4))
        target = (await yard.after(Action.PULL, "llama")).targets[0]
        assert (target.state, target.attempts) == (State.DONE, 2)
        assert engine.library.fetched_bytes == 4000, "no byte was fetched twice"


async def test_a_full_disk_ends_it_with_the_engines_words() -> None:
    async with open_yard("a") as yard:
        words = "write /usr/share/ollama/.ollama/models/blobs/sha256-1-partial: no space left on device"
        yard.fleet.engines["a"].faults.add(
            Fault(FaultKind.ERROR_EVENT_AFTER, on="/api/pull", chunks=3, message=words, times=None)
        )
        target = (await yard.after(Action.PULL, "llama")).targets[0]
        assert (target.state, target.attempts, target.error) == (State.FAILED, 1, f"a says: {words}")


async def test_a_pull_that_does_not_fit_is_stopped_before_it_fills_the_disk() -> None:
    async with open_yard("a") as yard:
        library = yard.fleet.engines["a"].library
        library.layers, library.every_s = (Layer(40 * GB),), 0.005
        yard.free[NODE] = 45 * GB
        target = (await yard.after(Action.PULL, "huge")).targets[0]
        assert (target.state, target.attempts) == (State.FAILED, 1)
        assert target.error.startswith("a needs 40.0 GB more for this model; of 45.0 GB free on gpu-box, 10.0 GB stay")
        assert library.fetched_bytes < 40 * GB
        assert "huge" not in library.models
        assert (await yard.after(Action.PULL, "huge", force=True)).state is State.DONE


async def test_two_pulls_on_one_node_share_its_room(eventually: Callable[..., Any]) -> None:
    async with open_yard("a") as yard:
        library = yard.fleet.engines["a"].library
        library.layers, library.every_s, library.pieces = (Layer(20 * GB, "sha256:first"),), 0.01, 1000
        yard.free[NODE] = 45 * GB
        first = await yard.order(Action.PULL, "one")
        await eventually(lambda: library.fetched_bytes)
        library.layers = (Layer(20 * GB, "sha256:second"),)
        second = (await yard.after(Action.PULL, "two")).targets[0]
        assert "go to other pulls" in second.error
        await yard.runner.cancel(first.id, "ada")
        library.pieces = 2
        assert (await yard.after(Action.PULL, "two")).state is State.DONE


async def test_a_cancelled_job_stops_on_the_engine_and_stays_cancelled(eventually: Callable[..., Any]) -> None:
    async with open_yard("a", "b") as yard:
        for engine in yard.fleet.engines.values():
            engine.library.every_s, engine.library.pieces = 0.01, 10_000
        job = await yard.order(Action.PULL, "llama")
        await eventually(lambda: all(engine.library.under_way for engine in yard.fleet.engines.values()))
        cancelled = await yard.runner.cancel(job.id, "ada")
        assert [t.state for t in cancelled.targets] == [State.CANCELLED] * 2
        await eventually(lambda: [e.library.cut_off for e in yard.fleet.engines.values()] == [1, 1])
        assert yard.store.jobs[job.id].state is State.CANCELLED
        assert (await yard.runner.cancel(job.id, "ada")).state is State.CANCELLED, "a second time changes nothing"
        with pytest.raises(NotFound, match="no job mj-none"):
            await yard.runner.cancel(JobId("mj-none"), "ada")


async def test_a_job_goes_on_after_a_restart_without_anybody_asking(
    session: aiohttp.ClientSession, eventually: Callable[..., Any]
) -> None:
    async with open_yard("a") as yard:
        library = yard.fleet.engines["a"].library
        library.layers, library.pieces, library.every_s = (Layer(10_000),), 100, 0.01
        again = fresh(yard, session)
        async with again.acting():
            job = await again.order(Action.PULL, "llama")
            await eventually(lambda: library.fetched_bytes > 500)
            await eventually(lambda: again.store.jobs[job.id].state is State.RUNNING)
        before = library.fetched_bytes
        library.every_s = 0.0001
        assert before < 10_000
        last = fresh(again, session)
        async with last.acting():
            done = await last.done(job)
        assert (done.state, done.targets[0].attempts, done.actor) == (State.DONE, 1, "ada")
        assert library.fetched_bytes == 10_000


async def test_who_follows_hears_that_the_registry_stops_and_none_is_ordered_then(
    session: aiohttp.ClientSession,
) -> None:
    async with open_yard("a") as yard:
        yard.fleet.engines["a"].library.every_s = 60.0
        again = fresh(yard, session)
        async with again.acting():
            job = await again.order(Action.PULL, "llama")
            following = asyncio.create_task(again.done(job))
            await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="the job goes on when it is back"):
            await following
        with pytest.raises(Unavailable, match="does not give orders"):
            await again.order(Action.PULL, "other")
        assert (await again.runner.newest(5, unfinished=True))[0].id == job.id


async def test_a_backend_that_is_removed_ends_its_part(eventually: Callable[..., Any]) -> None:
    async with open_yard("a") as yard:
        engine = yard.fleet.engines["a"]
        engine.faults.add(Fault(FaultKind.CUT_AFTER, on="/api/pull", chunks=20, times=None))
        engine.library.every_s, engine.library.pieces = 0.01, 1000
        job = await yard.order(Action.PULL, "llama")
        await eventually(lambda: engine.library.under_way)
        yard.fleet.engines.clear()
        target = (await yard.done(job)).targets[0]
        assert (target.state, target.error) == (State.FAILED, "The backend a was removed.")


async def test_models_are_copied_deleted_loaded_and_unloaded() -> None:
    async with open_yard("a", "b") as yard:
        a, b = (engine.library for engine in yard.fleet.engines.values())
        assert (await yard.after(Action.COPY, "tiny", "a", destination="mine")).state is State.DONE
        assert (a.models, b.models) == ({"tiny", "mine"}, {"tiny"})
        loaded = await yard.after(Action.PRELOAD, "tiny", keep_alive="30m")
        assert loaded.state is State.DONE
        assert (a.resident, b.resident) == ({"tiny": "30m"}, {"tiny": "30m"})
        for target in loaded.targets:
            assert target.load_ms is not None
            assert target.warmup_ms is not None
        assert (await yard.after(Action.UNLOAD, "tiny", "b")).state is State.DONE
        assert (a.resident, b.resident) == ({"tiny": "30m"}, {})
        assert (await yard.after(Action.DELETE, "tiny")).state is State.DONE
        assert (a.models, b.models) == ({"mine"}, set())
        gone = (await yard.after(Action.DELETE, "tiny", "a")).targets[0]
        assert (gone.state, gone.error) == (State.FAILED, "a says: model 'tiny' not found")


async def test_a_model_is_warmed_up_by_one_word_or_one_embedding_and_not_while_its_engine_is_busy() -> None:
    async with open_yard("a") as yard:
        engine = yard.fleet.engines["a"]
        assert (await yard.after(Action.PRELOAD, "tiny")).state is State.DONE
        words = [seen for seen in engine.record.requests if seen.path == "/api/generate"]
        assert [seen.body.get("prompt") for seen in words] == [None, "Hello"]
        assert words[1].body["options"] == {"num_predict": 1}
        engine.library.capabilities["tiny"] = ["embedding"]
        embedded = (await yard.after(Action.PRELOAD, "tiny")).targets[0]
        assert (embedded.state, embedded.warmup_ms is not None) == (State.DONE, True)
        assert [seen.path for seen in engine.record.requests][-2:] == ["/api/embed"] * 2
        yard.fleet.more["load"] = Load(running=4, waiting=1, kv_used_fraction=None, measured_at=0.0)
        busy = (await yard.after(Action.PRELOAD, "tiny")).targets[0]
        assert (busy.state, busy.warmup_ms) == (State.DONE, None)
        assert busy.note == "It was not warmed up: the backend is busy."


async def test_an_engine_gets_its_credential_and_says_when_it_is_wrong() -> None:
    async with open_yard("a", api_key="sk-secret") as yard:
        assert (await yard.after(Action.PULL, "llama")).state is State.DONE
        yard.fleet.bearer = "sk-other"
        refused = (await yard.after(Action.PULL, "llama")).targets[0]
        assert (refused.attempts, refused.error) == (1, "a does not accept the credential it was given (401).")
        assert "sk-" not in repr(yard.store.jobs)
        yard.fleet.bearer = None
        untold = (await yard.after(Action.PULL, "llama")).targets[0]
        assert (untold.attempts, untold.error) == (3, "a wants a credential, and none is known here.")


async def test_words_of_an_engine_that_no_database_can_keep_are_told_without_them() -> None:
    async with open_yard("a") as yard:
        fault = Fault(FaultKind.STATUS, on="/api/pull", status=400, message="no\0 such \x1b[31mmodel", times=None)
        yard.fleet.engines["a"].faults.add(fault)
        job = await yard.after(Action.PULL, "llama")
        assert job.targets[0].error == "a says: no such [31mmodel"
        assert (await yard.after(Action.DELETE, "tiny")).state is State.DONE, "and the others go on"


async def test_an_order_of_which_nobody_knows_whether_it_was_stored_is_not_begun_one_day(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_yard("a") as yard:
        add = yard.store.add

        async def answer_is_lost(job: Job) -> None:
            await add(job)
            raise Unavailable

        monkeypatch.setattr(yard.store, "add", answer_is_lost)
        with pytest.raises(Unavailable):
            await yard.order(Action.DELETE, "tiny")
        (lost,) = yard.store.jobs
        with pytest.raises(Unavailable, match="ask again"):
            await yard.runner.cancel(lost, "ada")
        yard.runner._saver.press()
        async with asyncio.timeout(10):
            while yard.store.jobs:
                await asyncio.sleep(0.001)
        assert yard.fleet.engines["a"].library.models == {"tiny"}


async def test_a_job_that_cannot_be_kept_disturbs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_yard("a") as yard:
        save = yard.store.save

        async def refuse_some(job: Job) -> None:
            if job.model == "odd":
                raise ValueError
            await save(job)

        monkeypatch.setattr(yard.store, "save", refuse_some)
        odd = await yard.order(Action.PULL, "odd")
        assert (await yard.done(odd)).state is State.DONE
        assert (await yard.after(Action.PULL, "llama")).state is State.DONE


async def test_an_engine_without_such_pages_says_so() -> None:
    async with open_yard("v", flavour=Flavour.VLLM) as yard:
        target = (await yard.after(Action.PRELOAD, "lora", source="owner/lora")).targets[0]
        assert (target.state, target.attempts, target.error) == (State.FAILED, 1, "v has no /v1/load_lora_adapter.")


async def test_bad_orders_reach_no_engine() -> None:
    async with open_yard("a") as yard:
        all_of_them = Choice(everywhere=True)
        for order, kind in (
            (Order("ada", Action.PULL, "../etc", all_of_them), BadInput),
            (Order("ada", Action.COPY, "tiny", all_of_them), BadInput),
            (Order("ada", Action.COPY, "tiny", all_of_them, destination="/abs"), BadInput),
            (Order("ada", Action.PULL, "tiny", all_of_them, destination="x"), BadInput),
            (Order("ada", Action.PULL, "tiny", all_of_them, source="x/y"), BadInput),
            (Order("ada", Action.PULL, "tiny", all_of_them, keep_alive="1h"), BadInput),
            (Order("ada", Action.PRELOAD, "tiny", all_of_them, keep_alive="soon"), BadInput),
            (Order("ada", Action.PULL, "tiny", Choice(backends=("x",))), NotFound),
            (Order("ada", Action.PRELOAD, "tiny", Choice(backends=("a",)), source="x/y"), NotPossible),
        ):
            with pytest.raises(kind):
                await yard.runner.start(order)
        assert yard.fleet.engines["a"].library.asked == []
        assert yard.store.jobs == {}
