"""Every client library in front of every engine: which cells there are, what is expected of each, and how one is tried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from forebay.wire.v1 import types_pb2
from tests.compatibility.anthropic_client import AnthropicMessages
from tests.compatibility.features import COME_WHOLE, FEATURES
from tests.compatibility.ollama_clients import OllamaChat, OllamaGenerate
from tests.compatibility.openai_clients import OpenAIChat, OpenAICompletions, OpenAIResponses
from tests.compatibility.wants import Client, NotInDialect, Refused
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.fakes.provider import API_KEY, FakeProvider
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_cohere import FakeCohere
from tests.fakes.provider_gemini import FakeGemini
from tests.gateway.house import MODEL, House, open_house

CLIENTS: tuple[type[Client], ...] = (
    OpenAIChat,
    OpenAIResponses,
    OpenAICompletions,
    AnthropicMessages,
    OllamaChat,
    OllamaGenerate,
)


@dataclass(frozen=True, slots=True)
class Engine:
    name: str
    fake: Flavour | type[FakeProvider]
    kind: types_pb2.EngineKind.ValueType

    @property
    def kind_name(self) -> str:
        return types_pb2.EngineKind.Name(self.kind)


ENGINES = (
    Engine("vLLM", Flavour.VLLM, types_pb2.ENGINE_KIND_VLLM),
    Engine("SGLang", Flavour.SGLANG, types_pb2.ENGINE_KIND_SGLANG),
    Engine("llama.cpp", Flavour.LLAMA_CPP, types_pb2.ENGINE_KIND_LLAMACPP),
    Engine("Ollama", Flavour.OLLAMA, types_pb2.ENGINE_KIND_OLLAMA),
    Engine("OpenAI-compatible", Flavour.ANY, types_pb2.ENGINE_KIND_OPENAI),
    Engine("Anthropic", FakeAnthropic, types_pb2.ENGINE_KIND_ANTHROPIC),
    Engine("Gemini", FakeGemini, types_pb2.ENGINE_KIND_GEMINI),
    Engine("Cohere", FakeCohere, types_pb2.ENGINE_KIND_COHERE),
)


class Outcome(StrEnum):
    WORKS = "works"
    REFUSED = "refused"
    """With a reason, by the gateway or by the engine, in the client's own dialect."""
    FAILS = "fails"
    ABSENT = "absent"
    """The dialect has no words for it."""


@dataclass(frozen=True, slots=True)
class Cell:
    client: type[Client]
    engine: Engine
    feature: str
    stream: bool

    def __str__(self) -> str:
        return f"{self.client.name} / {self.engine.name} / {self.feature} / {'stream' if self.stream else 'whole'}"


@dataclass(frozen=True, slots=True)
class Tried:
    outcome: Outcome
    why: str = ""


def cells() -> Iterator[Cell]:
    for client in CLIENTS:
        for engine in ENGINES:
            for feature in FEATURES:
                for stream in (False, True):
                    if not (stream and feature in COME_WHOLE):
                        yield Cell(client, engine, feature, stream)


async def tried(cell: Cell, client: Client) -> Tried:
    try:
        await FEATURES[cell.feature](client, cell.stream)
    except NotInDialect:
        return Tried(Outcome.ABSENT)
    except Refused as refused:  # with a status that blames nobody but the request
        return Tried(Outcome.REFUSED if refused.status < 500 else Outcome.FAILS, str(refused))
    except Exception as error:
        return Tried(Outcome.FAILS, f"{type(error).__name__}: {error}")
    return Tried(Outcome.WORKS)


@asynccontextmanager
async def serving(directory: Path, engine: Engine) -> AsyncIterator[tuple[House, FakeEngine | FakeProvider]]:
    """A gateway in front of the fake that has this engine's manners."""
    directory.mkdir(exist_ok=True)
    if not isinstance(engine.fake, Flavour):
        async with house_before(directory, engine.fake(models=(MODEL,)), engine.kind) as (house, provider):
            yield house, provider
        return
    fake = FakeEngine(slots=4, flavour=engine.fake, pace=Pace(tokens_per_s=4000.0, ttft_s=0.0, answer_tokens=8))
    async with open_house(directory, fake) as house:
        house.registry.put("b1", fake.url, kind=engine.kind, slots=4)
        yield house, fake


@asynccontextmanager
async def house_before(
    directory: Path, provider: FakeProvider, kind: types_pb2.EngineKind.ValueType
) -> AsyncIterator[tuple[House, FakeProvider]]:
    """A gateway in front of a cloud provider, with the key for it."""
    async with provider, open_house(directory) as house:
        house.scheduler.slots["b1"] = 4
        house.admin.set_credential("b1", API_KEY)
        house.registry.put("b1", provider.url + provider.beginning, kind=kind, slots=4, has_credential=True)
        async with asyncio.timeout(30):
            while True:
                async with house.client.get(f"{house.url}/v1/models", headers=house.headers) as answer:
                    if MODEL in await answer.text():
                        break
        yield house, provider


@asynccontextmanager
async def client_of(made: type[Client], url: str, key: str) -> AsyncIterator[Client]:
    client = made(url, key, MODEL)  # type: ignore[call-arg]
    try:
        yield client
    finally:
        await client.close()
