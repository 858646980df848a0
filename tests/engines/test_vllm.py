"""The real vLLM, on this machine's processor, behind a gateway. A chat model with random weights, and a sentence model with
its own; see `vllm_models.py`. Two of them start, which takes minutes."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic
from openai import BadRequestError

from forebay.clock import SystemClock
from forebay.wire.v1 import types_pb2
from forebay_registry.backend import EngineKind
from forebay_registry.engines.probe import Answered, Probe, Target
from forebay_registry.engines.telemetry import ScrapeRhythm, Telemetry
from tests.compatibility.matrix import CLIENTS, client_of
from tests.compatibility.openai_clients import OpenAICompletions
from tests.compatibility.wants import Client, NotInDialect, Said, Want
from tests.conftest import free_port
from tests.engines.conftest import openai_of, put_engine
from tests.engines.program import BUILT, python_of, running, text_at
from tests.gateway.house import MODEL, OUTCOME, House, eventually, open_house

pytestmark = [pytest.mark.engines_heavy, pytest.mark.timeout(600)]

CHAT, SENTENCES = "chat", "sentences"
QUESTION = "What is a river?"
READY_S = 420
GREEDY = '{"temperature": 0}'
"""Of requests that name no temperature."""
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # gigabytes
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
OF_OTHERS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Settings for older libraries than it brings along."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """URLs of one that chats and one that makes vectors, each with MODEL."""
    if (BUILT / "vllm.missing").exists():
        pytest.skip((BUILT / "vllm.missing").read_text().strip())
    options = {
        CHAT: ["--max-model-len", "2048", "--max-num-seqs", "4", "--override-generation-config", GREEDY],
        SENTENCES: ["--runner", "pooling"],
    }
    python, logs = python_of("vllm"), tmp_path_factory.mktemp("vllm")
    env = {name: value for name, value in os.environ.items() if name not in OF_OTHERS} | SETTINGS
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in options}
    with ExitStack() as stack, ThreadPoolExecutor() as starting:

        def start(name: str) -> None:
            command: list[str | Path] = [
                python.with_name("vllm"), "serve", BUILT / "vllm-models" / name, "--served-model-name", MODEL,
                "--host", "127.0.0.1", "--port", urls[name].rpartition(":")[2],
                "--enforce-eager", "--dtype", "float32", *options[name],
            ]  # fmt: skip
            stack.enter_context(running(command, f"{urls[name]}/health", logs / name, env=env, ready_s=READY_S))

        for started in [starting.submit(start, name) for name in options]:
            started.result()
        yield urls


@asynccontextmanager
async def serving(directory: Path, url: str) -> AsyncIterator[House]:
    async with open_house(directory) as house:
        await put_engine(house, url, types_pb2.ENGINE_KIND_VLLM, 4)
        house.engine_url = url
        yield house


@pytest.fixture
async def chatting(vllm: dict[str, str], tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path, vllm[CHAT]) as house:
        yield house


@pytest.fixture
async def embedding(vllm: dict[str, str], tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path, vllm[SENTENCES]) as house:
        yield house


async def asked(house: House, made: type[Client], want: Want, *, stream: bool) -> Said:
    async with client_of(made, house.url, str(house.key)) as client:
        return await client.ask(want, stream=stream)


async def post(house: House, path: str, **body: Any) -> Any:
    async with house.client.post(house.url + path, json={"model": MODEL, **body}, headers=house.headers) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def begun(house: House, body: Any) -> None:
    """Asks, and hears the answer out."""
    async with house.post(body) as answer:
        await answer.read()


def metric_at(house: House, name: str) -> float:
    lines = re.findall(rf"^vllm:{name}\{{.*\}} (\S+)$", text_at(house.engine_url + "/metrics"), re.MULTILINE)
    return sum(map(float, lines))


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_a_stream_says_what_a_whole_answer_says_and_usage_is_the_engines(
    chatting: House, made: type[Client]
) -> None:
    want = Want(QUESTION, max_tokens=12)
    whole, streamed = [await asked(chatting, made, want, stream=stream) for stream in (False, True)]
    assert whole.text == streamed.text != ""
    assert whole.prompt_tokens == streamed.prompt_tokens > 0
    assert (whole.finish, whole.completion_tokens) == (streamed.finish, streamed.completion_tokens) == ("length", 12)
    assert streamed.pieces > 1
    rows = await chatting.rows(2)
    assert [row.usage.prompt_tokens for row in rows] == [whole.prompt_tokens] * 2
    assert [row.usage.completion_tokens for row in rows] == [12, 12]
    assert all(row.usage.source == types_pb2.USAGE_SOURCE_ENGINE for row in rows)


@pytest.mark.parametrize("made", CLIENTS, ids=lambda made: made.name)
async def test_a_stop_string_ends_it_before_that_string(chatting: House, made: type[Client]) -> None:
    said = await asked(chatting, made, Want(QUESTION, max_tokens=12), stream=False)
    stop = said.text.split()[4]
    try:
        stopped = await asked(chatting, made, Want(QUESTION, max_tokens=12, stop=stop), stream=True)
    except NotInDialect:
        return
    assert stopped.finish == "stop"
    assert stopped.text.strip() == said.text.partition(stop)[0].strip() != ""


@pytest.mark.parametrize("stream", [False, True])
async def test_several_prompts_in_words_or_tokens_are_gone_on_with_each_for_itself(
    chatting: House, stream: bool
) -> None:
    prompts = ("One two", "Red green blue")
    alone = [await asked(chatting, OpenAICompletions, Want(text, max_tokens=4), stream=stream) for text in prompts]
    said = await asked(chatting, OpenAICompletions, Want("", prompts=prompts, max_tokens=4), stream=stream)
    assert said.texts == [each.text for each in alone]
    assert said.prompt_tokens == sum(each.prompt_tokens for each in alone)
    in_tokens = await asked(
        chatting, OpenAICompletions, Want("", tokens=(101, 2028, 2048), max_tokens=4), stream=stream
    )
    assert in_tokens.text
    assert in_tokens.prompt_tokens == 3
    several = await asked(chatting, OpenAICompletions, Want("One two", n=2, max_tokens=4), stream=stream)
    assert len(several.texts) == 2
    assert several.completion_tokens == 8


@pytest.mark.parametrize("stream", [False, True])
async def test_an_echo_brings_the_prompt_back_and_its_log_probabilities(chatting: House, stream: bool) -> None:
    want = Want("one two", echo=True, logprobs=1, max_tokens=4)
    said = await asked(chatting, OpenAICompletions, want, stream=stream)
    assert said.text.startswith("one two")
    assert said.logprobs == said.prompt_tokens + said.completion_tokens


async def test_counted_tokens_are_those_that_are_charged(chatting: House) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    counted = await post(chatting, "/v1/tokenize", messages=messages)
    said = await post(chatting, "/v1/chat/completions", messages=messages, max_tokens=2)
    async with AsyncAnthropic(base_url=chatting.url, api_key=str(chatting.key), max_retries=0) as client:
        by_anthropic = await client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    assert counted["is_estimate"] is False
    assert counted["count"] == len(counted["tokens"]) == said["usage"]["prompt_tokens"] == by_anthropic.input_tokens
    (row,) = await chatting.rows(1)
    assert row.usage.prompt_tokens == counted["count"]


@pytest.mark.parametrize("stream", [True, False])
async def test_who_goes_ends_the_engines_work(chatting: House, stream: bool) -> None:
    made_before = metric_at(chatting, "generation_tokens_total")
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2000, "ignore_eos": True,
        "stream": stream,
    }  # fmt: skip
    asking = asyncio.create_task(begun(chatting, body))
    await eventually(lambda: metric_at(chatting, "num_requests_running") == 1, within_s=10.0)
    asking.cancel()
    await eventually(lambda: metric_at(chatting, "num_requests_running") == 0, within_s=10.0)
    assert metric_at(chatting, "generation_tokens_total") - made_before < 1500
    (row,) = await chatting.rows(1)
    assert OUTCOME(row.outcome) == "OUTCOME_CANCELLED"


async def test_a_chat_that_is_too_long_is_refused_in_the_engines_words(chatting: House) -> None:
    async with openai_of(chatting) as client:
        with pytest.raises(BadRequestError, match="2048"):
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "word " * 3000}], max_tokens=5
            )
    (row,) = await chatting.rows(1)
    assert row.attempts == 1


async def test_a_cat_is_nearer_to_a_kitten_than_to_stocks(embedding: House) -> None:
    async with openai_of(embedding) as client:
        told = await client.embeddings.create(model=MODEL, input=["cat", "kitten", "stocks"])
    cat, kitten, stocks = (each.embedding for each in told.data)
    assert math.dist(cat, kitten) < math.dist(cat, stocks)
    assert told.usage.prompt_tokens == 9
    (row,) = await embedding.rows(1)
    assert (row.usage.prompt_tokens, row.usage.source) == (9, types_pb2.USAGE_SOURCE_ENGINE)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_are_ordered_by_what_they_say(embedding: House, path: str) -> None:
    documents = ["Stocks fell today.", "A kitten plays with wool.", "The harbour is closed."]
    told = await post(embedding, path, query="a young cat", documents=documents, top_n=2)
    assert told["results"][0]["index"] == 1
    first, second = [result["relevance_score"] for result in told["results"]]
    assert first > second
    (row,) = await embedding.rows(1)
    assert row.route == path
    assert row.usage.prompt_tokens > 0


async def test_pairs_are_scored(embedding: House) -> None:
    told = await post(embedding, "/v1/score", text_1="cat", text_2=["kitten", "stocks"])
    kitten, stocks = [each["score"] for each in told["data"]]
    assert (kitten, stocks) == (pytest.approx(0.788, abs=0.01), pytest.approx(0.203, abs=0.01))
    (row,) = await embedding.rows(1)
    assert (row.usage.prompt_tokens, row.usage.source) == (
        told["usage"]["prompt_tokens"],
        types_pb2.USAGE_SOURCE_ENGINE,
    )


async def test_the_registry_reads_the_room_in_its_cache_where_it_has_one(vllm: dict[str, str]) -> None:
    clock = SystemClock()
    async with aiohttp.ClientSession() as session:
        telemetry = Telemetry(clock, ScrapeRhythm(every_s=0.0, timeout_s=20.0))
        probe = Probe(session, clock, timeout_s=20.0, telemetry=telemetry)
        chat, sentences = [await probe.look(Target(vllm[name], None)) for name in (CHAT, SENTENCES)]
    assert isinstance(chat, Answered), chat
    assert isinstance(sentences, Answered), sentences
    assert chat.seen.kind is sentences.seen.kind is EngineKind.VLLM
    assert chat.seen.version.startswith("0.")
    assert chat.seen.kv_tokens is not None
    assert chat.seen.kv_tokens >= 2048
    assert sentences.seen.kv_tokens is None, "a model that only reads has no cache that counts as room"
    for answer in (chat, sentences):
        assert answer.load is not None
        assert (answer.load.running, answer.load.waiting) == (0, 0)
