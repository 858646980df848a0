"""A budget that is used up while an answer runs: the answer ends there, as if it had reached its length."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import scheduler_pb2
from forebay_gateway.canonical.answer_stream import AnswerStream
from forebay_gateway.canonical.folding import fold_chat as fold
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import OUTCOME, House, ask, eventually, open_house
from tests.gateway.sse_text import events, stream, text_of

SLOW = Pace(tokens_per_s=40, answer_tokens=400)


def cut_off(house: House) -> None:
    (ledger_id,) = house.scheduler.held
    house.scheduler.say(cutoffs=[scheduler_pb2.Cutoff(ledger_id=ledger_id, reason="quota_spent")])


@pytest.mark.parametrize("wants_usage", [True, False])
async def test_a_stream_ends_with_finish_reason_length(tmp_path: Path, wants_usage: bool) -> None:
    engine = FakeEngine(pace=SLOW)
    async with open_house(tmp_path, engine) as house:
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if wants_usage else {}
        running = asyncio.create_task(stream(house, **options))
        await eventually(lambda: house.scheduler.progress)
        cut_off(house)
        told = await asyncio.wait_for(running, 30)
        assert told.pop() == "[DONE]"
        if wants_usage:
            last = told.pop()
            assert last["choices"] == []
            assert last["usage"]["completion_tokens"] > 0
            assert last["id"] == told[0]["id"]
        assert [choice["finish_reason"] for choice in told[-1]["choices"]] == ["length"]
        assert told[-1]["id"] == told[0]["id"]
        assert told[-1]["model"] == "fake-model"
        await eventually(lambda: engine.slots.running == 0)
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason, row.http_status) == ("OUTCOME_FINISHED", "quota_spent", 200)
        assert row.usage.completion_tokens == len([event for event in told if text_of([event])])
        (settle,) = house.scheduler.settles
        assert OUTCOME(settle.outcome) == "OUTCOME_FINISHED"
        assert settle.usage.completion_tokens == row.usage.completion_tokens


@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.LLAMA_CPP])
async def test_a_plain_answer_of_a_limited_key_is_what_there_was(tmp_path: Path, flavour: Flavour) -> None:
    engine = FakeEngine(flavour=flavour, pace=SLOW)
    async with open_house(tmp_path, engine) as house:
        house.scheduler.rate = scheduler_pb2.RateStanding(limit_tokens=1000, remaining_tokens=10)
        running = asyncio.create_task(_plain(house))
        await eventually(lambda: house.scheduler.progress)
        cut_off(house)
        status, reason, body = await asyncio.wait_for(running, 30)
        assert (status, reason) == (200, "quota_spent")
        (choice,) = body["choices"]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"].startswith("word0")
        assert body["usage"]["completion_tokens"] > 0
        assert body["object"] == "chat.completion"
        await eventually(lambda: engine.slots.running == 0)
        (row,) = await house.rows(1)
        assert (OUTCOME(row.outcome), row.reason) == ("OUTCOME_FINISHED", "quota_spent")


@pytest.mark.parametrize(("most", "is_streamed"), [(64, False), (65, True)])
async def test_a_plain_answer_of_a_limited_key_is_counted_when_it_may_be_long(
    tmp_path: Path, most: int, is_streamed: bool
) -> None:
    engine = FakeEngine(flavour=Flavour.VLLM)
    async with open_house(tmp_path, engine) as house:
        house.scheduler.rate = scheduler_pb2.RateStanding(limit_tokens=1000, remaining_tokens=10)
        async with house.post(ask(max_tokens=most)) as answer:
            assert answer.status == 200
        assert bool(engine.record.requests[-1].streamed) is is_streamed


async def test_a_cutoff_before_the_first_token_lets_one_piece_through(tmp_path: Path) -> None:
    engine = FakeEngine(pace=Pace(tokens_per_s=40, answer_tokens=400, ttft_s=0.4))
    async with open_house(tmp_path, engine) as house:
        running = asyncio.create_task(stream(house))
        await eventually(lambda: house.scheduler.held)
        cut_off(house)
        told = await asyncio.wait_for(running, 30)
        assert told[-1] == "[DONE]"
        assert told[-2]["choices"][0]["finish_reason"] == "length"


async def _plain(house: House) -> tuple[int, str | None, Any]:
    async with house.post(ask()) as answer:
        return answer.status, answer.headers.get("x-forebay-reason"), json.loads(await answer.read())


def chunk(index: int, text: str, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "created": 3, "model": "m", "choices": [choice]}).encode() + b"\n\n"


def test_only_the_choices_that_are_still_open_are_cut() -> None:
    chat = AnswerStream("m", 2, wants_usage=True)
    assert not chat.can_be_cut, "nothing is there yet"
    chat.feed(chunk(0, "a") + chunk(1, "b") + chunk(0, "", "stop"))
    assert chat.can_be_cut
    told = events((chat.cut(7) + chat.tail(9)).decode())
    assert told[0]["choices"] == [{"index": 1, "delta": {}, "finish_reason": "length"}]
    assert (told[0]["id"], told[0]["created"], told[0]["object"]) == ("c", 3, "chat.completion.chunk")
    assert told[1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert told[2] == "[DONE]"
    used = chat.usage(7)
    assert (used.prompt, used.completion, used.source) == (7, 2, "counted")
    assert not chat.can_be_cut
    assert chat.feed(chunk(1, "late")) == b""


def test_an_answer_that_is_finished_already_is_not_cut() -> None:
    chat = AnswerStream("m", 1, wants_usage=False)
    chat.feed(chunk(0, "a") + chunk(0, "", "stop"))
    assert not chat.can_be_cut


def test_a_cut_answer_is_folded_with_its_finish_reason() -> None:
    chat = AnswerStream("m", 1, wants_usage=True, keeps_chunks=True)
    chat.feed(chunk(0, "some ") + chunk(0, "words"))
    chat.cut(7)
    assert chat.chunks is not None
    whole = fold(chat.chunks, "m", chat.reported)
    assert whole["choices"][0]["message"]["content"] == "some words"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 2
