"""Responses in the background, with OpenAI's SDK: begun, polled, streamed and resumed, cancelled, deleted; here and from
another gateway that has the same store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_gateway.keeping.background import BackgroundResponse
from forebay_gateway.pages import background as background_page
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, House, eventually, open_house
from tests.gateway.test_stored_responses import HI, SOMEBODY_ELSE, kept, open_sdk, told_to

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)
SLOW = Pace(tokens_per_s=40, ttft_s=0.0, answer_tokens=4000)
STEADY = Pace(tokens_per_s=40, ttft_s=0.1, answer_tokens=40)
ENDED = ("completed", "failed", "incomplete", "cancelled")


@asynccontextmanager
async def open_two(directory: Path, engine: FakeEngine, **changes: Any) -> AsyncIterator[tuple[House, House]]:
    """Two gateways with one store, and a user whom both know. The engine is the first one's."""
    (directory / "one").mkdir()
    (directory / "two").mkdir()
    async with (
        open_house(directory / "one", engine, **changes) as one,
        open_house(directory / "two", **changes) as two,
    ):
        two.admin.contents.things = one.admin.contents.things
        yield one, two


async def begin(sdk: openai.AsyncOpenAI, **asked: Any) -> Any:
    return await sdk.responses.create(model=MODEL, background=True, **{"input": "Hi", **asked})


async def ended(sdk: openai.AsyncOpenAI, id: str, within_s: float = 60.0) -> Any:
    """Polled until it is."""
    until = time.monotonic() + within_s
    while (response := await sdk.responses.retrieve(id)).status not in ENDED:
        assert time.monotonic() < until, response.status
        await asyncio.sleep(0.02)
    return response


async def polled(sdk: openai.AsyncOpenAI, id: str, status: str) -> None:
    """Until it is so, or was."""
    until = time.monotonic() + 60
    while (response := await sdk.responses.retrieve(id)).status not in {status, *ENDED}:
        assert time.monotonic() < until, response.status
        await asyncio.sleep(0.02)


async def resumed(sdk: openai.AsyncOpenAI, id: str, after: int | None = None, most: int = 10**9) -> list[Any]:
    """The events that come after that number; the client goes after so many."""
    asked: Any = {} if after is None else {"starting_after": after}
    stream: Any = await sdk.responses.retrieve(id, stream=True, **asked)
    events = []
    async for event in stream:
        events.append(event)
        if len(events) >= most:
            break
    await stream.close()
    return events


def text_of(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


# --- begun, polled --------------------------------------------------------------------------------------------------


async def test_a_background_response_comes_at_once_and_is_polled_until_it_has_ended(tmp_path: Path) -> None:
    engine = FakeEngine(pace=STEADY)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        made = await begin(sdk, metadata={"a": "b"})
        assert (made.status, made.background, made.output, made.error) == ("queued", True, [], None)
        assert made.to_dict()["store"] is True
        await polled(sdk, made.id, "in_progress")
        done = await ended(sdk, made.id)
        assert (done.status, done.id, done.created_at) == ("completed", made.id, made.created_at)
        assert done.output_text.split() == [f"word{n}" for n in range(40)]
        assert done.usage is not None
        assert done.usage.output_tokens == 40
        assert done.metadata == {"a": "b"}
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.http_status, row.usage.completion_tokens) == ("OUTCOME_FINISHED", 200, 40)
        await eventually(lambda: not house.admin.contents.kept("background"), "its signs are cleared away")
        assert house.metric("forebay_gateway_background") == 0
        items: Any = [item async for item in await sdk.responses.input_items.list(made.id)]
        assert [item.content[0].text for item in items] == ["Hi"]


async def test_an_answer_that_never_ends_is_ended_where_nobody_holds_it_back(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=100_000), context_tokens=200_000)
    async with open_house(tmp_path, engine, max_answer_bytes=5_000) as house, open_sdk(house) as sdk:
        done = await ended(sdk, (await begin(sdk)).id)
        assert done.status == "failed"
        assert done.error is not None
        assert "longer than this gateway takes" in done.error.message
        await eventually(lambda: engine.slots.running == 0, "its engine is let go")


async def test_a_response_whose_keeping_breaks_leaves_no_pulse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def mistake(*_: Any) -> None:
        raise RuntimeError("a mistake")

    async with open_house(tmp_path, FakeEngine(pace=STEADY)) as house, open_sdk(house) as sdk:
        await begin(sdk)
        monkeypatch.setattr(BackgroundResponse, "_store", mistake)
        await eventually(lambda: not house.admin.contents.kept("background"), "its signs are cleared away")
        assert house.metric("forebay_gateway_background") == 0


