"""A model that an engine does not have any more is looked for elsewhere; its client hears of it only when nobody has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import ForebayError
from forebay.wire.v1 import scheduler_pb2, types_pb2
from forebay_gateway.engines.errors import Blame, EngineTrouble, judge
from forebay_gateway.refused import EngineRefused
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, ask, open_house

QUICK = Pace(tokens_per_s=1000, answer_tokens=4)


def judged(status: int, message: str, **told: Any) -> EngineTrouble | ForebayError:
    return judge(status, json.dumps({"error": {"message": message, **told}}).encode(), None)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "The model `x/y:7b` does not exist."),
        (404, 'model "x" not found, try pulling it first'),
        (404, "model 'x' not found"),
        (400, "model 'x' not found"),
        (400, "model is not loaded"),
        (404, "model: claude-9"),
        (404, "models/x is not found for API version v1beta, or is not supported for generateContent."),
    ],
)
def test_the_words_of_an_engine_without_the_model(status: int, message: str) -> None:
    trouble = judged(status, message)
    assert isinstance(trouble, EngineTrouble)
    assert trouble.blame is Blame.MODEL_GONE


def test_a_code_says_it_too() -> None:
    trouble = judged(404, "No.", code="model_not_found")
    assert isinstance(trouble, EngineTrouble)
    assert trouble.blame is Blame.MODEL_GONE


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "Not Found"),
        (404, "File not found: a picture of a model"),
        (400, "This model does not support tools; function f not found."),
        (400, "The model's context is too small."),
    ],
)
def test_other_things_that_are_not_found_are_the_clients(status: int, message: str) -> None:
    assert isinstance(judged(status, message), EngineRefused)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("flavour", [Flavour.VLLM, Flavour.OLLAMA])
async def test_another_backend_that_has_it_answers(tmp_path: Path, flavour: Flavour, streamed: bool) -> None:
    without = FakeEngine(flavour=flavour, models=("another",))
    async with open_house(tmp_path, without, FakeEngine(pace=QUICK)) as house:
        async with house.post(ask(stream=streamed)) as answer:
            assert answer.headers["x-forebay-attempts"] == "2"
            assert b"word3" in await answer.read()
        (nack,) = house.scheduler.nacks
        assert nack.nack_class == scheduler_pb2.NACK_CLASS_UNKNOWN_BACKEND, "it is well, and no breaker hears of it"
        assert house.metric('forebay_gateway_attempts_failed_total{blame="model_gone"}') == 1


async def test_llama_cpps_router_says_so_as_if_it_were_the_clients_fault(tmp_path: Path) -> None:
    router = FakeEngine()
    router.faults.add(Fault(FaultKind.STATUS, status=400, message=f"model '{MODEL}' not found"))
    async with open_house(tmp_path, router, FakeEngine(pace=QUICK)) as house, house.post(ask()) as answer:
        assert answer.status == 200
        assert answer.headers["x-forebay-attempts"] == "2"


NOT_FOUND: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"error": {"type": "invalid_request_error", "code": "model_not_found", "param": "model"}},
    "/v1/messages": {"type": "error", "error": {"type": "not_found_error"}},
    "/api/chat": {},
}


@pytest.mark.parametrize("path", NOT_FOUND)
async def test_when_nobody_has_it_the_client_is_told_in_its_dialect(tmp_path: Path, path: str) -> None:
    engines = [FakeEngine(models=("another",)) for _ in range(2)]
    async with open_house(tmp_path, *engines) as house:
        url = f"{house.url}{path}"
        async with house.client.post(url, json=ask(max_tokens=9, stream=False), headers=house.headers) as answer:
            told = await answer.json()
        assert answer.status == 404
        assert answer.headers["x-forebay-reason"] == "model_unknown"
        if path == "/api/chat":
            assert "not found" in told["error"]
        else:
            assert MODEL in told["error"].pop("message")
            told.pop("request_id", None)
            assert told == NOT_FOUND[path]
        assert len(house.scheduler.nacks) == 1, "the second was the last that might have had it"
        (row,) = await house.rows(1)
        assert (row.reason, row.attempts, row.usage.prompt_tokens) == ("model_unknown", 2, 0)


async def test_it_is_not_said_to_be_gone_while_another_that_has_it_is_merely_down(tmp_path: Path) -> None:
    without, broken = FakeEngine(models=("another",)), FakeEngine()
    broken.faults.add(Fault(FaultKind.STATUS, status=500, message="CUDA out of memory"))
    async with open_house(tmp_path, without, broken) as house, house.post(ask()) as answer:
        assert answer.status == 502
        assert "CUDA out of memory" in (await answer.json())["error"]["message"]


async def test_ollamas_own_dialect_fails_over_as_well(tmp_path: Path) -> None:
    without, other = (FakeEngine(flavour=Flavour.OLLAMA, models=(name,), pace=QUICK) for name in ("another", MODEL))
    async with open_house(tmp_path, without, other) as house:
        for number, engine in enumerate((without, other), 1):
            await house.put(f"b{number}", engine.url, kind=types_pb2.ENGINE_KIND_OLLAMA)
        body = ask(stream=False)
        async with house.client.post(f"{house.url}/api/chat", json=body, headers=house.headers) as answer:
            assert "word3" in (await answer.json())["message"]["content"]
        assert [nack.backend_id for nack in house.scheduler.nacks] == ["b1"]
