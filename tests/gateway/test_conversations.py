"""OpenAI's conversations with its SDK: made, filled by hand and by responses, read, changed, deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, open_house
from tests.gateway.test_stored_responses import HI, SOMEBODY_ELSE, open_sdk, streamed, told_to

QUICK = Pace(tokens_per_s=2000, ttft_s=0.0, answer_tokens=4)


def said(text: str, role: str = "user") -> Any:
    return {"type": "message", "role": role, "content": text}


async def texts(sdk: openai.AsyncOpenAI, conversation_id: str, **wish: Any) -> list[str]:
    items: Any = [item async for item in await sdk.conversations.items.list(conversation_id, **wish)]
    return [item.content[0].text for item in items]


def items_kept(house: House) -> int:
    return len(house.admin.contents.kept("item"))


async def test_a_conversation_is_made_changed_and_deleted_with_what_is_in_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        empty = await sdk.conversations.create()
        assert (empty.object, empty.metadata) == ("conversation", {})
        made = await sdk.conversations.create(metadata={"topic": "demo"}, items=[said("one"), said("two", "assistant")])
        assert await sdk.conversations.retrieve(made.id) == made
        changed = await sdk.conversations.update(made.id, metadata={"topic": "other"})
        assert (changed.id, changed.created_at, changed.metadata) == (made.id, made.created_at, {"topic": "other"})
        assert await sdk.conversations.retrieve(made.id) == changed
        assert await texts(sdk, made.id) == ["two", "one"]
        gone = await sdk.conversations.delete(made.id)
        assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
        assert items_kept(house) == 0
        for asked in (
            sdk.conversations.retrieve(made.id),
            sdk.conversations.update(made.id, metadata={}),
            sdk.conversations.delete(made.id),
            sdk.conversations.items.list(made.id),
            sdk.conversations.items.create(made.id, items=[said("x")]),
            sdk.conversations.items.retrieve("msg_1", conversation_id=made.id),
        ):
            with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{made.id}' not found"):
                await asked
        async with house.client.post(f"{house.url}/v1/conversations", headers=house.headers) as answer:
            assert answer.status == 200, "nothing need be said"
        await house.rows(0, wait_s=0.1)


async def test_items_are_added_listed_read_and_deleted(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create()
        other = await sdk.conversations.create(items=[said("elsewhere")])
        call: Any = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
        output: Any = {"type": "function_call_output", "call_id": "c1", "output": "done"}
        added = await sdk.conversations.items.create(talk.id, items=[said("one"), call, output])
        assert [item.type for item in added.data] == ["message", "function_call", "function_call_output"]
        assert (added.first_id, added.last_id, added.has_more) == (added.data[0].id, added.data[-1].id, False)
        assert [item.id async for item in await sdk.conversations.items.list(talk.id, order="asc", limit=2)] == [
            item.id for item in added.data
        ]
        page = await sdk.conversations.items.list(talk.id, limit=2)
        assert ([item.id for item in page.data], page.has_more) == ([added.data[2].id, added.data[1].id], True)
        one: Any = await sdk.conversations.items.retrieve(str(added.data[0].id), conversation_id=talk.id)
        assert (one.content[0].text, one.status) == ("one", "completed")
        for id, conversation_id in ((one.id, other.id), ("msg_unknown", talk.id)):
            with pytest.raises(openai.NotFoundError, match="Item with id"):
                await sdk.conversations.items.retrieve(id, conversation_id=conversation_id)
            with pytest.raises(openai.NotFoundError, match="Item with id"):
                await sdk.conversations.items.delete(id, conversation_id=conversation_id)
        assert await sdk.conversations.items.delete(one.id, conversation_id=talk.id) == talk
        assert len((await sdk.conversations.items.list(talk.id)).data) == 2
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.conversations.items.list(talk.id, after=one.id)
        assert unknown.value.param == "after"


async def test_an_item_that_comes_with_the_id_of_another_does_not_replace_it(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create(items=[said("one")])
        (one,) = (await sdk.conversations.items.list(talk.id)).data
        other = await sdk.conversations.create(items=[said("two") | {"id": one.id}])
        assert (await texts(sdk, talk.id), await texts(sdk, other.id)) == (["one"], ["two"])


async def test_responses_go_on_from_a_conversation_and_are_added_to_it(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create(items=[said("Be brief.", "developer"), said("Earlier")])
        one = await sdk.responses.create(model=MODEL, input="repeat: one", conversation=talk.id, instructions="Loud.")
        assert one.conversation is not None
        assert (one.conversation.id, one.output_text) == (talk.id, "one")
        assert told_to(engine) == [("system", "Loud.\n\nBe brief."), ("user", "Earlier"), ("user", "repeat: one")]
        *_, last = await streamed(sdk, input=[said("repeat: two")], conversation={"id": talk.id})
        assert told_to(engine) == [
            ("system", "Be brief."),
            ("user", "Earlier"),
            ("user", "repeat: one"),
            ("assistant", "one"),
            ("user", "repeat: two"),
        ]
        assert await texts(sdk, talk.id, order="asc") == [
            "Be brief.",
            "Earlier",
            "repeat: one",
            "one",
            "repeat: two",
            "two",
        ]
        assert (await sdk.responses.retrieve(last.response.id)).conversation == last.response.conversation
        item_id = last.response.output[0].id
        assert (await sdk.conversations.items.retrieve(item_id, conversation_id=talk.id)).id == item_id
        count = await sdk.responses.input_tokens.count(model=MODEL, input="Hi", conversation=talk.id)
        assert count.input_tokens > 6 * 3
        assert items_kept(house) == 6


async def test_a_conversation_takes_part_in_a_response_that_is_not_stored_itself(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create(items=[said("repeat: again")])
        made = await sdk.responses.create(model=MODEL, conversation=talk.id, store=False)
        assert made.output_text == "again", "there is enough in it to be answered"
        assert await texts(sdk, talk.id, order="asc") == ["repeat: again", "again"]
        assert house.admin.contents.kept("response") == []


async def test_a_long_conversation_is_read_to_its_end(tmp_path: Path) -> None:
    engine = FakeEngine(pace=QUICK)
    async with open_house(tmp_path, engine) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create()
        for begin in range(0, 220, 20):
            await sdk.conversations.items.create(talk.id, items=[said(str(n)) for n in range(begin, begin + 20)])
        await sdk.responses.create(model=MODEL, input="Hi", conversation=talk.id)
        assert told_to(engine) == [("user", str(n)) for n in range(220)] + [("user", "Hi")]


async def test_an_answer_that_could_not_be_added_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create(items=[said("one")])
        house.scheduler.slots["b1"] = 0
        for store in (True, False):
            asking = asyncio.create_task(
                sdk.responses.create(model=MODEL, input="Hi", conversation=talk.id, store=store)
            )
            while not house.scheduler.queue:
                await asyncio.sleep(0.01)
            house.admin.contents.is_broken = True
            house.scheduler.slots["b1"] = 4
            made = await asking
            assert (made.output_text, made.conversation, made.to_dict()["store"]) == (HI, None, False)
            house.admin.contents.is_broken = False
            house.scheduler.slots["b1"] = 0
        assert await texts(sdk, talk.id) == ["one"]


async def test_another_users_conversation_is_not_there(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as alice:
        talk = await alice.conversations.create(items=[said("one")])
        (one,) = (await alice.conversations.items.list(talk.id)).data
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        await asyncio.sleep(0.1)
        async with open_sdk(house, bobs) as bob:
            his = await bob.conversations.create()
            for asked in (
                bob.conversations.retrieve(talk.id),
                bob.conversations.update(talk.id, metadata={"a": "b"}),
                bob.conversations.delete(talk.id),
                bob.conversations.items.list(talk.id),
                bob.conversations.items.create(talk.id, items=[said("x")]),
                bob.conversations.items.retrieve(str(one.id), conversation_id=talk.id),
                bob.conversations.items.retrieve(str(one.id), conversation_id=his.id),
                bob.conversations.items.delete(str(one.id), conversation_id=his.id),
                bob.responses.create(model=MODEL, input="Hi", conversation=talk.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    await asked
        assert await texts(alice, talk.id) == ["one"]


async def test_what_makes_no_sense_is_refused_with_its_parameter(tmp_path: Path) -> None:
    async with open_house(tmp_path, FakeEngine(pace=QUICK)) as house, open_sdk(house) as sdk:
        talk = await sdk.conversations.create()
        wrong: list[tuple[str, Any, str]] = [
            ("", {"items": "x"}, "items"),
            ("", {"items": ["x"]}, "items[0]"),
            ("", {"items": [{"type": "guess_call"}]}, "items[0].type"),
            ("", {"items": [{"type": "message", "role": "user"}]}, "items[0].content"),
            ("", {"items": [said("x")] * 21}, "items"),
            ("", {"metadata": "x"}, "metadata"),
            ("", {"metadata": {"a": 1}}, "metadata.a"),
            (f"/{talk.id}", {}, "metadata"),
            (f"/{talk.id}/items", {}, "items"),
            (f"/{talk.id}/items", {"items": []}, "items"),
        ]
        for path, body, param in wrong:
            async with house.client.post(
                f"{house.url}/v1/conversations{path}", json=body, headers=house.headers
            ) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["param"]) == (400, param), error
        async with house.client.get(
            f"{house.url}/v1/conversations/{talk.id}/items?limit=all", headers=house.headers
        ) as answer:
            assert (await answer.json())["error"]["param"] == "limit"
        with pytest.raises(openai.NotFoundError) as unknown:
            await sdk.responses.create(model=MODEL, input="Hi", conversation="conv_unknown")
        assert unknown.value.param == "conversation"