async def test_an_answer_that_reaches_its_length_is_incomplete(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        done = await ended(sdk, (await begin(sdk, max_output_tokens=2)).id)
        assert (done.status, done.output_text) == ("incomplete", "word0 word1")
        assert done.incomplete_details is not None
        assert done.incomplete_details.reason == "max_output_tokens"


async def test_it_waits_for_its_turn_like_any_other_request(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=STEADY, slots=1)) as house, open_sdk(house) as sdk:
        first, second = await begin(sdk), await begin(sdk)
        await polled(sdk, first.id, "in_progress")
        assert (await sdk.responses.retrieve(second.id)).status == "queued"
        assert house.metric("forebay_gateway_background") == 2
        assert (await ended(sdk, first.id)).status == "completed"
        assert (await ended(sdk, second.id)).status == "completed"


async def test_a_background_response_must_be_stored(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        with pytest.raises(openai.BadRequestError, match="has to be stored") as refused:
            await begin(sdk, store=False)
        assert refused.value.param == "background"
        await house.stop_server(house.admin)
        with pytest.raises(openai.InternalServerError) as away:
            await begin(sdk)
        assert away.value.code == "state_unavailable"
        rows = await house.rows(2)
        assert [row.reason for row in rows] == ["bad_request", "state_unavailable"]
        assert house.metric("forebay_gateway_background") == 0


async def test_what_is_refused_at_once_is_told_at_once_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_page, "_REFUSED_WITHIN_S", 10.0)  # what is at once, on a busy machine
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.STATUS, status=400, times=None))
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.responses.create(model="nothing", input="Hi", background=True)
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError):
            await begin(sdk)
        with pytest.raises(openai.BadRequestError, match="x-forebay-priority"):
            await begin(sdk, extra_headers={"x-forebay-priority": "soon"})
        await eventually(lambda: not house.admin.contents.things)
        rows = await house.rows(3)
        assert [row.http_status for row in rows] == [404, 400, 400]


async def test_there_are_only_so_many_at_once(tmp_path: Path) -> None:
    limits = {"most_background": 3, "most_background_per_user": 2}
    async with open_house(tmp_path, FakeEngine(pace=SLOW, slots=1), **limits) as house, open_sdk(house) as alice:
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        one = await begin(alice)
        await begin(alice)
        with pytest.raises(openai.RateLimitError, match="You have 2 responses in the background") as mine:
            await begin(alice)
        assert mine.value.code == "concurrency_limit_exceeded"
        await asyncio.sleep(0.1)
        async with open_sdk(house, bobs) as bob:
            await begin(bob)
            with pytest.raises(openai.RateLimitError, match="This gateway has 3 responses"):
                await begin(bob)
            await alice.responses.cancel(one.id)
            await begin(bob)


async def test_without_an_engine_before_long_it_has_failed(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=50, ttft_s=0.2, answer_tokens=100))
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=3))
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        done = await ended(sdk, (await begin(sdk)).id)
        assert (done.status, done.error.code) == ("failed", "server_error")
        assert "middle of its answer" in done.error.message
        assert done.output_text.startswith("word0")
        events = await resumed(sdk, done.id)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "server_error")
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.http_status) == ("OUTCOME_FAILED", 200)


# --- what ends it, and what does not --------------------------------------------------------------------------------


async def test_the_clients_going_ends_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=STEADY)) as house, open_sdk(house) as sdk:
        stream = await begin(sdk, stream=True)
        events = []
        async for event in stream:
            events.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
        done = await ended(sdk, events[0].response.id)
        assert done.status == "completed"
        rest = await resumed(sdk, done.id, events[-1].sequence_number)
        assert text_of([*events, *rest]) == done.output_text
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"


async def test_a_key_that_is_revoked_now_and_the_longest_duration_end_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=SLOW), max_duration_s=1.0) as house, open_sdk(house) as sdk:
        other = house.admin.add_key()
        await asyncio.sleep(0.05)
        async with open_sdk(house, other) as revoked:
            cut = await begin(revoked)
        house.admin.revoke(other, cut_running=True)
        cut = await ended(sdk, cut.id)
        assert cut.status == "failed"
        assert "revoked" in cut.error.message
        long = await ended(sdk, (await begin(sdk)).id)
        assert long.status == "failed"
        assert "within 1 s" in long.error.message
        await house.rows(2)


async def test_a_gateway_that_stops_lets_it_finish_or_says_that_it_failed(tmp_path: Path) -> None:
    engine = FakeEngine(pace=STEADY)
    async with open_house(tmp_path, engine, drain_s=4.0) as house, open_sdk(house) as sdk:
        await begin(sdk)
        await house.stop_gateway()
        assert [response["status"] for response in kept(house)] == ["completed"]
        engine.pace = SLOW
        await house.start_gateway(drain_s=0.3)
        await house.wait_ready()
        async with open_sdk(house) as again:
            long = await begin(again)
        await house.stop_gateway()
        (failed,) = [response for response in kept(house) if response["id"] == long.id]
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        assert "Send the request again" in failed["error"]["message"]
        assert not house.admin.contents.kept("background")
        await house.rows(2)


