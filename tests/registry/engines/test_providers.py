"""A look at a cloud provider: its models page by page, and what they can, with the credential in its own header."""

from __future__ import annotations

import json

import aiohttp
import pytest

from forebay.clock import ManualClock
from forebay.wire.v1 import registry_pb2, types_pb2
from forebay_registry.backend import EngineKind, Model
from forebay_registry.engines import answers
from forebay_registry.engines.outcome import Outcome
from forebay_registry.engines.probe import Answered, Failed, Probe, Target
from forebay_registry.wanted.catalog import parse_add
from forebay_registry.wire import add_order
from tests.fakes.provider import API_KEY, FakeProvider, Refused
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_cohere import FakeCohere
from tests.fakes.provider_gemini import FakeGemini
from tests.fakes.provider_openai import FakeAzure, FakeOpenRouter


@pytest.fixture
def probe(session: aiohttp.ClientSession) -> Probe:
    return Probe(session, ManualClock(), timeout_s=1.0)


async def test_all_pages_of_anthropics_models_are_read(probe: Probe) -> None:
    async with FakeAnthropic(models=("c", "a", "b", "e", "d")) as fake:
        answer = await probe.look(Target(fake.url, EngineKind.ANTHROPIC, API_KEY))
        assert isinstance(answer, Answered), answer
        assert (answer.seen.kind, answer.load) == (EngineKind.ANTHROPIC, None)
        can = ("chat", "thinking", "tools", "vision")
        assert answer.seen.models == tuple(Model(name, 200_000, can) for name in "abcde")


async def test_those_of_geminis_models_that_answer_or_embed_are_told_without_their_prefix(probe: Probe) -> None:
    async with FakeGemini(models=("gemini-a", "gemini-b", "gemini-c")) as fake:
        answer = await probe.look(Target(fake.url, EngineKind.GEMINI, API_KEY))
        assert isinstance(answer, Answered), answer
        assert answer.seen.kind is EngineKind.GEMINI
        assert answer.seen.models == (
            Model("fake-embedding", 2048, ("embedding",)),
            *(Model(name, 1_048_576, ("chat", "thinking")) for name in ("gemini-a", "gemini-b", "gemini-c")),
        )


async def test_coheres_models_that_chat_embed_or_rank_are_told(probe: Probe) -> None:
    async with FakeCohere(models=("command-a", "command-b", "command-c")) as fake:
        answer = await probe.look(Target(fake.url, EngineKind.COHERE, API_KEY))
        assert isinstance(answer, Answered), answer
        assert answer.seen.models == (
            *(Model(f"command-{n}", 256_000, ("chat", "tools", "vision")) for n in "abc"),
            Model("fake-embed", 512, ("embedding",)),
            Model("fake-rerank", 4096, ("rerank",)),
        )
        assert fake.asked == [], "nothing was generated"


async def test_azures_deployments_are_told_and_what_could_be_deployed_where_there_is_no_list_of_them(
    probe: Probe,
) -> None:
    async with FakeAzure(models=("my-gpt", "my-other")) as fake:
        target = Target(fake.url + fake.beginning, EngineKind.AZURE, API_KEY)
        answer = await probe.look(target)
        assert isinstance(answer, Answered), answer
        assert answer.seen.models == (Model("my-gpt"), Model("my-other"))
        fake.lists_deployments = False
        answer = await probe.look(target)
        assert isinstance(answer, Answered), answer
        assert "gpt-never-deployed" in [model.name for model in answer.seen.models]


async def test_openrouters_models_are_told_with_what_they_can_and_only_to_those_with_a_good_key(probe: Probe) -> None:
    async with FakeOpenRouter(models=("some/model",)) as fake:
        url = fake.url + fake.beginning
        answer = await probe.look(Target(url, EngineKind.OPENROUTER, API_KEY))
        assert isinstance(answer, Answered), answer
        assert answer.seen.models == (Model("some/model", 131_072, ("chat", "thinking", "tools", "vision")),)
        failed = await probe.look(Target(url, EngineKind.OPENROUTER, "wrong"))
        assert isinstance(failed, Failed)
        assert failed.outcome is Outcome.CREDENTIAL


PROVIDERS = [
    (FakeAnthropic, EngineKind.ANTHROPIC),
    (FakeGemini, EngineKind.GEMINI),
    (FakeCohere, EngineKind.COHERE),
    (FakeAzure, EngineKind.AZURE),
    (FakeOpenRouter, EngineKind.OPENROUTER),
]
each_provider = pytest.mark.parametrize(("made", "kind"), PROVIDERS)


