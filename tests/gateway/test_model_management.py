"""Managing models through Ollama's API: who may, which backends are meant, and what the client is told meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ollama
import pytest

from forebay.keys import ForebayKey
from forebay.wire.v1 import admin_pb2, types_pb2
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_faults import Fault, FaultKind
from tests.fakes.engine_flavours import Flavour
from tests.fakes.engine_library import Layer
from tests.gateway.house import MODEL, House, eventually, open_house

SOON_S = 10.0
ONE, TWO = "name-of-b1", "name-of-b2"
OLLAMA = types_pb2.ENGINE_KIND_OLLAMA


@dataclass
class Shop:
    """A house with Ollama engines and an operator at its door."""

    house: House
    engines: tuple[FakeEngine, ...]
    operator: ForebayKey
    clients: AsyncExitStack

    @cached_property
    def client(self) -> ollama.AsyncClient:
        return self._opened(ollama.AsyncClient(host=f"{self.house.url}/k/{self.operator}"))

    def client_of(self, key: ForebayKey, **headers: str) -> ollama.AsyncClient:
        headers["authorization"] = f"Bearer {key}"
        return self._opened(ollama.AsyncClient(host=self.house.url, headers=headers))

    def _opened(self, client: ollama.AsyncClient) -> ollama.AsyncClient:
        self.clients.push_async_callback(client.close)
        return client

    async def add_key(self, **fields: Any) -> ForebayKey:
        """The gateway knows it."""
        key = self.house.admin.add_key(**fields)
        headers = {"authorization": f"Bearer {key}"}
        while True:
            async with self.house.client.get(f"{self.house.url}/v1/models", headers=headers) as answer:
                if answer.status == 200:
                    return key

    def at(self, backend: str) -> ollama.AsyncClient:
        return self.client_of(self.operator, **{"x-forebay-backend": backend})

    def request(self, method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.operator}", **options.pop("headers", {})}
        return self.house.client.request(method, f"{self.house.url}{path}", headers=headers, **options)

    async def probe(self, number: int, *models: str, healthy: bool = True) -> None:
        """As the registry tells of it afterwards; the gateway has heard it."""
        name = f"sign-{time.monotonic_ns()}"
        url = self.engines[number - 1].url
        await self.house.put(f"b{number}", url, kind=OLLAMA, models=(*models, name), healthy=healthy)
        while True:
            async with self.request("GET", "/v1/models") as answer:
                if name in await answer.text():
                    return

    async def lines(self, path: str, body: Any, **headers: str) -> list[dict[str, Any]]:
        async with self.request("POST", path, json=body, headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
            raw = await answer.read()
        assert raw.endswith(b"\n")
        return [json.loads(line) for line in raw.removesuffix(b"\n").split(b"\n")]  # a blank line would not parse


@asynccontextmanager
async def open_shop(directory: Path, count: int = 2, **changes: Any) -> AsyncIterator[Shop]:
    engines = tuple(FakeEngine(flavour=Flavour.OLLAMA) for _ in range(count))
    async with open_house(directory, *engines, **changes) as house, AsyncExitStack() as clients:
        for number, engine in enumerate(engines, 1):
            await house.put(f"b{number}", engine.url, kind=OLLAMA)
        operator = house.admin.add_key(role=admin_pb2.ROLE_OPERATOR)
        shop = Shop(house, engines, operator, clients)
        while not all(engine.record.probes["/api/version"] for engine in engines):  # the gateway knows them and the key
            async with shop.request("GET", "/api/version"):
                await asyncio.sleep(0.002)
        yield shop


# --- who may, and where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [admin_pb2.ROLE_MEMBER, admin_pb2.ROLE_AUDITOR])
async def test_other_keys_are_refused_and_nothing_reaches_an_engine(tmp_path: Path, role: Any) -> None:
    async with open_shop(tmp_path) as shop:
        client = shop.client_of(await shop.add_key(role=role))
        blob = tmp_path / "blob"
        blob.write_bytes(b"x" * 100_000)
        for asked in (
            lambda: client.pull("tiny"),
            lambda: client.push(MODEL),
            lambda: client.create("mine", from_=MODEL),
            lambda: client.copy(MODEL, "mine"),
            lambda: client.delete(MODEL),
            lambda: client.create_blob(blob),
        ):
            with pytest.raises(ollama.ResponseError, match="takes an operator's") as refused:
                await asked()
            assert refused.value.status_code == 403
        assert [engine.library.asked for engine in shop.engines] == [[], []]
        async with shop.house.client.post(f"{shop.house.url}/k/fb-000000000000-x/api/pull", json={}) as answer:
            assert answer.status == 403
            assert "not known here" in (await answer.json())["error"]


async def test_a_key_for_certain_models_manages_only_those(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        key = await shop.add_key(role=admin_pb2.ROLE_ADMIN, allowed_models=["tiny*"])
        client = shop.client_of(key)
        assert (await client.pull("tiny:1b")).status == "success"
        with pytest.raises(ollama.ResponseError, match="does not allow the model fake-model"):
            await client.copy(MODEL, "tiny:mine")
        with pytest.raises(ollama.ResponseError, match="does not allow the model fake-model"):
            await client.create("tiny:mine", from_=MODEL)
        with pytest.raises(ollama.ResponseError, match="does not allow the model fake-model"):
            await client.delete(MODEL)


async def test_a_pool_without_ollama_says_what_to_do(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1) as shop:
        elsewhere = shop.client_of(await shop.add_key(role=admin_pb2.ROLE_ADMIN, pool="other"))
        with pytest.raises(ollama.ResponseError, match="pool other of this API key has no Ollama backend") as none:
            await elsewhere.pull("tiny")
        assert none.value.status_code == 400
        await shop.probe(1, MODEL, healthy=False)
        with pytest.raises(ollama.ResponseError, match="is healthy at the moment") as ill:
            await shop.client.copy(MODEL, "again")
        assert ill.value.status_code == 503


async def test_a_backend_is_named_by_its_name_or_id_and_must_be_there(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        assert (await shop.at(TWO).pull("tiny")).status == "success"
        assert (await shop.at("b2").pull("small")).status == "success"
        one, two = (engine.library for engine in shop.engines)
        assert (one.models, two.models) == ({MODEL}, {MODEL, "tiny", "small"})
        with pytest.raises(ollama.ResponseError, match="no healthy Ollama backend of the pool default") as unknown:
            await shop.at("b7").pull("tiny")
        assert unknown.value.status_code == 400


async def test_what_is_missing_or_wrong_is_said(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1) as shop:
        for method, path, body, words in (
            ("POST", "/api/pull", {}, "model is required"),
            ("POST", "/api/pull", {"model": "", "name": ""}, "model is required"),
            ("POST", "/api/push", {"model": None}, "model is required"),
            ("POST", "/api/create", {"from": MODEL}, "model is required"),
            ("DELETE", "/api/delete", {}, "model is required"),
            ("DELETE", "/api/delete", None, "missing request body"),
            ("POST", "/api/pull", {"model": 7}, "`model` must be a string"),
            ("POST", "/api/pull", {"model": "tiny", "stream": "yes"}, "`stream` must be true or false"),
            ("POST", "/api/copy", {"source": MODEL}, "`destination` is missing"),
            ("POST", "/api/copy", {"destination": MODEL}, "`source` is missing"),
            ("POST", "/api/blobs/sha256:abc", None, "invalid digest format"),
            ("POST", f"/api/blobs/sha256:{'g' * 64}", None, "invalid digest format"),
            ("POST", f"/api/blobs/a/sha256:{'a' * 64}", None, "invalid digest format"),
        ):
            async with shop.request(method, path, data=None if body is None else json.dumps(body)) as answer:
                assert answer.status == 400, path
                assert words in (await answer.json())["error"]
        assert shop.engines[0].library.asked == []


async def test_wrong_methods_and_large_bodies_are_refused(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1, max_body_bytes=1000) as shop:
        async with shop.request("GET", f"/api/blobs/sha256:{'a' * 64}") as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "HEAD, POST")
        async with shop.request("POST", "/api/delete", json={"model": MODEL}) as answer:
            assert answer.status == 405
        async with shop.request("POST", "/api/create", json={"model": "m", "system": "x" * 2000}) as answer:
            assert answer.status == 413
        async with shop.request("HEAD", "/api/version") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


# --- pull ---------------------------------------------------------------------------------------------------------------


async def test_a_pull_goes_to_all_and_its_progress_is_their_sum(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for engine in shop.engines:
            engine.library.layers = (Layer(1000), Layer(60))
        digest = Layer(1000).name
        told = [part async for part in await shop.client.pull("tiny", stream=True)]
        statuses = [part.status for part in told if part.digest is None]
        assert statuses == ["pulling manifest", "verifying sha256 digest", "writing manifest", "success"]
        sums = [(part.total or 0, part.completed or 0) for part in told if part.digest == digest]
        assert sums == sorted(sums)
        assert sums[-1] == (2000, 2000)
        assert told[-1].status == "success"
        for engine in shop.engines:
            assert "tiny" in engine.library.models
            assert engine.library.asked == [("/api/pull", {"model": "tiny", "insecure": False, "stream": True})]


async def test_a_pull_without_a_stream_is_one_object(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        async with shop.request("POST", "/api/pull", json={"name": "tiny", "stream": False}) as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert await answer.json() == {"status": "success"}
        assert all("tiny" in engine.library.models for engine in shop.engines)
        shop.engines[1].library.missing.add("nosuch")
        with pytest.raises(ollama.ResponseError, match=f"{TWO}: pull model manifest") as failed:
            await shop.client.pull("nosuch")
        assert failed.value.status_code == 500


async def test_a_step_waits_for_the_slowest(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.engines[1].library.every_s = 0.03
        told = await shop.lines("/api/pull", {"model": "tiny"})
        digests = [place for place, line in enumerate(told) if "digest" in line]
        assert [line["status"] for line in told[digests[-1] + 1 :]] == [
            "verifying sha256 digest",
            "writing manifest",
            "success",
        ]


async def test_when_one_fails_the_others_finish_first_and_the_last_line_says_who(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.engines[0].library.missing.add("tiny")
        told = await shop.lines("/api/pull", {"model": "tiny"})
        assert told[0] == {"status": "pulling manifest"}
        assert told[-1] == {"error": f"{ONE}: pull model manifest: file does not exist (tiny has been pulled to {TWO})"}
        assert {"status": "writing manifest"} in told
        assert {"status": "success"} not in told
        assert "tiny" in shop.engines[1].library.models
        with pytest.raises(ollama.ResponseError, match="file does not exist"):
            _ = [part async for part in await shop.client.pull("tiny", stream=True)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(FaultKind.CUT_AFTER, on="/api/pull", chunks=3), "Its connection broke|ended in the middle"),
        (Fault(FaultKind.CUT_AFTER, on="/api/pull", chunks=3, reset=True), "Its connection broke"),
        (Fault(FaultKind.CLOSE_BEFORE_HEADERS, on="/api/pull", times=None), "No answer came"),
        (Fault(FaultKind.STATUS, on="/api/pull", status=500, message="disk full"), "disk full"),
        (Fault(FaultKind.STATUS, on="/api/pull", status=403, message=""), "It answered 403"),
    ],
    ids=["cut", "reset", "closed", "status", "host check"],
)
async def test_an_engine_that_breaks_fails_alone(tmp_path: Path, fault: Fault, words: str) -> None:
    async with open_shop(tmp_path) as shop:
        shop.engines[1].faults.add(fault)
        with pytest.raises(ollama.ResponseError, match=f"{TWO}: .*({words}).*pulled to {ONE}"):
            _ = [part async for part in await shop.client.pull("tiny", stream=True)]
        assert "tiny" in shop.engines[0].library.models
        assert "tiny" not in shop.engines[1].library.models


async def test_what_all_refuse_alike_keeps_its_status_and_words(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for engine in shop.engines:
            engine.faults.add(Fault(FaultKind.STATUS, on="/api/pull", status=400, message="invalid model name"))
        with pytest.raises(ollama.ResponseError) as refused:
            _ = [part async for part in await shop.client.pull("tiny", stream=True)]
        assert (refused.value.status_code, refused.value.error) == (400, "invalid model name")


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_client_that_goes_ends_the_pull_everywhere(tmp_path: Path, streamed: bool) -> None:
    async with open_shop(tmp_path) as shop:
        for engine in shop.engines:
            engine.library.every_s = 0.01
            engine.library.pieces = 10_000
        pulling = asyncio.create_task(shop.lines("/api/pull", {"model": "tiny", "stream": streamed}))
        await eventually(lambda: all(engine.library.under_way for engine in shop.engines))
        await asyncio.sleep(0.05)
        pulling.cancel()
        began = time.monotonic()
        await eventually(lambda: [engine.library.cut_off for engine in shop.engines] == [1, 1])
        assert time.monotonic() - began < SOON_S
        assert not any("tiny" in engine.library.models for engine in shop.engines)
        await eventually(lambda: shop.house.metric("forebay_gateway_running") == 0)


async def test_a_key_that_is_revoked_with_all_it_runs_ends_its_pull(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        for engine in shop.engines:
            engine.library.every_s, engine.library.pieces = 0.01, 10_000
        pulling = asyncio.create_task(shop.lines("/api/pull", {"model": "tiny"}))
        await eventually(lambda: all(engine.library.under_way for engine in shop.engines))
        await asyncio.sleep(0.05)
        shop.house.admin.revoke(shop.operator, cut_running=True)
        assert (await pulling)[-1]["error"].startswith("This API key was revoked.")
        await eventually(lambda: [engine.library.cut_off for engine in shop.engines] == [1, 1])


async def test_a_backend_that_is_lost_does_not_hold_the_others(tmp_path: Path) -> None:
    async with open_shop(tmp_path, lost_idle_s=0.2) as shop:
        shop.engines[1].library.every_s = 60.0
        pulling = asyncio.create_task(shop.lines("/api/pull", {"model": "tiny"}))
        await eventually(lambda: "tiny" in shop.engines[0].library.models)
        await shop.house.put("b2", shop.engines[1].url, kind=OLLAMA, healthy=False)
        assert f"{TWO}: It stopped answering" in (await pulling)[-1]["error"]


# --- delete, copy, push -------------------------------------------------------------------------------------------------


async def test_delete_reaches_all_that_have_the_model(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        async with shop.request("DELETE", "/api/delete", json={"model": MODEL}) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        assert [engine.library.models for engine in shop.engines] == [set(), set()]
        with pytest.raises(ollama.ResponseError) as missing:
            await shop.client.delete(MODEL)
        assert (missing.value.status_code, missing.value.error) == (404, f"model '{MODEL}' not found")


async def test_delete_finds_what_only_one_has_and_what_the_fleet_does_not_know_yet(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await shop.at(TWO).pull("tiny")
        assert (await shop.client.delete("tiny")).status == "success"
        assert [engine.library.models for engine in shop.engines] == [{MODEL}, {MODEL}]


async def test_a_delete_that_reaches_only_some_says_which(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        shop.engines[1].faults.add(Fault(FaultKind.STATUS, on="/api/delete", status=500, message="disk on fire"))
        with pytest.raises(ollama.ResponseError) as partly:
            await shop.client.delete(MODEL)
        assert partly.value.status_code == 500
        assert partly.value.error == f"{TWO}: disk on fire ({MODEL} has been deleted from {ONE})"
        # Nor does it call a model deleted that lies on a backend which is away.
        await shop.probe(2, MODEL, healthy=False)
        await shop.engines[1].stop()
        with pytest.raises(ollama.ResponseError, match=f"{TWO}: No answer came"):
            await shop.client.delete(MODEL)


async def test_copy_goes_to_one_that_has_the_source(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        one, two = (engine.library for engine in shop.engines)
        async with shop.request("POST", "/api/copy", json={"source": MODEL, "destination": "mine"}) as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["x-forebay-backend"] == ONE
        await shop.at(TWO).pull("tiny")
        await shop.probe(2, MODEL, "tiny:latest")
        assert (await shop.client.copy("tiny", "mine")).status == "success"
        assert ("mine" in one.models, "mine" in two.models) == (True, True)
        with pytest.raises(ollama.ResponseError) as missing:
            await shop.client.copy("nosuch", "mine")
        assert (missing.value.status_code, missing.value.error) == (404, 'model "nosuch" not found')


async def test_push_passes_its_progress_unchanged(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        told = await shop.lines("/api/push", {"name": MODEL})
        assert [line["status"] for line in told] == [
            "retrieving manifest",
            "pushing 0123456789ab",
            "pushing manifest",
            "success",
        ]
        assert (await shop.client.push(MODEL)).status == "success"
        assert [path for path, _ in shop.engines[0].library.asked] == ["/api/push", "/api/push"]
        assert shop.engines[1].library.asked == []
        told = await shop.lines("/api/push", {"model": "nosuch"}, **{"x-forebay-backend": TWO})
        assert told[-1] == {"error": "couldn't retrieve manifest for specified model: nosuch"}
        with pytest.raises(ollama.ResponseError, match="couldn't retrieve manifest") as failed:
            await shop.client.push("nosuch")
        assert failed.value.status_code == 500


# --- blobs and create ---------------------------------------------------------------------------------------------------


async def test_a_model_is_made_of_a_blob_on_the_same_backend(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        blob = tmp_path / "model.gguf"
        blob.write_bytes(b"GGUF" + bytes(3_000_000))
        one, two = (engine.library for engine in shop.engines)
        digest = await shop.client.create_blob(blob)
        assert one.blobs == {digest: blob.read_bytes()}
        told = [
            part.status async for part in await shop.client.create("mine", files={"model.gguf": digest}, stream=True)
        ]
        assert told == [f"using existing layer {digest}", "writing manifest", "success"]
        assert (await shop.client.create("mine:2", files={"model.gguf": digest})).status == "success"
        assert one.models == {MODEL, "mine", "mine:2"}
        with pytest.raises(ollama.ResponseError, match=f"blob {digest} not found") as elsewhere:
            await shop.at(TWO).create("mine", files={"model.gguf": digest})
        assert elsewhere.value.status_code == 400
        assert await shop.at(TWO).create_blob(blob) == digest
        assert (await shop.at(TWO).create("mine", files={"model.gguf": digest})).status == "success"
        assert two.models == {MODEL, "mine"}


async def test_a_model_that_is_made_of_another_alone_is_made_where_that_is(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        await shop.at(TWO).pull("tiny")
        await shop.probe(2, MODEL, "tiny:latest")
        assert (await shop.client.create("mine", from_="tiny", system="Be brief.")).status == "success"
        assert "mine" in shop.engines[1].library.models


async def test_whether_a_blob_is_there(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        content = b"some weights"
        path = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
        statuses = []
        for method in ("HEAD", "POST", "POST", "HEAD"):
            async with shop.request(method, path, data=content if method == "POST" else None) as answer:
                statuses.append(answer.status)
                assert await answer.read() == b""
        assert statuses == [404, 201, 200, 200]
        shop.engines[0].faults.add(Fault(FaultKind.STATUS, on="/api/blobs", status=500))
        async with shop.request("HEAD", path) as answer:
            assert answer.status == 500


async def test_a_blob_that_is_not_what_it_is_called_is_refused_in_ollamas_words(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as shop:
        digest = f"sha256:{'a' * 64}"
        async with shop.request("POST", f"/api/blobs/{digest}", data=b"something else") as answer:
            assert answer.status == 400
            assert (await answer.json())["error"].startswith(f'digest mismatch, expected "{digest}"')


async def test_a_blob_passes_through_while_it_arrives_and_is_held_nowhere(tmp_path: Path) -> None:
    async with open_shop(tmp_path, max_body_bytes=1000, held_bodies_bytes=1000) as shop:
        piece, count = bytes(1 << 20), 24
        digest = f"sha256:{hashlib.sha256(piece * count).hexdigest()}"
        library = shop.engines[0].library
        most_behind = 0

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal most_behind
            for sent in range(count):
                yield piece
                await eventually(lambda sent=sent: library.blob_bytes >= sent * len(piece))  # type: ignore[misc]
                most_behind = max(most_behind, (sent + 1) * len(piece) - library.blob_bytes)

        async with shop.request("POST", f"/api/blobs/{digest}", data=pieces()) as answer:
            assert answer.status == 201
        assert library.blob_bytes == count * len(piece)
        assert most_behind <= 2 * len(piece)


async def test_a_client_that_goes_while_it_sends_a_blob_leaves_nothing(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1) as shop:
        library = shop.engines[0].library

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x" * 100_000
            await asyncio.sleep(60)

        async def send() -> None:
            async with shop.request("POST", f"/api/blobs/sha256:{'a' * 64}", data=pieces()):
                pass

        sending = asyncio.create_task(send())
        await eventually(lambda: library.blob_bytes == 100_000)
        sending.cancel()
        await eventually(lambda: library.cut_off == 1)
        assert not library.blobs
        await eventually(lambda: shop.house.metric("forebay_gateway_running") == 0)


async def test_a_client_that_stops_sending_a_blob_is_told_so(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1, body_idle_s=0.2) as shop:

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            await asyncio.sleep(1)

        async with shop.request("POST", f"/api/blobs/sha256:{'a' * 64}", data=pieces()) as answer:
            assert answer.status == 408
            assert "stopped arriving" in (await answer.json())["error"]
        await eventually(lambda: shop.engines[0].library.cut_off == 1)


async def test_a_client_may_ask_before_it_sends_a_blob(tmp_path: Path) -> None:
    async with open_shop(tmp_path, 1) as shop:
        content = b"weights" * 1000
        path = f"/api/blobs/sha256:{hashlib.sha256(content).hexdigest()}"
        async with shop.request("POST", path, data=content, expect100=True) as answer:
            assert answer.status == 201


# --- what is left of it -------------------------------------------------------------------------------------------------


async def test_each_order_leaves_one_line_in_the_log_no_row_and_takes_no_slot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "forebay_gateway.library.management")
    async with open_shop(tmp_path) as shop:
        shop.engines[1].library.missing.add("nosuch")
        await shop.client.pull("tiny")
        with pytest.raises(ollama.ResponseError):
            await shop.client.pull("nosuch")
        await shop.client.copy(MODEL, "mine")
        await shop.client.delete("mine")
        with pytest.raises(ollama.ResponseError):
            await shop.client_of(shop.house.key).delete(MODEL)
        told = [
            (record.action, record.key_id, record.model, record.backends, str(record.outcome))  # type: ignore[attr-defined]
            for record in caplog.records
            if hasattr(record, "outcome")
        ]
        operator = shop.operator.public_id
        assert told == [
            ("model_pull", operator, "tiny", [ONE, TWO], "done"),
            ("model_pull", operator, "nosuch", [ONE, TWO], "engine_refused"),
            ("model_copy", operator, "mine", [ONE], "done"),
            ("model_delete", operator, "mine", [ONE, TWO], "done"),
            ("model_delete", shop.house.key.public_id, "", [], "not_allowed"),
        ]
        assert await shop.house.rows(0) == []
        assert not shop.house.scheduler.submits
        assert not shop.house.scheduler.credit_starts


async def test_a_gateway_that_stops_lets_a_pull_finish(tmp_path: Path) -> None:
    async with open_shop(tmp_path, drain_s=5.0) as shop:
        for engine in shop.engines:
            engine.library.every_s = 0.02
        pulling = asyncio.create_task(shop.lines("/api/pull", {"model": "tiny"}))
        await eventually(lambda: all(engine.library.under_way for engine in shop.engines))
        await shop.house.stop_gateway()
        assert (await pulling)[-1] == {"status": "success"}