async def test_it_is_cancelled_by_a_call_and_its_engine_stops(tmp_path: Path) -> None:
    engine = FakeEngine(pace=SLOW, slots=1)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        running, waiting = await begin(sdk), await begin(sdk)
        await polled(sdk, running.id, "in_progress")
        for made in (waiting, running):
            cancelled = await sdk.responses.cancel(made.id)
            assert (cancelled.status, cancelled.error) == ("cancelled", None)
        await eventually(lambda: engine.slots.running == 0)
        again = await sdk.responses.cancel(running.id)
        assert (again.status, again.id) == ("cancelled", running.id)
        events = await resumed(sdk, running.id)
        assert events[-1].type == "response.cancelled"
        done = await ended(sdk, (await begin(sdk, max_output_tokens=1)).id)
        assert (await sdk.responses.cancel(done.id)).status == "incomplete", "one that has ended stays as it is"
        rows = await house.rows(3)
        assert sorted(OUTCOME(row.outcome) for row in rows) == [
            "OUTCOME_CANCELLED",
            "OUTCOME_CANCELLED",
            "OUTCOME_FINISHED",
        ]


async def test_one_that_is_deleted_is_cancelled_and_does_not_come_back(tmp_path: Path) -> None:
    engine = FakeEngine(pace=SLOW)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        made = await begin(sdk)
        await polled(sdk, made.id, "in_progress")
        await sdk.responses.delete(made.id)
        await eventually(lambda: engine.slots.running == 0)
        await eventually(lambda: not house.admin.contents.things)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(made.id)
        await house.rows(1)


# --- going on -------------------------------------------------------------------------------------------------------


async def test_it_goes_on_and_is_gone_on_from_when_it_has_ended(tmp_path: Path) -> None:
    engine = FakeEngine(pace=STEADY)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await begin(sdk)
        with pytest.raises(openai.BadRequestError, match="has not ended yet") as early:
            await sdk.responses.create(model=MODEL, input="More", previous_response_id=one.id)
        assert early.value.param == "previous_response_id"
        text = (await ended(sdk, one.id)).output_text
        two = await ended(sdk, (await begin(sdk, input="repeat: two", previous_response_id=one.id)).id)
        assert two.previous_response_id == one.id
        assert told_to(engine) == [("user", "Hi"), ("assistant", text), ("user", "repeat: two")]


async def test_a_conversation_gets_it_at_its_end(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        conversation = await sdk.conversations.create()
        made = await begin(sdk, conversation=conversation.id)
        done = await ended(sdk, made.id)
        assert done.conversation is not None
        assert done.conversation.id == conversation.id
        items: Any = [item async for item in await sdk.conversations.items.list(conversation.id, order="asc")]
        assert [(item.role, item.content[0].text) for item in items] == [("user", "Hi"), ("assistant", HI)]


# --- streams --------------------------------------------------------------------------------------------------------


async def test_a_running_one_is_followed_live_from_any_number(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=STEADY)) as house, open_sdk(house) as sdk:
        made = await begin(sdk)
        await polled(sdk, made.id, "in_progress")
        from_start, from_fifth = await asyncio.gather(resumed(sdk, made.id), resumed(sdk, made.id, 4))
        assert [event.sequence_number for event in from_start] == list(range(len(from_start)))
        assert from_fifth == from_start[5:]
        assert from_start[-1].type == "response.completed"
        assert text_of(from_start) == from_start[-1].response.output_text
        assert await resumed(sdk, made.id) == from_start, "replayed from what is kept"
        assert await resumed(sdk, made.id, from_start[-1].sequence_number) == []


@settings(max_examples=5, deadline=None)
@given(stays=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_whoever_comes_and_goes_gets_each_event_once(
    stays: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def come_and_go() -> None:
        engine = FakeEngine(pace=Pace(tokens_per_s=100, ttft_s=0.0, answer_tokens=40))
        async with open_house(tmp_path_factory.mktemp("house"), engine) as house, open_sdk(house) as sdk:
            events = []
            stream = await begin(sdk, stream=True)
            async for event in stream:
                events.append(event)
                if len(events) >= stays[0]:
                    break
            await stream.close()
            id = events[0].response.id
            for stay in stays[1:]:
                events += await resumed(sdk, id, events[-1].sequence_number, stay)
            events += await resumed(sdk, id, events[-1].sequence_number)
            assert [event.sequence_number for event in events] == list(range(len(events)))
            assert events == await resumed(sdk, id)
            assert text_of(events) == (await ended(sdk, id)).output_text

    asyncio.run(come_and_go())


async def test_the_sdks_own_stream_of_a_response_by_its_id_puts_it_together(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=STEADY)) as house, open_sdk(house) as sdk:
        made = await begin(sdk)
        async with sdk.responses.stream(response_id=made.id, starting_after=3) as stream:
            numbers = [event.sequence_number async for event in stream]
            final = await stream.get_final_response()
        assert min(numbers) == 4
        assert final.output_text.split() == [f"word{n}" for n in range(40)]


async def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        made = await ended(sdk, (await begin(sdk)).id)
        url = f"{house.url}/v1/responses/{made.id}?stream=true&starting_after=x"
        async with house.client.get(url, headers=house.headers) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, "starting_after")


