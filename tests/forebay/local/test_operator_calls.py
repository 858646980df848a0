"""What `forebay up` asks of admin, against an admin that only remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc.aio
import pytest
from aiohttp import web

from forebay.errors import NotAuthenticated, Unavailable
from forebay.local.engine import EngineKind
from forebay.local.operator_calls import OperatorCalls, WantedBackend, join
from forebay.rpc import open_peer, open_server
from forebay.wire.v1 import admin_pb2 as wire
from forebay.wire.v1 import admin_pb2_grpc, discovery_pb2, registry_pb2, types_pb2


class Admin(admin_pb2_grpc.OperatorServicer):
    def __init__(self) -> None:
        self.backends: dict[str, registry_pb2.Backend] = {}
        self.registered: list[wire.RegisterBackendRequest] = []
        self.away = 0
        self.addresses: list[list[str]] = []

    async def ShowBackends(self, request: wire.ShowBackendsRequest, context: Any) -> wire.ShowBackendsResponse:
        if self.away:
            self.away -= 1
            raise Unavailable
        return wire.ShowBackendsResponse(backends=list(self.backends.values()))

    async def RegisterBackend(self, request: wire.RegisterBackendRequest, context: Any) -> wire.RegisterBackendResponse:
        self.registered.append(request)
        backend = registry_pb2.Backend(name=request.name, url=request.url, pool=request.pool or "default")
        self.backends[request.name] = backend
        return wire.RegisterBackendResponse(backend=backend, created=True)

    async def UnregisterBackend(
        self, request: wire.UnregisterBackendRequest, context: Any
    ) -> wire.UnregisterBackendResponse:
        return wire.UnregisterBackendResponse(backend=self.backends.pop(request.name))

    async def InviteNode(self, request: wire.InviteNodeRequest, context: Any) -> wire.InviteNodeResponse:
        return wire.InviteNodeResponse(command=f"curl -fsS http://127.0.0.1:8091/join/{'ab' * 32} | sh")

    async def SetNodeDiscovery(
        self, request: discovery_pb2.SetNodeDiscoveryRequest, context: Any
    ) -> discovery_pb2.SetNodeDiscoveryResponse:
        if request.HasField("addresses"):
            self.addresses.append(list(request.addresses.all))
        told = discovery_pb2.NodeDiscovery(node=request.node, addresses=self.addresses[-1] if self.addresses else [])
        return discovery_pb2.SetNodeDiscoveryResponse(after=told)

    async def ShowNodes(self, request: wire.ShowNodesRequest, context: Any) -> wire.ShowNodesResponse:
        return wire.ShowNodesResponse(nodes=[registry_pb2.Node(name="laptop")])


@pytest.fixture
def admin() -> Admin:
    return Admin()  # type: ignore[abstract]  # only what is called here


@asynccontextmanager
async def calling(admin: Admin, token: str = "ours") -> AsyncIterator[OperatorCalls]:
    def authorize(method: str, bearer: str | None) -> str:
        if bearer != "ours":
            raise NotAuthenticated
        return "up"

    def add(server: grpc.aio.Server) -> None:
        admin_pb2_grpc.add_OperatorServicer_to_server(admin, server)

    async with (
        open_server("127.0.0.1:0", add, authorize, grace_s=0) as address,
        open_peer(address, token=token) as peer,
    ):
        yield OperatorCalls(peer)


async def test_an_engine_is_told_once_and_again_when_it_moves(admin: Admin) -> None:
    async with calling(admin) as calls:
        await calls.keep_backend(WantedBackend("ollama-11434", "http://127.0.0.1:11434", EngineKind.OLLAMA))
        await calls.keep_backend(WantedBackend("ollama-11434", "http://127.0.0.1:11434", EngineKind.OLLAMA))
        assert len(admin.registered) == 1
        assert admin.registered[0].kind == types_pb2.ENGINE_KIND_OLLAMA
        admin.backends["ollama-11434"].pool = "fast"  # an operator's choice
        await calls.keep_backend(WantedBackend("ollama-11434", "http://127.0.0.1:11435", EngineKind.OLLAMA))
        assert (admin.registered[1].url, admin.registered[1].pool) == ("http://127.0.0.1:11435", "fast")


async def test_the_engine_that_we_start_is_told_each_time_since_its_key_and_slots_are_ours(admin: Admin) -> None:
    demo = WantedBackend("demo", "http://127.0.0.1:8102", EngineKind.LLAMA_CPP, slots=4, bearer="key")
    async with calling(admin) as calls:
        await calls.keep_backend(demo)
        await calls.keep_backend(demo)
        assert [(r.slots, r.bearer, r.replace) for r in admin.registered] == [(4, "key", True)] * 2
        await calls.drop_backend("demo")
        await calls.drop_backend("demo")
    assert admin.backends == {}


async def test_an_engine_that_somebody_added_under_another_name_is_left_alone(admin: Admin) -> None:
    admin.backends["big-gpu"] = registry_pb2.Backend(name="big-gpu", url="http://127.0.0.1:8000/")
    async with calling(admin) as calls:
        await calls.keep_backend(WantedBackend("vllm-8000", "http://127.0.0.1:8000", EngineKind.VLLM))
    assert admin.registered == []


async def test_an_admin_that_is_away_for_a_moment_is_waited_for(admin: Admin) -> None:
    admin.away = 2
    async with calling(admin) as calls:
        await calls.keep_backend(WantedBackend("x", "http://127.0.0.1:1", EngineKind.OPENAI))
    assert "x" in admin.backends


async def test_a_token_that_is_not_ours_is_an_error_at_once(admin: Admin) -> None:
    async with calling(admin, token="theirs") as calls:
        with pytest.raises(NotAuthenticated):
            await calls.drop_backend("demo")


async def test_this_machine_joins_as_any_other_would(admin: Admin) -> None:
    taken: list[tuple[str, Any]] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        taken.append((request.path, await request.json()))
        return web.json_response({"error": "was used"}, status=200 if len(taken) == 1 else 410)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with calling(admin) as calls, aiohttp.ClientSession() as session:
        assert await calls.knows_node("laptop")
        assert not await calls.knows_node("desktop")
        token = await calls.invite("laptop")
        await join(session, url, token, "U" + "A" * 55)
        with pytest.raises(Unavailable, match=r"admin answers 410: .*was used"):
            await join(session, url, token, "U" + "A" * 55)
    await runner.cleanup()
    path, body = taken[0]
    assert path == f"/join/{'ab' * 32}"
    assert body["public_nkey"] == "U" + "A" * 55


async def test_where_this_machine_is_is_said_once_and_an_operators_word_stays(admin: Admin) -> None:
    async with calling(admin) as calls:
        await calls.place_node("laptop", "127.0.0.1")
        await calls.place_node("laptop", "10.0.0.1")
    assert admin.addresses == [["127.0.0.1"]]


async def test_an_admin_that_is_not_there_is_an_error_with_its_address(free_port: Any) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(Unavailable, match="admin cannot be reached at http://127"):
            await join(session, f"http://127.0.0.1:{free_port()}", "token", "U")
