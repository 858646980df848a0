"""Admin's calls to the registry about alerts, and to each registry about how it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from forebay.errors import ForebayError
from forebay.rpc import Peer, as_forebay_error
from forebay.wire.v1 import alerts_pb2, alerts_pb2_grpc, status_pb2, status_pb2_grpc
from forebay_admin.fleet.registry_client import CALL_S, telling_operators

_STANDING_S = 2.0

R = TypeVar("R")


class AlertsClient:
    """Each call raises what the registry raises (BadInput, NotFound …), and Unavailable while it is away."""

    def __init__(self, peer: Peer) -> None:
        self._stub: Any = alerts_pb2_grpc.AlertsStub(peer.channel)
        self._metadata = peer.metadata

    async def list(self, request: alerts_pb2.ListAlertsRequest) -> alerts_pb2.ListAlertsResponse:
        return await self._call(self._stub.ListAlerts, request)

    async def show(self, request: alerts_pb2.ShowAlertRequest) -> alerts_pb2.ShowAlertResponse:
        return await self._call(self._stub.ShowAlert, request)

    async def ack(self, request: alerts_pb2.AckAlertRequest) -> alerts_pb2.AckAlertResponse:
        return await self._call(self._stub.AckAlert, request)

    async def silence(self, request: alerts_pb2.SilenceAlertsRequest) -> alerts_pb2.SilenceAlertsResponse:
        return await self._call(self._stub.SilenceAlerts, request)

    async def unsilence(self, request: alerts_pb2.UnsilenceAlertsRequest) -> alerts_pb2.UnsilenceAlertsResponse:
        return await self._call(self._stub.UnsilenceAlerts, request)

    async def test(self, request: alerts_pb2.TestAlertsRequest) -> alerts_pb2.TestAlertsResponse:
        """May take as long as all webhooks do."""
        with telling_operators():
            answer: alerts_pb2.TestAlertsResponse = await self._stub.TestAlerts(request, metadata=self._metadata)
            return answer

    async def watch(
        self, request: alerts_pb2.WatchAlertsRequest
    ) -> AsyncGenerator[alerts_pb2.WatchAlertsResponse, None]:
        call = self._stub.WatchAlerts(request, metadata=self._metadata)
        try:
            with telling_operators():
                async for answer in call:
                    yield answer
        finally:
            if hasattr(call, "cancel"):
                call.cancel()

    async def _call(self, method: Callable[..., Awaitable[R]], request: Message) -> R:
        with telling_operators():
            return await method(request, metadata=self._metadata, timeout=CALL_S, wait_for_ready=True)


@dataclass(frozen=True, slots=True)
class RegistryStanding:
    """Of one registry, as it says itself."""

    address: str
    told: status_pb2.ShowStandingResponse | None
    error: str = ""
    """Why it says nothing."""


async def registry_standings(peers: Sequence[tuple[str, Peer]]) -> list[RegistryStanding]:
    """Of all, asked at once. `peers`: each with its address."""
    return list(await asyncio.gather(*(_standing(address, peer) for address, peer in peers)))


async def _standing(address: str, peer: Peer) -> RegistryStanding:
    stub: Any = status_pb2_grpc.StandingStub(peer.channel)
    try:
        told = await stub.ShowStanding(
            status_pb2.ShowStandingRequest(), metadata=peer.metadata, timeout=_STANDING_S, wait_for_ready=True
        )
    except grpc.aio.AioRpcError as error:
        return RegistryStanding(address, None, _why(as_forebay_error(error), error))
    return RegistryStanding(address, told)


def _why(told: ForebayError, error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"It did not answer within {_STANDING_S:g} s."
    return told.message
