"""Virtual endpoints: a pool with a host name or a beginning of paths of its own, in every dialect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, PermissionDeniedError

from forebay.errors import NotAllowed
from forebay.keys import ForebayKey
from forebay.wire.v1 import types_pb2
from forebay.wire.v1.fleet_pb2 import PoolSpec
from forebay_gateway.callers.call import read_call
from forebay_gateway.callers.principals import Principal
from forebay_gateway.callers.virtual_endpoints import VirtualEndpoint, VirtualEndpoints
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_orders import Pace
from tests.gateway.house import MODEL, House, ask, eventually, open_house
from tests.gateway.test_signed_calls import CommandLine

QUICK = Pace(tokens_per_s=1000, answer_tokens=3)
CODER = "coder"
HOST = "coding.llm.example.org"
CODING = VirtualEndpoint("coding", (HOST,), "/coding")
NIGHT = VirtualEndpoint("night", ("night.example.org", "n.example.org"), "/coding/night")
ENDPOINTS = VirtualEndpoints([CODING, NIGHT, VirtualEndpoint("silent")])


@pytest.mark.parametrize(
    ("host", "path", "pool", "rest"),
    [
        ("llm.example.org", "/v1/models", None, "/v1/models"),
        (HOST, "/v1/models", "coding", "/v1/models"),
        ("Coding.LLM.example.org.:8090", "/v1/models", "coding", "/v1/models"),
        ("n.example.org", "/api/chat", "night", "/api/chat"),
        ("", "/coding/v1/models", "coding", "/v1/models"),
        ("", "/coding", "coding", "/"),
        ("", "/coding/", "coding", "/"),
        ("", "/coding/night/v1/models", "night", "/v1/models"),
        ("", "/codings/v1/models", None, "/codings/v1/models"),
        ("", "/Coding/v1/models", None, "/Coding/v1/models"),
        ("", "/v1/coding", None, "/v1/coding"),
        (HOST, "/coding/v1/models", "coding", "/v1/models"),
        (HOST, "/coding/night/v1/models", "coding", "/night/v1/models"),
        ("night.example.org", "/coding/v1/models", "night", "/coding/v1/models"),
        ("[::1]:8090", "/coding", "coding", "/"),
    ],
)
def test_a_pool_is_found_by_its_host_or_else_by_the_longest_prefix(
    host: str, path: str, pool: str | None, rest: str
) -> None:
    assert ENDPOINTS.find(host, path) == (pool, rest)


@given(host=st.text(max_size=40), path=st.text("/codingnight.:%", max_size=60))
def test_whatever_is_asked_only_a_known_prefix_is_taken_off(host: str, path: str) -> None:
    pool, rest = ENDPOINTS.find(host, path)
    prefixes = {"": None, CODING.path_prefix: "coding", NIGHT.path_prefix: "night"}
    assert any(path in (prefix + rest, prefix) and (pool == of or not prefix) for prefix, of in prefixes.items())


@pytest.mark.parametrize("path", ["/coding/k/fb-1-2/api/chat", "/k/fb-1-2/coding/api/chat"])
def test_a_key_in_the_path_may_stand_before_or_after_the_prefix(path: str) -> None:
    call = read_call("POST", path, {"authorization": "Bearer other"}, endpoints=ENDPOINTS)
    assert (call.path, call.key, call.pool) == ("/api/chat", "fb-1-2", "coding")
    messages = read_call("POST", "/coding/anthropic/v1/messages", {}, endpoints=ENDPOINTS)
    assert (messages.path, messages.is_anthropic, messages.pool) == ("/v1/messages", True, "coding")


def test_a_key_of_a_pool_goes_nowhere_else_and_one_of_none_goes_where_it_asks() -> None:
    free, bound = Principal("k", "u"), Principal("k", "u", pool="night", is_bound=True)
    assert free.within(None) is free
    assert free.within("coding") == Principal("k", "u", pool="coding", is_visiting=True)
    assert bound.within("night") is bound
    for elsewhere in ("coding", "default"):
        with pytest.raises(NotAllowed, match=f"for the pool night, and this is the address of the pool {elsewhere}"):
            bound.within(elsewhere)


@asynccontextmanager
async def open_pools(directory: Path) -> AsyncIterator[House]:
    """`b1` in the default pool with MODEL, `b2` in the pool `coding` with CODER, both Ollama."""
    engines = [FakeEngine(flavour=Flavour.OLLAMA, pace=QUICK, models=[name]) for name in (MODEL, CODER)]
    async with open_house(directory, *engines) as house:
        kind = types_pb2.ENGINE_KIND_OLLAMA
        house.scheduler.serves = {"b1": {MODEL}, "b2": {CODER}}
        await house.put("b1", engines[0].url, kind=kind)
        await house.put("b2", engines[1].url, kind=kind, pool="coding", models=[CODER])
        await describe(house, PoolSpec(name="coding", hosts=[HOST], path_prefix="/coding"))
        yield house


async def describe(house: House, *pools: PoolSpec) -> None:
    house.registry.describe(*pools)
    wanted = house.registry.version
    await eventually(lambda: house.metric("forebay_gateway_fleet_version") >= wanted)


async def key_of(house: House, pool: str) -> ForebayKey:
    """One that the gateway knows."""
    key = house.admin.add_key(pool=pool)
    async with asyncio.timeout(30):
        while True:
            async with house.client.get(f"{house.url}/v1/models", headers=bearer(key)) as answer:
                if answer.status == 200:
                    return key


def bearer(key: ForebayKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def openai_client(house: House, prefix: str = "", **options: Any) -> AsyncOpenAI:
    key: ForebayKey = options.pop("key", house.key)
    return AsyncOpenAI(base_url=f"{house.url}{prefix}/v1", api_key=str(key), max_retries=0, **options)


async def test_every_dialect_reaches_the_pool_by_its_prefix_or_its_host(tmp_path: Path) -> None:
    body = ask(model=CODER)
    messages: Any = body["messages"]
    async with open_pools(tmp_path) as house:
        async with (
            openai_client(house, "/coding") as by_path,
            openai_client(house, default_headers={"host": f"{HOST}:8090"}) as by_host,
            AsyncAnthropic(base_url=f"{house.url}/coding", api_key=str(house.key), max_retries=0) as anthropic,
        ):
            for client in (by_path, by_host):
                assert [model.id async for model in client.models.list()] == [CODER]
                assert (await client.chat.completions.create(model=CODER, messages=messages)).model == CODER
            assert (await anthropic.messages.create(model=CODER, max_tokens=9, messages=messages)).model == CODER
        post, url = house.client.post, house.url
        for prefix in (f"/coding/k/{house.key}", f"/k/{house.key}/coding"):
            async with post(f"{url}{prefix}/api/chat", json={**body, "stream": False}) as answer:
                assert (answer.status, (await answer.json())["model"]) == (200, CODER)
        async with house.client.get(f"{url}/coding/api/tags", headers=house.headers) as answer:
            assert [model["name"] for model in (await answer.json())["models"]] == [CODER]
        async with house.client.get(f"{url}/coding") as answer:
            assert await answer.text() == "Ollama is running"
        assert {row.pool for row in await house.rows(5)} == {"coding"}
        assert {submit.pool for submit in house.scheduler.submits} == {"coding"}


async def test_elsewhere_everything_is_as_it_was(tmp_path: Path) -> None:
    async with open_pools(tmp_path) as house:
        async with openai_client(house) as client:
            assert [model.id async for model in client.models.list()] == [MODEL]
        for path, model, status in (
            ("/v1/chat/completions", MODEL, 200),
            ("/v1/chat/completions", CODER, 404),
            ("/coding/v1/chat/completions", MODEL, 404),
            ("/cooking/v1/chat/completions", CODER, 404),
            ("/coding/v1/nothing", CODER, 404),
        ):
            async with house.client.post(f"{house.url}{path}", json=ask(model=model), headers=house.headers) as answer:
                assert answer.status == status, path
        async with house.client.post(f"{house.url}/coding/api/chat", json=ask(model=CODER)) as answer:
            assert "error" in await answer.json(), "a refusal in Ollama's words, though its address is behind a prefix"
        refused = {"content-encoding": "br", **house.headers}
        async with house.client.post(f"{house.url}/coding/api/chat", data=b"\xff", headers=refused) as answer:
            assert isinstance((await answer.json())["error"], str)


async def test_a_key_that_is_bound_to_a_pool_has_its_own_address_and_the_general_one(tmp_path: Path) -> None:
    messages: Any = ask()["messages"]
    async with open_pools(tmp_path) as house:
        coder, other = await key_of(house, "coding"), await key_of(house, "default")
        for prefix in ("", "/coding"):
            async with openai_client(house, prefix, key=coder) as client:
                assert (await client.chat.completions.create(model=CODER, messages=messages)).model == CODER
        async with openai_client(house, "/coding", key=other) as client:
            with pytest.raises(PermissionDeniedError, match="the address of the pool coding"):
                await client.chat.completions.create(model=CODER, messages=messages)
            with pytest.raises(PermissionDeniedError):
                await client.models.list()
        outcomes = [(types_pb2.Outcome.Name(row.outcome), row.reason, row.pool) for row in await house.rows(3)]
        assert outcomes[:2] == [("OUTCOME_FINISHED", "", "coding")] * 2
        assert outcomes[2][:2] == ("OUTCOME_REFUSED", "not_allowed")


async def test_a_signed_call_signs_the_path_behind_the_prefix(tmp_path: Path) -> None:
    async with open_pools(tmp_path) as house:
        signer = CommandLine()
        house.admin.trust(house.key, signer.public_key)
        body = {**ask(model=CODER), "stream": False}
        async with asyncio.timeout(30):
            status = 403  # until the gateway has heard whom the key trusts
            while status == 403:
                sent = await signer.send(house, "POST", "/coding/api/chat", body, signed=("POST", "/api/chat"))
                status, _, told = sent
        assert (status, told["model"]) == (200, CODER)


async def test_endpoints_come_and_go_with_the_fleet_and_outlive_a_registry_that_is_away(tmp_path: Path) -> None:
    async with open_pools(tmp_path) as house:
        await house.stop_gateway()
        await house.stop_server(house.registry)
        await house.start_gateway()
        async with openai_client(house, "/coding") as client:
            assert [model.id async for model in client.models.list()] == [CODER]
        await house.start_server(house.registry)
        await describe(house, PoolSpec(name="coding", path_prefix="/coders"))
        async with house.client.get(f"{house.url}/coding/v1/models", headers=house.headers) as answer:
            assert answer.status == 404
        async with openai_client(house, "/coders") as client:
            assert [model.id async for model in client.models.list()] == [CODER]


async def test_a_batch_is_made_where_its_key_belongs(tmp_path: Path) -> None:
    async with open_pools(tmp_path) as house:
        wish = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        async with house.client.post(f"{house.url}/coding/v1/batches", json=wish, headers=house.headers) as answer:
            assert answer.status == 501
            assert "a key of the pool coding" in (await answer.json())["error"]["message"]
        own = bearer(await key_of(house, "coding"))
        async with house.client.post(f"{house.url}/coding/v1/batches", json=wish, headers=own) as answer:
            assert (await answer.json())["error"]["param"] == "input_file_id", "it was understood"
