"""What clients of the Responses API carry between two turns unread: the names of items, and concealed thoughts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, open_house
from tests.gateway.test_conversations import said
from tests.gateway.test_stored_responses import HI, SOMEBODY_ELSE, WEATHER, open_sdk, streamed, told_to

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)
STATELESS: Any = {"store": False, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"}}


def named(id: str) -> Any:
    return {"type": "item_reference", "id": id}


async def somebody_else(house: House) -> object:
    key = house.admin.add_key(**SOMEBODY_ELSE)
    await asyncio.sleep(0.1)
    return key


# --- items that are named -------------------------------------------------------------------------------------------


async def test_items_of_stored_responses_are_found_by_their_names(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="Hi")
        (asked,) = [item async for item in await sdk.responses.input_items.list(one.id)]
        bare: Any = {"id": one.output[0].id}  # some clients leave the type out
        items: Any = [named(asked.id or ""), bare, said("repeat: two")]
        house.admin.contents.calls.clear()
        two = await sdk.responses.create(model=MODEL, input=items)
        assert told_to(engine) == [("user", "Hi"), ("assistant", HI), ("user", "repeat: two")]
        assert house.admin.contents.calls == ["Get", "Put"], "one look for all items of a response"
        kept: Any = [item async for item in await sdk.responses.input_items.list(two.id, order="asc")]
        assert [item.content[0].text for item in kept] == ["Hi", HI, "repeat: two"]
        assert {item.id for item in kept}.isdisjoint({asked.id, one.output[0].id})
        counted = await sdk.responses.input_tokens.count(model=MODEL, input=items)
        alone = await sdk.responses.input_tokens.count(model=MODEL, input=[said("repeat: two")])
        assert counted.input_tokens > alone.input_tokens


async def test_a_call_is_named_and_its_output_sent(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="Hi", tools=[WEATHER], tool_choice="required")
        call: Any = one.output[0]
        output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        two = await sdk.responses.create(model=MODEL, input=[said("Hi"), named(call.id), output], tools=[WEATHER])
        assert "sunny" in two.output_text
        cut = await sdk.responses.create(
            model=MODEL, input="Hi", tools=[WEATHER], tool_choice="required", max_output_tokens=1
        )
        assert cut.output[0].id is not None
        await sdk.responses.create(model=MODEL, input=[named(cut.output[0].id), said("Again")])
        assert told_to(engine) == [("user", "Again")], "a call that was cut off was never made"


async def test_an_item_that_is_named_often_counts_as_often(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine, max_body_bytes=20_000) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="x" * 1000, max_output_tokens=1)
        (asked,) = [item async for item in await sdk.responses.input_items.list(one.id)]
        item = named(asked.id or "")
        await sdk.responses.create(model=MODEL, input=[item] * 9)
        assert len(told_to(engine)) == 9
        with pytest.raises(openai.APIStatusError, match="more than 20000 bytes") as refused:
            await sdk.responses.create(model=MODEL, input=[item] * 30)
        assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
        with pytest.raises(openai.APIStatusError, match="more than 20000 bytes"):
            await sdk.responses.input_tokens.count(model=MODEL, input=[item] * 30)
        house.admin.contents.calls.clear()
        with pytest.raises(openai.BadRequestError, match="names 101 items"):
            await sdk.responses.create(model=MODEL, input=[item] * 101)
        assert house.admin.contents.calls == []
        assert len(engine.record.requests) == 2
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_what_a_request_builds_on_counts_like_what_it_brings(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK, context_tokens=100_000)
    async with open_house(tmp_path, engine, max_body_bytes=20_000) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="x" * 12_000, max_output_tokens=1)
        conversation = await sdk.conversations.create(items=[said("y" * 12_000)])
        for builds_on in ({"previous_response_id": one.id}, {"conversation": conversation.id}):
            asked: Any = {"model": MODEL, "input": "z" * 9_000, **builds_on}
            with pytest.raises(openai.APIStatusError, match="more than 20000 bytes") as refused:
                await sdk.responses.create(**asked)
            assert refused.value.status_code == 413
            with pytest.raises(openai.APIStatusError, match="more than 20000 bytes"):
                await sdk.responses.input_tokens.count(**asked)
        assert len(engine.record.requests) == 1
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_what_is_looked_up_is_held_within_the_budget(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK, context_tokens=100_000)
    async with open_house(tmp_path, engine, held_bodies_bytes=30_000) as house, open_sdk(house) as sdk:
        one = await sdk.responses.create(model=MODEL, input="x" * 9_000, max_output_tokens=1)
        (asked,) = [item async for item in await sdk.responses.input_items.list(one.id)]
        with pytest.raises(openai.APIStatusError, match="memory") as refused:
            await sdk.responses.create(model=MODEL, input=[named(asked.id or "")] * 5)
        assert refused.value.status_code == 503
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_items_of_conversations_are_found_too(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        conversation = await sdk.conversations.create(items=[said("repeat: one")])
        (item,) = [item async for item in await sdk.conversations.items.list(conversation.id)]
        assert (await sdk.responses.create(model=MODEL, input=[named(item.id or "")])).output_text == "one"
        made = await sdk.responses.create(model=MODEL, input="repeat: two", conversation=conversation.id, store=False)
        await sdk.responses.create(model=MODEL, input=[named(made.output[0].id or ""), said("Go on")])
        assert told_to(engine) == [("assistant", "two"), ("user", "Go on")]


async def test_what_is_not_kept_for_this_user_cannot_be_named(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        kept = await sdk.responses.create(model=MODEL, input="Hi")
        lost = await sdk.responses.create(model=MODEL, input="Hi", store=False)
        async with open_sdk(house, await somebody_else(house)) as bob:
            for whose, id in ((sdk, lost.output[0].id), (sdk, "msg_1"), (sdk, "no id\0"), (bob, kept.output[0].id)):
                with pytest.raises(openai.NotFoundError, match="Item with id") as unknown:
                    await whose.responses.create(model=MODEL, input=[named(id or "")])
                assert (unknown.value.param, unknown.value.type) == ("input", "invalid_request_error")
        with pytest.raises(openai.BadRequestError, match="101 items") as many:
            await sdk.responses.create(model=MODEL, input=[named(f"msg_{n}") for n in range(101)])
        assert many.value.param == "input"


# --- thoughts -------------------------------------------------------------------------------------------------------


async def thoughts_of(sdk: openai.AsyncOpenAI, stream: bool, **asked: Any) -> Any:
    wish = {**STATELESS, **asked}
    if not stream:
        made = await sdk.responses.create(model=MODEL, input="Hi", **wish)
        return next(item for item in made.output if item.type == "reasoning")
    events = await streamed(sdk, **wish)
    told = [event.item for event in events if event.type == "response.output_item.done"]
    thought = next(item for item in told if item.type == "reasoning")
    assert thought == next(item for item in events[-1].response.output if item.type == "reasoning")
    return thought


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_are_carried_by_a_client_that_cannot_read_them(tmp_path: Path, stream: bool) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        thought = await thoughts_of(sdk, stream)
        text = thought.content[0].text
        assert text
        assert text not in thought.encrypted_content
        carried: Any = {"type": "reasoning", "summary": [], "encrypted_content": thought.encrypted_content}
        turn: Any = [said("Hi"), carried, said("Hello.", "assistant"), said("And?")]
        await sdk.responses.create(model=MODEL, input=turn, **STATELESS)
        user, assistant, more = engine.record.requests[-1].body["messages"]
        assert assistant == {"role": "assistant", "content": "Hello.", "reasoning_content": text}
        assert (user["content"], more["content"]) == ("Hi", "And?")
        assert house.admin.contents.things == {}


async def test_thoughts_are_concealed_for_those_who_ask_for_it(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        for stream in (False, True):
            assert (await thoughts_of(sdk, stream, include=[])).encrypted_content is None
        one = await thoughts_of(sdk, False)
        two = await thoughts_of(sdk, False)
        assert one.content == two.content
        assert one.encrypted_content != two.encrypted_content


async def test_thoughts_that_were_changed_or_are_anothers_are_refused(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        good = (await thoughts_of(sdk, False)).encrypted_content
        changed = good[:30] + ("A" if good[30] != "A" else "B") + good[31:]
        async with open_sdk(house, await somebody_else(house)) as bob:
            for whose, content in ((sdk, changed), (sdk, "gAAAAABfremd"), (sdk, "é"), (sdk, good[:-4]), (bob, good)):
                carried: Any = {"type": "reasoning", "summary": [], "encrypted_content": content}
                with pytest.raises(openai.BadRequestError, match="cannot be read here") as refused:
                    await whose.responses.create(model=MODEL, input=[said("Hi"), carried])
                assert refused.value.code == "invalid_encrypted_content"
                assert refused.value.param == "input[1].encrypted_content"
        foreign: Any = {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABfremd"}
        with pytest.raises(openai.BadRequestError) as kept:
            await sdk.conversations.create(items=[foreign])
        assert kept.value.code == "invalid_encrypted_content"


async def test_another_gateway_with_the_same_pepper_reads_them(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    engine, other = FakeEngine(pace=QUICK), FakeEngine(pace=QUICK)
    async with open_house(tmp_path / "one", engine) as one, open_house(tmp_path / "two", other) as two:
        async with open_sdk(one) as sdk:
            thought = await thoughts_of(sdk, True)
        async with open_sdk(two) as sdk:
            carried: Any = {**thought.to_dict(), "content": None}
            await sdk.responses.create(model=MODEL, input=[said("Hi"), carried, said("Hello.", "assistant"), said("?")])
        assert other.record.requests[-1].body["messages"][1]["reasoning_content"] == thought.content[0].text


async def test_log_probabilities_come_when_they_are_included(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        made: Any = await sdk.responses.create(model=MODEL, input="Hi", include=["message.output_text.logprobs"])
        assert [entry.token.strip() for entry in made.output[0].content[0].logprobs] == HI.split()
