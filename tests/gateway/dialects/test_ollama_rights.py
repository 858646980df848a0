"""What a key without the right to manage models may make an Ollama engine do to the models that it shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.wire.v1 import admin_pb2
from forebay_gateway.dialects.ollama.rights import within_rights
from forebay_gateway.refused import BadField
from tests.fakes.engine import FakeEngine
from tests.gateway.house import MODEL
from tests.gateway.test_model_management import open_shop

SAID = {"model": MODEL, "prompt": "hello"}
RUNNER = {"num_gpu": 0, "num_thread": 1, "main_gpu": 1, "use_mmap": False, "num_batch": 1, "use_mlock": True}


@pytest.mark.parametrize(
    "told", [0, 0.0, "0", "0s", "0h0m", -0.0, 0.5, "59s", "1ms", -1, "-1s", "-0.1h", 86_401, "25h"]
)
def test_what_unloads_a_model_or_keeps_it_for_ever_is_left_out(told: Any) -> None:
    assert within_rights({**SAID, "keep_alive": told}, is_limited=False) == SAID


@pytest.mark.parametrize("told", [60, 300, 3600.5, "5m", "1h30m", "24h", 86_400])
def test_other_times_are_the_clients_own(told: Any) -> None:
    body = {**SAID, "keep_alive": told, "options": {"temperature": 0, "num_ctx": 4096}}
    assert within_rights(body, is_limited=False) is body


def test_a_rule_that_limits_the_time_is_obeyed_instead() -> None:
    assert within_rights({**SAID, "keep_alive": -1}, is_limited=True)["keep_alive"] == -1
    assert within_rights({**SAID, "keep_alive": 0}, is_limited=True) == SAID


def test_options_for_which_the_model_is_loaded_anew_are_left_out() -> None:
    body = {**SAID, "options": {**RUNNER, "seed": 1, "num_ctx": 4096}}
    assert within_rights(body, is_limited=False) == {**SAID, "options": {"seed": 1, "num_ctx": 4096}}
    assert body["options"] == {**RUNNER, "seed": 1, "num_ctx": 4096}


@pytest.mark.parametrize("name", ["Keep_Alive", "KEEP_ALIVE", "\u212aeep_alive", "Options", "option\u017f"])
def test_a_name_that_ollama_would_read_as_one_of_these_is_refused(name: str) -> None:
    with pytest.raises(BadField, match="is not a field"):
        within_rights({**SAID, name: 0}, is_limited=False)


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/api/chat", {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": False}),
    ("/api/generate", {**SAID, "stream": False}),
    ("/api/embed", {"model": MODEL, "input": "hello"}),
    ("/api/embeddings", SAID),
]


def heard_by(engine: FakeEngine, path: str) -> dict[str, Any]:
    heard: dict[str, Any] = [told.body for told in engine.record.requests if told.path == path][-1]
    return heard


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_members_unload_nothing_and_operators_do(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    more = {"keep_alive": "0s", "options": {"num_gpu": 0, "num_ctx": 2048}}
    async with open_shop(tmp_path, 1) as shop:
        (engine,) = shop.engines
        house = shop.house
        member = {"authorization": f"Bearer {await shop.add_key(role=admin_pb2.ROLE_MEMBER)}"}
        async with house.client.post(f"{house.url}{path}", json={**body, **more}, headers=member) as answer:
            assert answer.status == 200, await answer.text()
        heard = heard_by(engine, path)
        assert "keep_alive" not in heard
        assert heard["options"] == {"num_ctx": 2048}
        async with shop.request("POST", path, json={**body, **more}) as answer:
            assert answer.status == 200, await answer.text()
        heard = heard_by(engine, path)
        assert heard["keep_alive"] == "0s"
        assert heard["options"] == {"num_gpu": 0, "num_ctx": 2048}
        empty = {**body, "keep_alive": 0, "messages": [], "prompt": "", "input": []}
        async with house.client.post(f"{house.url}{path}", json=empty, headers=member) as answer:
            assert answer.status == (200 if "embed" in path else 403), "no texts: nothing is asked of an engine"
        assert heard_by(engine, path) == heard
