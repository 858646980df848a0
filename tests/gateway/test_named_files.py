"""Files that requests name or bring along: what the engine gets of them, and which are refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from forebay.wire.v1 import types_pb2
from tests.compatibility.matrix import house_before
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_orders import Pace
from tests.fakes.provider import FakeProvider
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_gemini import FakeGemini
from tests.gateway.house import MODEL, House, ask, eventually, open_house
from tests.gateway.test_pictures import PNG
from tests.gateway.test_stored_responses import SOMEBODY_ELSE, open_sdk

PDF = b"%PDF-1.7\n\xff\xfe rivers"
PDF_URL = f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}"
QUICK = Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=4)


def engine() -> FakeEngine:
    return FakeEngine(pace=QUICK)


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    return ask(messages=[{"role": "user", "content": list(parts)}], **fields)


def text(words: str) -> Any:
    return {"type": "text", "text": words}


def file_part(**told: Any) -> Any:
    return {"type": "file", "file": told}


def last_said(fake: FakeEngine) -> Any:
    return fake.record.requests[-1].body["messages"][-1]["content"]


async def keep(sdk: openai.AsyncOpenAI, name: str, content: bytes) -> str:
    return (await sdk.files.create(file=(name, content), purpose="user_data")).id


async def refusal(house: House, body: Any) -> tuple[int, Any]:
    async with house.post(body) as answer:
        return answer.status, (await answer.json())["error"]


# --- texts and pictures, which every engine takes ---------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stored_text_is_told_with_its_name(tmp_path: Path, stream: bool) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "rivers.md", b"# Rivers\n" + b"Nile\n" * 4000)
        async with house.post(chat(text("Sum up."), file_part(file_id=id), stream=stream)) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()
        said = last_said(fake)
        assert said.startswith('Sum up.\n<file name="rivers.md">\n# Rivers\nNile\n')
        assert said.endswith("Nile\n\n</file>")
        (row,) = await house.rows(1)
        assert row.usage.prompt_tokens > 4000
        assert house.scheduler.submits[0].prompt_tokens > 2000, "the file is part of what is estimated"
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_responses_name_files_in_each_of_their_ways(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as sdk:
        notes, picture = await keep(sdk, "notes.txt", "Grüße".encode()), await keep(sdk, "a.png", PNG)
        inline = f"data:text/csv;base64,{base64.b64encode(b'a,b').decode()}"
        content: Any = [
            {"type": "input_text", "text": "What are these?"},
            {"type": "input_file", "file_id": notes},
            {"type": "input_file", "file_data": inline, "filename": "t.csv"},
            {"type": "input_file", "file_data": base64.b64encode(b"bare").decode(), "filename": "bare"},
            {"type": "input_image", "file_id": picture, "detail": "low"},
        ]
        made = await sdk.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
        assert made.status == "completed"
        said = last_said(fake)
        assert [part.get("text") for part in said[:4]] == [
            "What are these?",
            '<file name="notes.txt">\nGrüße\n</file>',
            '<file name="t.csv">\na,b\n</file>',
            '<file name="bare">\nbare\n</file>',
        ]
        url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
        assert said[4] == {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
        items: Any = [item async for item in await sdk.responses.input_items.list(made.id)]
        assert items[0].content[1].file_id == notes, "what is kept names the file and does not have it"
        again = await sdk.responses.create(model=MODEL, input="Again?", previous_response_id=made.id)
        assert again.status == "completed"
        assert fake.record.requests[-1].body["messages"][0]["content"] == said
        long = await keep(sdk, "long.txt", b"word " * 3000)
        asked: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": long}]}]
        assert (await sdk.responses.input_tokens.count(model=MODEL, input=asked)).input_tokens > 2500
        await sdk.files.delete(notes)
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {notes}"):
            await sdk.responses.create(model=MODEL, input="And now?", previous_response_id=again.id)


async def test_what_a_function_gave_may_be_a_file(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "log.txt", b"all is well")
        items: Any = [
            {"role": "user", "content": "Look."},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_file", "file_id": id}]},
        ]
        assert (await sdk.responses.create(model=MODEL, input=items)).status == "completed"
        assert last_said(fake) == 'Output of c1:\n<file name="log.txt">\nall is well\n</file>'


# --- files by their address -------------------------------------------------------------------------------------------


@pytest.fixture
async def library() -> AsyncIterator[str]:
    async def book(_: web.Request) -> web.Response:
        return web.Response(text="Once.", content_type="text/plain")

    app = web.Application()
    app.router.add_get("/a book.txt", book)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"localhost:{site.port}"
    await runner.cleanup()


async def test_a_file_is_fetched_from_public_places_alone(tmp_path: Path, library: str) -> None:
    fake = engine()

    def named(url: str) -> Any:
        return [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]

    async with open_house(tmp_path, fake, trusted_picture_hosts="localhost") as house, open_sdk(house) as sdk:
        await sdk.responses.create(model=MODEL, input=named(f"http://{library}/a%20book.txt"))
        assert last_said(fake) == '<file name="a book.txt">\nOnce.\n</file>'
        port = library.partition(":")[2]
        for url, why in (
            (f"http://127.0.0.1:{port}/a%20book.txt", "not a public one"),
            (f"http://{library}/nothing", "404"),
            ("file:///etc/passwd", "only http"),
            ("http://[", "no answer"),
        ):
            with pytest.raises(openai.BadRequestError, match=why) as refused:
                await sdk.responses.create(model=MODEL, input=named(url))
            assert refused.value.param == "input[0].content[0].file_url"
        assert len(fake.record.requests) == 1


# --- PDFs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "kind"),
    [(FakeAnthropic, types_pb2.ENGINE_KIND_ANTHROPIC), (FakeGemini, types_pb2.ENGINE_KIND_GEMINI)],
)
async def test_a_pdf_goes_to_providers_in_their_own_words(
    tmp_path: Path, made: type[FakeProvider], kind: types_pb2.EngineKind.ValueType
) -> None:
    async with house_before(tmp_path, made(models=(MODEL,)), kind) as (house, provider), open_sdk(house) as sdk:
        id = await keep(sdk, "a.pdf", PDF)
        for part in (file_part(file_id=id), file_part(filename="a.pdf", file_data=PDF_URL)):
            async with house.post(chat(text("Sum up."), part)) as answer:
                assert answer.status == 200, await answer.text()
            body = provider.asked[-1].body
            encoded = base64.b64encode(PDF).decode()
            if made is FakeAnthropic:
                source = {"type": "base64", "media_type": "application/pdf", "data": encoded}
                assert body["messages"][0]["content"][1] == {"type": "document", "source": source}
            else:
                shown = {"mimeType": "application/pdf", "data": encoded}
                assert body["contents"][0]["parts"][1] == {"inlineData": shown}


async def test_what_speaks_openais_dialect_gets_a_pdf_as_it_is(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as sdk:
        await house.put("b1", fake.url, kind=types_pb2.ENGINE_KIND_OPENAI)
        id = await keep(sdk, "a.pdf", PDF)
        await asyncio.sleep(0.1)
        expected = file_part(filename="a.pdf", file_data=PDF_URL)
        for part in (file_part(file_id=id), expected):
            async with house.post(chat(text("Sum up."), part)) as answer:
                assert answer.status == 200, await answer.text()
            assert last_said(fake) == [text("Sum up."), expected]


async def test_where_no_engine_reads_pdfs_one_is_refused_by_its_field(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "a.pdf", PDF)
        status, error = await refusal(house, chat(text("Sum up."), file_part(file_id=id)))
        assert (status, error["param"]) == (400, "messages[0].content[1].file.file_id")
        assert "is a PDF" in error["message"]
        content: Any = [{"type": "input_file", "file_data": PDF_URL, "filename": "a.pdf"}]
        with pytest.raises(openai.BadRequestError, match="is a PDF") as refused:
            await sdk.responses.create(model=MODEL, input=[{"role": "user", "content": content}])
        assert refused.value.param == "input[0].content[0].file_data"
        assert not fake.record.requests
        assert house.scheduler.submits == []


async def test_of_several_engines_only_those_that_read_pdfs_get_one(tmp_path: Path) -> None:
    blind, reader = engine(), engine()
    async with open_house(tmp_path, blind, reader) as house:
        await house.put("b2", reader.url, kind=types_pb2.ENGINE_KIND_OPENAI)
        await asyncio.sleep(0.1)
        for number in range(1, 4):
            async with house.post(chat(text("Sum up."), file_part(file_data=PDF_URL, filename="a.pdf"))) as answer:
                assert answer.status == 200, await answer.text()
                assert answer.headers["x-forebay-attempts"] == "1"
            assert len(reader.record.requests) == number
        assert list(house.scheduler.submits[0].excluded_backends) == ["b1"]
        house.scheduler.lend(1, "b1", 2)
        await eventually(lambda: house.metric("forebay_gateway_credit_slots") == 2)
        async with house.post(chat(text("Sum up."), file_part(file_data=PDF_URL, filename="a.pdf"))) as answer:
            assert answer.status == 200
        assert not blind.record.requests


# --- what is refused --------------------------------------------------------------------------------------------------


async def test_anothers_file_is_none_and_a_refused_request_reads_none(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake) as house, open_sdk(house) as alice:
        id = await keep(alice, "a.txt", b"secret")
        bobs = house.admin.add_key(**SOMEBODY_ELSE)
        await asyncio.sleep(0.1)
        headers = {"authorization": f"Bearer {bobs}"}
        for named in (id, "file-unknown", "", "no id"):
            async with house.post(chat(file_part(file_id=named)), headers=headers) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["param"]) == (404, "messages[0].content[0].file.file_id")
                assert error["message"] == f"No such File object: {named}"
        calls = len(house.admin.contents.calls)
        status, error = await refusal(house, chat(file_part(file_id=id), model="unknown"))
        assert (status, error["code"]) == (404, "model_not_found")
        status, error = await refusal(house, chat(file_part(file_id=id), file_part(file_id=id, file_data="eA==")))
        assert (status, error["param"]) == (400, "messages[0].content[1].file.file_data")
        assert len(house.admin.contents.calls) == calls
        assert not fake.record.requests


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (file_part(), "file.file_id"),
        ({"type": "file"}, "file.file_id"),
        ({"type": "file", "file": "x"}, "file.file_id"),
        (file_part(file_id=7), "file.file_id"),
        (file_part(file_data="not base64!"), "file.file_data"),
        (file_part(file_data="data:text/plain,plain"), "file.file_data"),
        (file_part(file_data=base64.b64encode(b"PK\x03\x04\xff\x00").decode()), "file.file_data"),
        ({"type": "image_url", "image_url": {"file_id": "file-1"}}, "image_url.file_id"),
    ],
)
async def test_what_names_no_file_is_refused_with_its_field(tmp_path: Path, part: Any, param: str) -> None:
    async with open_house(tmp_path, engine()) as house:
        status, error = await refusal(house, chat(text("x"), part))
        assert (status, error["param"]) == (404 if "image" in param else 400, f"messages[0].content[1].{param}")


async def test_too_many_and_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    fake = engine()
    async with open_house(tmp_path, fake, max_body_bytes=10_000) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "a.txt", b"x" * 6000)
        async with house.post(chat(file_part(file_id=id))) as answer:
            assert answer.status == 200
        status, error = await refusal(house, chat(*[file_part(file_id=id)] * 2))
        assert (status, error["code"]) == (413, "request_too_large")
        downloads = house.admin.contents.calls.count("Download")
        assert downloads == 2
        status, error = await refusal(house, chat(*[file_part(file_id="f")] * 65))
        assert (status, error["param"]) == (400, "messages[0].content[64].file.file_id")
        assert house.metric("forebay_gateway_held_body_bytes") == 0


async def test_the_budget_of_held_bodies_counts_files_too(tmp_path: Path) -> None:
    async with open_house(tmp_path, engine(), held_bodies_bytes=20_000) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "a.txt", b"x" * 15_000)
        async with house.post(chat(file_part(file_id=id))) as answer:
            assert answer.status == 200
        status, error = await refusal(house, chat(*[file_part(file_id=id)] * 2))
        assert (status, error["code"]) == (503, "queue_full")


async def test_while_admin_is_away_only_what_is_stored_is_out_of_reach(tmp_path: Path) -> None:
    async with open_house(tmp_path, engine()) as house, open_sdk(house) as sdk:
        id = await keep(sdk, "a.txt", b"x")
        house.admin.contents.is_broken = True
        status, error = await refusal(house, chat(file_part(file_id=id)))
        assert (status, error["code"]) == (503, "state_unavailable")
        async with house.post(chat(file_part(file_data=base64.b64encode(b"x").decode()))) as answer:
            assert answer.status == 200
