"""A look at a cloud provider: its models page by page, and what they can, with the credential in its own header."""

from __future__ import annotations

import json

import aiohttp
import pytest

from forebay.clock import ManualClock
from forebay.wire.v1 import registry_pb2, types_pb2
from forebay_registry import answers
from forebay_registry.backend import EngineKind, Model
from forebay_registry.health import Outcome
from forebay_registry.probe import Answered, Failed, Probe, Target
from forebay_registry.wire import add_order
from tests.fakes.provider import API_KEY
from tests.fakes.provider_anthropic import FakeAnthropic
from tests.fakes.provider_gemini import FakeGemini


@pytest.fixture
def probe(session: aiohttp.ClientSession) -> Probe:
    return Probe(session, ManualClock(), timeout_s=1.0, gauges_timeout_s=0.5)


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


@pytest.mark.parametrize(("made", "kind"), [(FakeAnthropic, EngineKind.ANTHROPIC), (FakeGemini, EngineKind.GEMINI)])
async def test_a_wrong_credential_or_another_server_is_unhealthy(
    probe: Probe, made: type[FakeAnthropic | FakeGemini], kind: EngineKind
) -> None:
    async with made() as fake:
        for target in (Target(fake.url, kind, "wrong"), Target(fake.url, kind)):
            failed = await probe.look(target)
            assert isinstance(failed, Failed)
            assert failed.outcome in (Outcome.CREDENTIAL, Outcome.STATUS)
            assert API_KEY not in failed.reason
        other = EngineKind.GEMINI if kind is EngineKind.ANTHROPIC else EngineKind.ANTHROPIC
        assert isinstance(await probe.look(Target(fake.url, other, API_KEY)), Failed)


async def test_a_provider_is_never_found_out(probe: Probe) -> None:
    async with FakeAnthropic() as fake:
        assert isinstance(await probe.look(Target(fake.url, None, API_KEY)), Failed)


def test_an_operator_says_which_provider_it_is() -> None:
    for number, kind in (
        (types_pb2.ENGINE_KIND_ANTHROPIC, EngineKind.ANTHROPIC),
        (types_pb2.ENGINE_KIND_GEMINI, EngineKind.GEMINI),
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
