"""Batches as OpenAI's SDK knows them, in front of an admin that keeps them; how they are run is admin's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from forebay.wire.v1 import batches_pb2 as pb
from tests.fakes.engine import FakeEngine
from tests.gateway.house import House, open_house

CHAT: Any = "/v1/chat/completions"
WINDOW: Any = "24h"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path, FakeEngine()) as opened:
        yield opened


@asynccontextmanager
async def open_sdk(house: House, key: object = None) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=str(key or house.key), max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def sdk(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with open_sdk(house) as opened:
        yield opened


async def upload(sdk: openai.AsyncOpenAI, purpose: Any = "batch") -> str:
    return (await sdk.files.create(file=("in.jsonl", b"{}\n"), purpose=purpose)).id


async def test_a_batch_is_made_shown_and_cancelled(house: House, sdk: openai.AsyncOpenAI) -> None:
    file_id = await upload(sdk)
    made = await sdk.batches.create(
        input_file_id=file_id,
        endpoint=CHAT,
        completion_window=WINDOW,
        metadata={"for": "tests"},
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert (made.object, made.status, made.endpoint, made.input_file_id) == ("batch", "validating", CHAT, file_id)
    assert (made.completion_window, made.metadata, made.errors) == ("24h", {"for": "tests"}, None)
    assert (made.expires_at or 0) - made.created_at == 86_400
    assert (made.output_file_id, made.in_progress_at) == (None, None)
    (order,) = house.admin.batches.orders
    assert (order.user_id, order.key_id, order.output_expires_s) == ("u-1", house.key.public_id, 7200)
    assert await sdk.batches.retrieve(made.id) == made
    cancelled = await sdk.batches.cancel(made.id)
    assert (cancelled.status, cancelled.cancelling_at) == ("cancelling", 1_800_000_001)


async def test_what_became_of_it_is_told_in_openais_words(house: House, sdk: openai.AsyncOpenAI) -> None:
    made = await sdk.batches.create(input_file_id=await upload(sdk), endpoint=CHAT, completion_window=WINDOW)
    kept = house.admin.batches.batches[made.id]
    kept.MergeFrom(
        pb.Batch(
            status="failed",
            errors=[
                pb.BatchError(code="invalid_url", message="It must be another.", line=3, param="url"),
                pb.BatchError(code="key_revoked", message="The key was revoked."),
            ],
            entered_at_us={"in_progress": 1_800_000_002_500_000, "failed": 1_800_000_003_000_000},
            output_file_id="file-out",
            total=7,
            completed=5,
            failed=2,
        )
    )
    told = await sdk.batches.retrieve(made.id)
    assert (told.status, told.in_progress_at, told.failed_at) == ("failed", 1_800_000_002, 1_800_000_003)
    assert (told.output_file_id, told.error_file_id) == ("file-out", None)
    assert told.request_counts is not None
    assert told.request_counts.to_dict() == {"total": 7, "completed": 5, "failed": 2}
    assert told.errors is not None
    assert [(e.code, e.line, e.param) for e in told.errors.data or []] == [
        ("invalid_url", 3, "url"),
        ("key_revoked", None, None),
    ]
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a batch with status 'failed'"):
        await sdk.batches.cancel(made.id)


async def test_batches_are_listed_page_by_page(house: House, sdk: openai.AsyncOpenAI) -> None:
    file_id = await upload(sdk)
    made = [
        (await sdk.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=WINDOW)).id for _ in range(5)
    ]
    page = await sdk.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == (made[:2:-1], True)
    assert [batch.id async for batch in await sdk.batches.list(limit=2)] == made[::-1]
    for after in ("batch_nobody", "no id at all"):
        with pytest.raises(openai.NotFoundError, match="No batch found"):
            await sdk.batches.list(after=after)


async def test_another_users_batch_and_file_are_not_there(house: House, sdk: openai.AsyncOpenAI) -> None:
    file_id = await upload(sdk)
    made = await sdk.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=WINDOW)
    async with open_sdk(house, house.admin.add_key(user_id="u-2", user_name="bob")) as bob:
        while True:  # until the gateway knows the key
            try:
                assert (await bob.batches.list()).data == []
                break
            except openai.AuthenticationError:
                continue
        for attempt in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError, match=f"No batch found with id '{made.id}'"):
                await attempt(made.id)
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file_id}") as refused:
            await bob.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window=WINDOW)
        assert refused.value.param == "input_file_id"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"endpoint": None}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "now", "seconds": 7200}}, "output_expires_after.anchor"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": True}}, "output_expires_after.seconds"),
    ],
)
async def test_a_wrong_field_is_named(house: House, wrong: dict[str, Any], param: str) -> None:
    body = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h", **wrong}
    async with house.client.post(f"{house.url}/v1/batches", json=body, headers=house.headers) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert house.admin.batches.orders == []


async def test_a_file_for_something_else_and_one_too_many_are_refused(house: House, sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="another purpose") as refused:
        await sdk.batches.create(input_file_id=await upload(sdk, "user_data"), endpoint=CHAT, completion_window=WINDOW)
    assert refused.value.param == "input_file_id"
    house.admin.batches.most = 0
    with pytest.raises(openai.BadRequestError, match="have not ended") as refused:
        await sdk.batches.create(input_file_id=await upload(sdk), endpoint=CHAT, completion_window=WINDOW)
    assert refused.value.code == "too_many_batches"


async def test_without_admin_they_are_out_of_reach_and_say_when_to_come_back(
    house: House, sdk: openai.AsyncOpenAI
) -> None:
    house.admin.batches.is_broken = True
    with pytest.raises(openai.InternalServerError, match="those that were made go on") as refused:
        await sdk.batches.retrieve("batch_1")
    assert refused.value.code == "state_unavailable"
    assert refused.value.response.headers["retry-after"] == "2"


async def test_nobody_without_a_key(house: House) -> None:
    for path in ("/v1/batches", "/v1/batches/batch_1"):
        async with house.client.get(house.url + path) as answer:
            assert answer.status == 401


async def test_anthropics_batches_are_refused_in_its_words(house: House) -> None:
    async with anthropic.AsyncAnthropic(base_url=house.url, api_key=str(house.key), max_retries=0) as sdk:
        with pytest.raises(anthropic.APIStatusError, match="no message batches") as refused:
            await sdk.messages.batches.list()
        assert refused.value.status_code == 501
        told: Any = refused.value.body
        assert told["type"] == "error"
        with pytest.raises(anthropic.APIStatusError, match="POST /v1/batches"):
            await sdk.messages.batches.retrieve("msgbatch_1")
