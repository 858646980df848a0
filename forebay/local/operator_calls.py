"""What `forebay up` asks of admin once it is there: to know the engines that were found, and this machine as a node."""

from __future__ import annotations

import asyncio
import platform
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import grpc.aio

from forebay.errors import ForebayError, Unavailable
from forebay.local.engine import EngineKind
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import admin_pb2 as wire
from forebay.wire.v1 import admin_pb2_grpc, types_pb2
from forebay.wire.v1.discovery_pb2 import Addresses, SetNodeDiscoveryRequest
from forebay.wire.v1.identity_pb2 import ResetPasswordRequest

T = TypeVar("T")

_CALL_S = 10.0
_PATIENCE_S = 20.0
_TOKEN = re.compile(r"/join/([0-9a-f]{64})")
_KINDS = {
    EngineKind.OLLAMA: types_pb2.ENGINE_KIND_OLLAMA,
    EngineKind.VLLM: types_pb2.ENGINE_KIND_VLLM,
    EngineKind.LLAMA_CPP: types_pb2.ENGINE_KIND_LLAMACPP,
    EngineKind.OPENAI: types_pb2.ENGINE_KIND_UNSPECIFIED,  # the registry looks closer
}


@dataclass(frozen=True, slots=True)
class WantedBackend:
    name: str
    url: str
    kind: EngineKind
    slots: int = 0
    """0: what the engine says."""
    bearer: str = ""
    node: str = ""


class OperatorCalls:
    """Admin's operator calls in our own name. Raises ForebayError; what is away is waited for, some twenty seconds."""

    def __init__(self, peer: Peer) -> None:
        self._stub: admin_pb2_grpc.OperatorAsyncStub = admin_pb2_grpc.OperatorStub(peer.channel)
        self._metadata = peer.metadata

    async def keep_backend(self, wanted: WantedBackend) -> None:
        """It is known afterwards, as wanted where it is new or moved; what an operator changed otherwise stays. Raises
        ForebayError."""
        held = await self._call(self._stub.ShowBackends, wire.ShowBackendsRequest())
        if any(b.name != wanted.name and b.url.rstrip("/") == wanted.url for b in held.backends):
            return  # an operator, or the settings file, has it under a name of their own
        known = next((backend for backend in held.backends if backend.name == wanted.name), None)
        if known is not None and known.url.rstrip("/") == wanted.url and not wanted.bearer:
            return
        request = wire.RegisterBackendRequest(
            name=wanted.name,
            url=wanted.url,
            kind=_KINDS[wanted.kind],
            slots=wanted.slots,
            bearer=wanted.bearer,
            node=wanted.node,
            pool=known.pool if known is not None else "",
            replace=True,
        )
        await self._call(self._stub.RegisterBackend, request)

    async def drop_backend(self, name: str) -> None:
        """It is not known afterwards."""
        held = await self._call(self._stub.ShowBackends, wire.ShowBackendsRequest())
        if any(backend.name == name for backend in held.backends):
            await self._call(self._stub.UnregisterBackend, wire.UnregisterBackendRequest(name=name))

    async def knows_node(self, name: str) -> bool:
        held = await self._call(self._stub.ShowNodes, wire.ShowNodesRequest())
        return any(node.name == name for node in held.nodes)

    async def place_node(self, node: str, address: str) -> None:
        """Where this machine's engines are reached, unless somebody has said it already. Raises ForebayError."""
        held = await self._call(self._stub.SetNodeDiscovery, SetNodeDiscoveryRequest(node=node))
        if not held.after.addresses:
            request = SetNodeDiscoveryRequest(node=node, addresses=Addresses(all=[address]))
            await self._call(self._stub.SetNodeDiscovery, request)

    async def password_link(self, user: str) -> str:
        """Where the user sets a password of their own, once."""
        made = await self._call(self._stub.ResetPassword, ResetPasswordRequest(user=user))
        return str(made.url)

    async def invite(self, node: str) -> str:
        """The token with which one machine may join as `node`, once."""
        invited = await self._call(self._stub.InviteNode, wire.InviteNodeRequest(name=node, valid_s=60))
        found = _TOKEN.search(invited.command)
        if found is None:
            raise ForebayError("Admin's invitation holds no token; are all parts of the same version?")
        return found[1]

    async def _call(self, method: Callable[..., Awaitable[T]], request: Any) -> T:
        until = asyncio.get_running_loop().time() + _PATIENCE_S
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=_CALL_S)
            except grpc.aio.AioRpcError as error:
                told = as_forebay_error(error)
                if not isinstance(told, Unavailable) or asyncio.get_running_loop().time() > until:
                    raise told from error
            await asyncio.sleep(0.2)


async def join(session: aiohttp.ClientSession, admin_url: str, token: str, public_nkey: str) -> None:
    """Takes up an invitation for this machine. Raises Unavailable with admin's words."""
    body = {"public_nkey": public_nkey, "hostname": platform.node()}
    try:
        async with session.post(f"{admin_url}/join/{token}", json=body) as response:
            if response.status != 200:
                raise Unavailable(f"admin answers {response.status}: {(await response.text()).strip()}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"admin cannot be reached at {admin_url}: {error}") from error
