"""Responses that are kept: made, gone on from, read and deleted with OpenAI's SDK; and what happens while admin is away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, OUTCOME, House, eventually, open_house

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)
HI = "word0 word1 word2 word3"
SOMEBODY_ELSE = {"user_id": "u-2", "user_name": "bob"}
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@asynccontextmanager
async def open_sdk(house: House, key: object = None) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(key or house.key), max_retries=0) as sdk:
        yield sdk


def told_to(engine: FakeEngine) -> list[tuple[str, str]]:
    """Who said what in the last request that the engine got."""
    return [(message["role"], message["content"]) for message in engine.record.requests[-1].body["messages"]]


def kept(house: House) -> list[dict[str, Any]]:
    return [json.loads(thing.body)["response"] for thing in house.admin.contents.kept("response")]


async def streamed(sdk: openai.AsyncOpenAI, **asked: Any) -> list[Any]:
    events = await sdk.responses.create(model=MODEL, stream=True, **{"input": "Hi", **asked})
    return [event async for event in events]


# --- what is kept ---------------------------------------------------------------------------------------------------


async def test_a_response_is_kept_until_it_is_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        made = await sdk.responses.create(model=MODEL, input="Hi", metadata={"a": "b"}, instructions="Be brief.")
        assert made.to_dict()["store"] is True
        assert await sdk.responses.retrieve(made.id) == made
        assert await sdk.responses.retrieve(made.id, include=["message.output_text.logprobs"]) == made
        items: Any = [item async for item in await sdk.responses.input_items.list(made.id)]
        assert [(item.type, item.role, item.content[0].text) for item in items] == [("message", "user", "Hi")]
        assert items[0].id
        async with house.client.delete(f"{house.url}/v1/responses/{made.id}", headers=house.headers) as answer:
            assert await answer.json() == {"id": made.id, "object": "response", "deleted": True}
        for gone in (sdk.responses.retrieve(made.id), sdk.responses.delete(made.id)):
            with pytest.raises(openai.NotFoundError, match=f"Response with id '{made.id}' not found") as error:
                await gone
            assert error.value.type == "invalid_request_error"
        await house.rows(1)


async def test_a_streamed_response_is_kept_before_its_last_event(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        events: Any = await sdk.responses.create(model=MODEL, input="Hi", stream=True)
        async for event in events:
            if event.type == "response.completed":
                break
        (response,) = kept(house)
        assert event.response.to_dict() == response
        assert (await sdk.responses.retrieve(event.response.id)).output_text == HI


async def test_an_answer_that_is_folded_from_a_stream_is_kept(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK, flavour=Flavour.LLAMA_CPP)) as house, open_sdk(house) as sdk:
        made = await sdk.responses.create(model=MODEL, input="Hi", max_output_tokens=2)
        assert (made.status, made.output_text) == ("incomplete", "word0 word1")
        assert await sdk.responses.retrieve(made.id) == made


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_to_be_stored_is_not(tmp_path: Path, stream: bool) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        if stream:
            made = (await streamed(sdk, store=False))[-1].response
        else:
            made = await sdk.responses.create(model=MODEL, input="Hi", store=False)
        assert made.to_dict()["store"] is False
        assert house.admin.contents.calls == []
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(made.id)


async def test_input_items_come_in_pages_the_newest_first(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        told: Any = [{"role": "user" if n % 2 else "assistant", "content": str(n)} for n in range(1, 6)]
        made = await sdk.responses.create(model=MODEL, input=told)

        async def texts(**wish: Any) -> list[str]:
            items: Any = [item async for item in await sdk.responses.input_items.list(made.id, **wish)]
            return [item.content[0].text for item in items]

        assert await texts() == ["5", "4", "3", "2", "1"]
        assert await texts(limit=2, order="asc") == ["1", "2", "3", "4", "5"]
        page = await sdk.responses.input_items.list(made.id, limit=2)
        raw: Any = page.to_dict()
        assert (page.has_more, raw["object"], len(page.data)) == (True, "list", 2)
        assert (raw["first_id"], raw["last_id"]) == (page.data[0].id, page.data[1].id)
        assert raw["data"][1]["content"][0]["type"] == "output_text", "what the assistant said"
        for wish, param in (({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order")):
            with pytest.raises(openai.BadRequestError) as bad:
                await texts(**wish)
            assert bad.value.param == param
        with pytest.raises(openai.NotFoundError) as unknown:
            await texts(after="msg_unknown")
        assert unknown.value.param == "after"


async def test_a_response_that_fails_or_is_left_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=50, ttft_s=0.0, answer_tokens=100))
    engine.faults.add(Fault(FaultKind.CUT_AFTER, chunks=3))
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        with pytest.raises(openai.APIError, match="middle of its answer"):
            await streamed(sdk)
        (failed,) = kept(house)
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        assert "middle of its answer" in failed["error"]["message"]
        assert failed["output"][0]["content"][0]["text"].startswith("word0")
        events = await sdk.responses.create(model=MODEL, input="Hi", stream=True)
        async for event in events:
            if event.type == "response.output_text.delta":
                break
        await events.close()
        await eventually(lambda: len(kept(house)) == 2)
        left = kept(house)[1]
        assert (left["status"], left["error"], left["output"][0]["status"]) == ("cancelled", None, "incomplete")
        assert (await sdk.responses.retrieve(left["id"])).status == "cancelled"
        rows = await house.rows(2)
        assert [OUTCOME(row.outcome) for row in rows] == ["OUTCOME_FAILED", "OUTCOME_CANCELLED"]


async def test_what_was_refused_before_it_began_is_not_kept(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    engine.faults.add(Fault(FaultKind.STATUS, status=400, times=None))
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        for stream in (False, True):
            with pytest.raises(openai.APIError):
                await sdk.responses.create(model=MODEL, input="Hi", stream=stream)
        assert house.admin.contents.things == {}


# --- going on -------------------------------------------------------------------------------------------------------


async def test_a_chain_of_three_is_one_conversation_without_its_instructions(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="repeat: one", instructions="Be brief.")
        two = await sdk.responses.create(model=MODEL, input="repeat: two", previous_response_id=one.id)
        assert two.previous_response_id == one.id
        assert told_to(engine) == [("user", "repeat: one"), ("assistant", "one"), ("user", "repeat: two")]
        asked: Any = {"input": [{"role": "user", "content": "repeat: three"}], "instructions": "Be loud."}
        *_, last = await streamed(sdk, previous_response_id=two.id, **asked)
        assert last.response.output_text == "three"
        assert told_to(engine) == [
            ("system", "Be loud."),
            ("user", "repeat: one"),
            ("assistant", "one"),
            ("user", "repeat: two"),
            ("assistant", "two"),
            ("user", "repeat: three"),
        ]
        items: Any = [item async for item in await sdk.responses.input_items.list(last.response.id)]
        assert [item.content[0].text for item in items] == ["repeat: three"], "its own only"
        chain = {thing.id: thing.parent_id for thing in house.admin.contents.kept("response")}
        assert chain == {one.id: "", two.id: one.id, last.response.id: two.id}


async def test_a_branch_that_is_not_stored_may_go_on_from_a_stored_one(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="repeat: one")
        two = await sdk.responses.create(model=MODEL, input="repeat: b", previous_response_id=one.id, store=False)
        assert len(told_to(engine)) == 3
        assert two.to_dict()["store"] is False
        assert [response["id"] for response in kept(house)] == [one.id]


async def test_the_output_of_a_function_goes_on_from_its_call(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="Hi", tools=[WEATHER], tool_choice="required")
        call: Any = next(item for item in one.output if item.type == "function_call")
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        two = await sdk.responses.create(model=MODEL, input=[output], previous_response_id=one.id, tools=[WEATHER])
        user, assistant, tool = engine.record.requests[-1].body["messages"]
        assert (user["content"], tool["content"]) == ("Hi", "sunny")
        assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"] == call.call_id
        assert "sunny" in two.output_text


async def test_a_call_that_was_cut_off_is_not_gone_on_from(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(
            model=MODEL, input="Hi", tools=[WEATHER], tool_choice="required", max_output_tokens=1
        )
        assert (one.status, one.output[0].type) == ("incomplete", "function_call")
        await sdk.responses.create(model=MODEL, input="Again", previous_response_id=one.id)
        assert [message["role"] for message in engine.record.requests[-1].body["messages"]] == ["user", "user"]


async def test_what_is_not_there_cannot_be_gone_on_from(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="repeat: one")
        two = await sdk.responses.create(model=MODEL, input="repeat: two", previous_response_id=one.id)
        await sdk.responses.delete(one.id)
        for previous in ("resp_unknown", "no id\0at all", two.id):
            with pytest.raises(openai.NotFoundError, match="Previous response with id") as unknown:
                await sdk.responses.create(model=MODEL, input="Hi", previous_response_id=previous)
            assert (unknown.value.code, unknown.value.param) == (
                "previous_response_not_found",
                "previous_response_id",
            )
        rows = await house.rows(5)
        assert [row.reason for row in rows[2:]] == ["not_found"] * 3


async def test_a_chain_has_an_end(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        made = await sdk.responses.create(model=MODEL, input="Hi")
        first = house.admin.contents.things["response", made.id]
        for n in range(1, 101):
            link = type(first)()
            link.CopyFrom(first)
            link.id, link.parent_id = f"resp_{n}", made.id if n == 1 else f"resp_{n - 1}"
            house.admin.contents.things["response", link.id] = link
        assert (await sdk.responses.create(model=MODEL, input="Hi", previous_response_id="resp_99")).output_text == HI
        with pytest.raises(openai.BadRequestError, match="more than 100") as long:
            await sdk.responses.create(model=MODEL, input="Hi", previous_response_id="resp_100")
        assert long.value.param == "previous_response_id"


async def test_another_users_response_is_not_there(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as alice:
        made = await alice.responses.create(model=MODEL, input="Hi")
        bobs, other = house.admin.add_key(**SOMEBODY_ELSE), house.admin.add_key()
        await asyncio.sleep(0.1)
        async with open_sdk(house, bobs) as bob:
            for asked in (
                bob.responses.retrieve(made.id),
                bob.responses.delete(made.id),
                bob.responses.cancel(made.id),
                bob.responses.input_items.list(made.id),
                bob.responses.create(model=MODEL, input="Hi", previous_response_id=made.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await asked
        async with open_sdk(house, other) as sdk:
            assert (await sdk.responses.retrieve(made.id)).id == made.id, "another key of the same user"


# --- other pages ----------------------------------------------------------------------------------------------------


async def test_a_response_that_was_answered_at_once_cannot_be_cancelled(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        made = await sdk.responses.create(model=MODEL, input="Hi")
        with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
            await sdk.responses.cancel(made.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.cancel("resp_unknown")
        with pytest.raises(openai.BadRequestError) as streamed_later:
            await sdk.responses.retrieve(made.id, stream=True)
        assert streamed_later.value.param == "stream"


async def test_what_a_request_would_read_is_counted(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="repeat: one")
        alone = await sdk.responses.input_tokens.count(model=MODEL, input="Hi")
        assert alone.object == "response.input_tokens"
        after = await sdk.responses.input_tokens.count(model=MODEL, input="Hi", previous_response_id=one.id)
        assert after.input_tokens > alone.input_tokens > 0
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.responses.input_tokens.count(model="nothing", input="Hi")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as nothing:
            await sdk.responses.input_tokens.count(input="Hi")
        assert nothing.value.param == "model"
        await house.rows(1)


async def test_pages_need_a_key_and_the_right_method(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        async with house.client.get(f"{house.url}/v1/responses/resp_1?limit=x") as answer:
            assert answer.status == 401
        async with house.client.put(f"{house.url}/v1/responses/resp_1", headers=house.headers) as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "GET, DELETE")
        async with house.client.get(f"{house.url}/v1/responses/resp_1/else", headers=house.headers) as answer:
            assert (await answer.json())["error"]["code"] == "unknown_url"
        async with house.client.get(f"{house.url}/", headers={"accept": "application/json"}) as answer:
            assert "/v1/responses/{response_id}" in (await answer.json())["addresses"]


@pytest.mark.parametrize(
    ("asked", "param", "code"),
    [
        ({"store": "yes"}, "store", "invalid_type"),
        ({"previous_response_id": 7}, "previous_response_id", "invalid_type"),
        ({"conversation": 7}, "conversation", "invalid_type"),
        ({"conversation": {}}, "conversation.id", "missing_required_parameter"),
        ({"conversation": {"id": 7}}, "conversation.id", "invalid_type"),
        (
            {"conversation": "conv_1", "previous_response_id": "resp_1"},
            "conversation",
            "mutually_exclusive_parameters",
        ),
        ({"prompt": {"id": "p"}}, "prompt", "invalid_value"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "invalid_value"),
        ({"input": ...}, "input", "missing_required_parameter"),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_parameter(
    tmp_path: Path, asked: dict[str, Any], param: str, code: str
) -> None:
    async with open_house(tmp_path) as house:
        body = {"model": MODEL, "input": "Hi", **asked}
        body = {name: value for name, value in body.items() if value is not ...}
        async with house.client.post(f"{house.url}/v1/responses", json=body, headers=house.headers) as answer:
            error = (await answer.json())["error"]
            assert (answer.status, error["param"], error["code"]) == (400, param, code)


# --- while admin is away --------------------------------------------------------------------------------------------


async def test_without_admin_what_has_to_be_kept_is_refused_and_the_rest_is_answered(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="Hi")
        await house.stop_server(house.admin)
        for refused in (
            sdk.responses.create(model=MODEL, input="Hi", store=True),
            sdk.responses.create(model=MODEL, input="Hi", previous_response_id=one.id),
            sdk.responses.create(model=MODEL, input="Hi", conversation="conv_1", store=False),
            sdk.responses.retrieve(one.id),
            sdk.responses.delete(one.id),
            sdk.conversations.create(),
        ):
            with pytest.raises(openai.InternalServerError) as away:
                await refused
            assert (away.value.status_code, away.value.code) == (503, "state_unavailable")
            assert away.value.response.headers["retry-after"] == "2"
            assert away.value.response.headers["x-forebay-reason"] == "state_unavailable"
        wishes: tuple[Any, ...] = ({}, {"store": False})
        for asked in wishes:
            made = await sdk.responses.create(model=MODEL, input="Hi", **asked)
            assert (made.output_text, made.to_dict()["store"]) == (HI, False)
            *_, last = await streamed(sdk, **asked)
            assert (last.response.output_text, last.response.to_dict()["store"]) == (HI, False)
        rows = await house.rows(1 + 3 + 4)
        assert [row.reason for row in rows] == ["", *["state_unavailable"] * 3, *[""] * 4]
        await house.start_server(house.admin)
        for _ in range(200):  # until the gateway has found it again
            with suppress(openai.InternalServerError):
                await sdk.responses.retrieve(one.id)
                break
            await asyncio.sleep(0.02)
        assert (await sdk.responses.create(model=MODEL, input="Hi")).to_dict()["store"] is True


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_could_not_be_kept_is_not_spoilt_and_says_so(tmp_path: Path, stream: bool) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        house.admin.contents.is_broken = True
        if stream:
            events = await streamed(sdk)
            assert events[0].response.to_dict()["store"] is True
            assert [event.sequence_number for event in events] == list(range(len(events)))
            made = events[-1].response
        else:
            made = await sdk.responses.create(model=MODEL, input="Hi")
        assert (made.output_text, made.status, made.to_dict()["store"]) == (HI, "completed", False)
        (row,) = await house.rows(1)
        assert OUTCOME(row.outcome) == "OUTCOME_FINISHED"


async def test_an_answer_does_not_wait_long_for_being_kept(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        house.admin.contents.slow_s = 30.0
        asking = asyncio.create_task(sdk.responses.create(model=MODEL, input="Hi"))
        await eventually(lambda: house.scheduler.settles)
        assert not asking.done(), "its slot is free before it is kept"
        made = await asyncio.wait_for(asking, 30)
        assert (made.output_text, made.to_dict()["store"]) == (HI, False)
        assert kept(house) == []


async def test_what_is_being_kept_when_its_client_goes_is_kept_all_the_same(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        house.admin.contents.slow_s = 0.5
        asking = asyncio.create_task(sdk.responses.create(model=MODEL, input="Hi"))
        await eventually(lambda: "Put" in house.admin.contents.calls)
        asking.cancel()
        await asyncio.wait([asking])
        await house.stop_gateway()
        assert [response["status"] for response in kept(house)] == ["completed"]