async def test_a_follower_that_waits_gets_comments(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=SLOW, slots=1), waiting_s=0.05) as house, open_sdk(house) as sdk:
        await begin(sdk)
        waiting = await begin(sdk)
        url = f"{house.url}/v1/responses/{waiting.id}?stream=true"
        async with house.client.get(url, headers=house.headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            read = b""
            while b": waiting" not in read:
                read += await answer.content.readany()
            assert b"response.queued" in read


async def test_another_users_is_not_there(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=SLOW)) as house, open_sdk(house) as alice:
        made = await begin(alice)
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        await asyncio.sleep(0.1)
        async with open_sdk(house, bobs) as bob:
            for asked in (
                bob.responses.retrieve(made.id),
                bob.responses.retrieve(made.id, stream=True),
                bob.responses.cancel(made.id),
                bob.responses.delete(made.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await asked


# --- from another gateway -------------------------------------------------------------------------------------------


async def test_another_gateway_tells_how_it_stands(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, ttft_s=0.0, answer_tokens=60))
    async with open_two(tmp_path, engine) as (one, two), open_sdk(one) as here, open_sdk(two) as there:
        made = await begin(here)
        assert (await there.responses.retrieve(made.id)).status in ("queued", "in_progress")
        with pytest.raises(openai.BadRequestError, match="has not ended yet"):
            await there.responses.create(model=MODEL, input="More", previous_response_id=made.id)
        done = await ended(there, made.id)
        assert done == await here.responses.retrieve(made.id)
        assert done.status == "completed"


async def test_another_gateway_cancels_it_within_about_a_second(tmp_path: Path) -> None:
    engine = FakeEngine(pace=SLOW)
    async with open_two(tmp_path, engine) as (one, two), open_sdk(one) as here, open_sdk(two) as there:
        made = await begin(here)
        await polled(here, made.id, "in_progress")
        began = time.monotonic()
        assert (await there.responses.cancel(made.id)).status == "cancelled"
        assert time.monotonic() - began < 10
        await eventually(lambda: engine.slots.running == 0)
        assert (await there.responses.cancel(made.id)).status == "cancelled"
        deleted = await begin(here)
        await polled(here, deleted.id, "in_progress")
        await there.responses.delete(deleted.id)
        await eventually(lambda: engine.slots.running == 0)
        await eventually(lambda: not one.admin.contents.kept("background"))
        assert [response["id"] for response in kept(one)] == [made.id]
        await one.rows(2)


async def test_another_gateway_follows_it_with_the_same_events(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=20, ttft_s=0.0, answer_tokens=60))
    async with open_two(tmp_path, engine) as (one, two), open_sdk(one) as here, open_sdk(two) as there:
        made = await begin(here)
        began = time.monotonic()
        first = await resumed(there, made.id, most=8)
        assert time.monotonic() - began < 10, "it is followed while it runs"
        rest = await resumed(there, made.id, first[-1].sequence_number)
        assert [*first, *rest] == await resumed(here, made.id)
        assert rest[-1].type == "response.completed"


async def test_one_whose_gateway_fell_silent_has_failed(tmp_path: Path) -> None:
    engine = FakeEngine(pace=SLOW)
    async with (
        open_two(tmp_path, engine, background_silent_s=0.8) as (one, two),
        open_sdk(one) as here,
        open_sdk(two) as there,
    ):
        made = await begin(here)
        await polled(there, made.id, "in_progress")
        some = await resumed(there, made.id, most=5)
        following = asyncio.create_task(resumed(there, made.id, some[-1].sequence_number))
        await one.stop_server(one.admin)  # so that it shows nothing any more
        lost = await ended(there, made.id)
        assert (lost.status, lost.error.code) == ("failed", "server_error")
        assert "Send the request again" in lost.error.message
        events = [*some, *await asyncio.wait_for(following, 30)]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.failed"
        assert (await there.responses.cancel(made.id)).status == "failed"
        going_on = two.admin.contents.things["response", made.id]
        assert b'"queued"' in going_on.body, "nobody writes what is its gateway's"