@each_provider
async def test_a_wrong_credential_or_another_server_is_unhealthy(
    probe: Probe, made: type[FakeProvider], kind: EngineKind
) -> None:
    async with made() as fake:
        url = fake.url + fake.beginning
        for target in (Target(url, kind, "wrong"), Target(url, kind)):
            failed = await probe.look(target)
            assert isinstance(failed, Failed)
            assert failed.outcome is Outcome.CREDENTIAL
            assert API_KEY not in failed.reason
        other = EngineKind.GEMINI if kind is not EngineKind.GEMINI else EngineKind.ANTHROPIC
        assert isinstance(await probe.look(Target(url, other, API_KEY)), Failed)


@each_provider
async def test_any_good_credential_of_several_will_do_and_is_remembered(
    probe: Probe, made: type[FakeProvider], kind: EngineKind
) -> None:
    async with made() as fake:
        fake.refusals = {key: Refused(401, "authentication_error", f"wrong: {key}") for key in ("bad", "worse")}
        target = Target(fake.url + fake.beginning, kind, "bad", ("worse", API_KEY))
        assert "worse" not in repr(target)
        for _ in range(2):
            assert isinstance(await probe.look(target), Answered)
        fake.refusals[API_KEY] = Refused(401, "authentication_error", "gone")
        failed = await probe.look(target)
        assert isinstance(failed, Failed)
        assert failed.outcome is Outcome.CREDENTIAL


async def test_a_provider_is_never_found_out(probe: Probe) -> None:
    async with FakeAnthropic() as fake:
        assert isinstance(await probe.look(Target(fake.url, None, API_KEY)), Failed)


def test_an_operator_says_which_provider_it_is() -> None:
    for number, kind in (
        (types_pb2.ENGINE_KIND_ANTHROPIC, EngineKind.ANTHROPIC),
        (types_pb2.ENGINE_KIND_GEMINI, EngineKind.GEMINI),
        (types_pb2.ENGINE_KIND_COHERE, EngineKind.COHERE),
        (types_pb2.ENGINE_KIND_AZURE, EngineKind.AZURE),
        (types_pb2.ENGINE_KIND_OPENROUTER, EngineKind.OPENROUTER),
    ):
        request = registry_pb2.AddBackendRequest(actor="op", name="cloud", url="https://api.example.com", kind=number)
        assert add_order(request).kind is kind


def test_models_that_are_gone_and_lists_that_are_none() -> None:
    listed = {"data": [{"id": "old", "lifecycle": "retired"}, {"id": "new", "capabilities": None}], "has_more": True}
    page = answers.read_anthropic_models(json.dumps(listed).encode())
    assert page == answers.ModelPage((Model("new", None, ("chat", "tools")),), None)
    for read in (answers.read_anthropic_models, answers.read_gemini_models):
        with pytest.raises(answers.BadAnswer):
            read(b'{"data": 5, "models": 5}')
    assert answers.read_gemini_models(b"{}") == answers.ModelPage((), None)


@pytest.mark.parametrize(
    ("url", "kind", "base"),
    [
        ("https://api.openai.com/v1", EngineKind.OPENAI, "https://api.openai.com"),
        ("https://api.anthropic.com", EngineKind.ANTHROPIC, "https://api.anthropic.com"),
        (
            "https://generativelanguage.googleapis.com",
            EngineKind.GEMINI,
            "https://generativelanguage.googleapis.com",
        ),
        ("https://API.cohere.com/", EngineKind.COHERE, "https://api.cohere.com"),
        ("https://openrouter.ai", EngineKind.OPENROUTER, "https://openrouter.ai/api"),
        ("https://openrouter.ai/api/v1", EngineKind.OPENROUTER, "https://openrouter.ai/api"),
        ("https://mine.openai.azure.com", EngineKind.AZURE, "https://mine.openai.azure.com/openai"),
        ("https://mine.openai.azure.com/openai/v1/", EngineKind.AZURE, "https://mine.openai.azure.com/openai"),
        ("https://mine.services.ai.azure.com", EngineKind.AZURE, "https://mine.services.ai.azure.com/openai"),
        ("https://openrouter.ai.example.com", None, "https://openrouter.ai.example.com"),
        ("http://10.0.0.5:8000", None, "http://10.0.0.5:8000"),
    ],
)
def test_well_known_providers_are_known_by_their_hosts(url: str, kind: EngineKind | None, base: str) -> None:
    order = parse_add(actor="op", name="cloud", url=url)
    assert (order.kind, order.url) == (kind, base)


def test_what_an_operator_says_goes_before_the_host() -> None:
    order = parse_add(actor="op", name="cloud", url="https://api.anthropic.com", kind=EngineKind.OPENAI)
    assert order.kind is EngineKind.OPENAI
    order = parse_add(actor="op", name="cloud", url="http://127.0.0.1:9", kind=EngineKind.AZURE)
    assert order.url == "http://127.0.0.1:9/openai"
