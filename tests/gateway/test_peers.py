"""A gateway and the services around it: what it is told, what it tells, and what happens while one of them is away."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import CannotStart
from forebay.wire.v1 import scheduler_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.doubles import SchedulerDouble
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import events, stream, text_of

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)


async def test_the_queued_requests_of_a_revoked_key_are_dropped(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1, pace=Pace(tokens_per_s=40, answer_tokens=40))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: engine.slots.running == 1)
        queued = asyncio.create_task(_post(house))
        await eventually(lambda: house.scheduler.queue)
        began = time.monotonic()
        house.admin.revoke(house.key)
        status, reason = await queued
        assert (status, reason) == (401, "key_revoked")
        assert time.monotonic() - began < 10
        assert await _post(house) == (401, "key_revoked")
        assert time.monotonic() - began < 10
        await eventually(lambda: house.scheduler.cancels)
        told = await running
        assert "word39" in text_of(told), "what runs goes on"
        assert sorted(OUTCOME(row.outcome) for row in await house.rows(3)) == [
            "OUTCOME_FINISHED",
            "OUTCOME_REFUSED",
            "OUTCOME_REFUSED",
        ]


async def _known(house: House, key: str) -> None:
    """Waits until the gateway has heard of it."""
    for _ in range(3000):
        async with house.client.get(f"{house.url}/v1/models", headers={"x-api-key": key}) as answer:
            if answer.status == 200:
                return
        await asyncio.sleep(0.01)
    raise AssertionError("the gateway never heard of the key")


async def test_a_key_revoked_now_has_its_stream_cut_within_a_second_and_no_other_keys(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=400))
    async with open_house(tmp_path, engine) as house:
        other = house.admin.add_key()
        await _known(house, str(other))
        running = asyncio.create_task(stream(house))
        bystander = asyncio.create_task(_events(house, {"x-api-key": str(other)}, max_tokens=200))
        await eventually(lambda: engine.slots.running == 2)
        await asyncio.sleep(0.5)  # some tokens
        began = time.monotonic()
        house.admin.revoke(house.key, cut_running=True)
        told = await running
        assert time.monotonic() - began < 10
        assert told[-1]["error"]["code"] == "invalid_api_key"
        assert "was revoked" in told[-1]["error"]["message"]
        assert "[DONE]" not in told
        await eventually(lambda: engine.slots.running == 1)
        assert (await bystander)[-1] == "[DONE]"
        rows = {row.key_id: row for row in await house.rows(2)}
        row = rows[house.key.public_id]
        assert (OUTCOME(row.outcome), row.reason, row.http_status) == ("OUTCOME_FAILED", "key_revoked", 200)
        assert row.usage.completion_tokens > 0, "what was made until then is accounted for"
        await eventually(lambda: not house.scheduler.held)


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_plain_request_of_a_key_revoked_now_gets_401(tmp_path: Path, flavour: Flavour) -> None:
    engine = FakeEngine(flavour=flavour, pace=Pace(tokens_per_s=40, answer_tokens=400))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(_post(house))
        await eventually(lambda: engine.slots.running == 1)
        began = time.monotonic()
        house.admin.revoke(house.key, cut_running=True)
        assert await running == (401, "key_revoked")
        assert time.monotonic() - began < 10
        await eventually(lambda: engine.slots.running == 0)
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason, row.http_status) == ("OUTCOME_FAILED", "key_revoked", 401)


async def test_what_a_first_revocation_let_run_a_second_one_cuts(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=400))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        house.admin.revoke(house.key)
        assert await _post(house) == (401, "key_revoked")
        await asyncio.sleep(0.3)
        assert not running.done(), "without --now it goes on"
        house.admin.revoke(house.key, cut_running=True)
        told = await asyncio.wait_for(running, 30)
        assert told[-1]["error"]["code"] == "invalid_api_key"


async def test_a_cut_that_came_while_admin_could_not_be_heard_is_made_up_for(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=400))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        await house.stop_server(house.admin)
        house.admin.revoke(house.key)
        house.admin.revoke(house.key, cut_running=True)
        await asyncio.sleep(0.2)
        assert not running.done()
        await house.start_server(house.admin)
        told = await asyncio.wait_for(running, 30)
        assert told[-1]["error"]["code"] == "invalid_api_key"


async def test_a_request_whose_body_still_comes_when_its_key_is_revoked_never_starts(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        reader, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        body = json.dumps(ask()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {house.key}\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1])
        await eventually(lambda: house.metric("forebay_gateway_running") == 1)
        house.admin.revoke(house.key)
        await eventually(lambda: house.metric("forebay_gateway_running") == 0)
        writer.write(body[-1:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 401")
        writer.close()
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_REFUSED", "key_revoked")
        assert not engine.record.requests


async def _events(house: House, headers: dict[str, str], **fields: Any) -> list[Any]:
    async with house.post(ask(stream=True, **fields), headers=headers) as answer:
        return events(await answer.text())


async def _post(house: House) -> tuple[int, str | None]:
    async with house.post(ask()) as answer:
        await answer.read()
        return answer.status, answer.headers.get("x-forebay-reason")


async def test_it_starts_from_its_snapshots_while_admin_and_registry_are_away(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK, api_key="sealed")
    async with open_house(tmp_path, engine) as house:
        house.admin.set_credential("b1", "sealed")
        await house.put("b1", engine.url, has_credential=True)
        await asyncio.sleep(1.6)  # snapshots are written once a second
        await house.stop_gateway()
        await house.stop_server(house.admin)
        await house.stop_server(house.registry)
        kept = b"".join(path.read_bytes() for path in (tmp_path / "snapshots").iterdir())
        assert b"sealed" not in kept
        assert b"alice" not in kept
        await house.start_gateway()
        await house.wait_ready()
        assert "word3" in text_of(await stream(house))
        await house.start_server(house.admin)
        await house.start_server(house.registry)
        fresh = house.admin.add_key()
        headers = {"x-api-key": str(fresh)}

        async def works() -> bool:
            async with house.client.get(f"{house.url}/v1/models", headers=headers) as answer:
                return answer.status == 200

        deadline = time.monotonic() + 60
        while not await works():
            assert time.monotonic() < deadline, "the watch never came back"
            await asyncio.sleep(0.05)
        assert house.admin.known_versions[-1] > 0, "it should say what it knows already"


async def test_without_keys_it_says_so_and_not_that_the_key_is_wrong(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        await house.stop_gateway()
        await house.stop_server(house.admin)
        await house.start_gateway(snapshot_dir=tmp_path / "none")
        assert "admin has not told" in house.ops.missing["principals"]
        async with house.post(ask()) as answer:
            assert answer.status == 503
            assert answer.headers["x-forebay-reason"] == "starting"
            assert answer.headers["retry-after"] == "1"


async def test_running_streams_do_not_notice_that_the_scheduler_went_and_waiting_ones_only_wait(tmp_path: Path) -> None:
    engine = FakeEngine(slots=1, pace=Pace(tokens_per_s=20, answer_tokens=50))
    async with open_house(tmp_path, engine) as house:
        house.scheduler.confirms = False
        finished = await stream(house, max_tokens=1)
        assert finished[-1] == "[DONE]"
        running = asyncio.create_task(stream(house))
        await eventually(lambda: engine.slots.running == 1)
        waiting = asyncio.create_task(stream(house, max_tokens=5))
        await eventually(lambda: house.scheduler.queue)
        await house.stop_server(house.scheduler)
        late = asyncio.create_task(stream(house, max_tokens=5))
        await asyncio.sleep(0.5)
        assert not running.done()
        new = SchedulerDouble({"b1": 1})
        await house.start_server(new)
        await eventually(lambda: new.hellos)
        (hello,) = new.hellos
        assert hello.gateway == "gateway-1"
        assert hello.generation == house.scheduler.hellos[0].generation
        assert [held.backend_id for held in hello.held] == ["b1"]
        assert hello.held[0].completion_tokens > 0
        assert len(hello.queued) == 2
        assert all(queued.age_ms >= 300 for queued in hello.queued)
        assert len(hello.unconfirmed) == 1
        assert "word49" in text_of(await running)
        assert "word4" in text_of(await waiting)
        assert "word4" in text_of(await late)
        assert engine.slots.peak_running == 1
        assert len(await house.rows(4)) == 4


async def test_settles_are_kept_until_they_are_confirmed(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        await stream(house)
        await eventually(lambda: house.metric("forebay_gateway_settles_unconfirmed") == 0)
        house.scheduler.confirms = False
        await stream(house)
        await asyncio.sleep(0.2)
        assert house.metric("forebay_gateway_settles_unconfirmed") == 1


async def test_a_request_that_no_scheduler_takes_is_refused_after_its_deadline(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        await house.stop_server(house.scheduler)
        await asyncio.sleep(0.1)
        async with house.post(ask(), headers={**house.headers, "x-forebay-deadline-ms": "100"}) as answer:
            assert answer.status == 503
            assert answer.headers["x-forebay-reason"] == "queue_timeout"
        assert "scheduler" not in house.ops.missing, "requests are still taken"


async def test_asks_of_one_moment_go_in_few_frames(tmp_path: Path) -> None:
    engine = FakeEngine(slots=64, pace=QUICK)
    async with open_house(tmp_path, engine) as house:
        before = house.scheduler.frames
        await asyncio.gather(*(stream(house) for _ in range(50)))
        assert len(house.scheduler.submits) == 50
        assert house.scheduler.frames - before < 100  # a frame for each event would be about 150


async def test_progress_and_the_first_token_are_told(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=1000, answer_tokens=200, ttft_s=0.1))
    async with open_house(tmp_path, engine) as house:
        await stream(house)
        (first,) = house.scheduler.first_tokens
        assert 90 <= first.ttft_ms < 1000
        progress = [told.completion_tokens for told in house.scheduler.progress]
        assert progress == sorted(set(progress))
        assert 0 < progress[0] <= 200  # the first after 64 tokens, or on a slow machine after a quarter of a second
        await eventually(lambda: house.scheduler.settles)
        assert house.scheduler.settles[0].usage.completion_tokens == 200


@pytest.mark.parametrize(("isolation", "status"), [("serve", 200), ("refuse", 503)])
async def test_work_past_the_fence_is_counted_or_refused(tmp_path: Path, isolation: str, status: int) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK), isolation=isolation, fence_s=0.3) as house:
        async with house.post(ask()) as answer:
            assert answer.status == 200
        house.scheduler.renewed_ago_ms = 10_000
        await asyncio.sleep(0.5)
        async with house.post(ask()) as answer:
            assert answer.status == status
            assert answer.headers.get("x-forebay-reason") == (None if status == 200 else "no_scheduler")
        past = house.metric("forebay_gateway_starts_past_fence_total")
        assert past == (1 if isolation == "serve" else 0)
        await eventually(lambda: not house.scheduler.held)


async def test_a_revoked_grant_ends_its_stream_with_an_error(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, answer_tokens=200))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        (ledger_id,) = house.scheduler.held
        house.scheduler.revokes.append(scheduler_pb2.Revoke(ledger_id=ledger_id, reason="key_revoked"))
        told = await asyncio.wait_for(running, 30)
        assert told[-1]["error"]["code"] == "invalid_api_key"
        await eventually(lambda: engine.slots.running == 0)
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_FAILED", "key_revoked")


async def test_draining_lets_streams_finish_takes_no_new_ones_and_says_goodbye(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, answer_tokens=15))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        leaving = asyncio.ensure_future(house.stop_gateway())
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
        assert "word14" in text_of(await running)
        await leaving
        assert house.scheduler.byes == 1
        assert [OUTCOME(row.outcome) for row in await house.rows(1)] == ["OUTCOME_FINISHED"]
        assert not list((tmp_path / "journal").glob("*.segment")), "all was published"


async def test_what_does_not_finish_in_time_is_cut_with_an_error_event(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, answer_tokens=1000))
    async with open_house(tmp_path, engine, drain_s=0.2) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.first_tokens)
        await house.stop_gateway()
        told = await running
        assert told[-1]["error"]["code"] == "draining"
        assert engine.slots.running == 0
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_FAILED", "draining")


async def test_records_wait_while_the_bus_is_away_and_each_arrives_once(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house:
        house.bus.is_connected = False
        for _ in range(3):
            await stream(house)
        await asyncio.sleep(0.3)
        assert house.metric("forebay_gateway_records_unpublished") == 3
        await house.stop_gateway()
        await house.start_gateway()
        assert house.metric("forebay_gateway_records_unpublished") == 3
        house.bus.is_connected = True
        rows = await house.rows(3)
        assert len({row.ledger_id for row in rows}) == 3


async def test_two_gateways_never_share_a_journal(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        first, house.gateway = house.gateway, None
        with pytest.raises(CannotStart, match="Another gateway uses"):
            await house.start_gateway()
        house.gateway = first
