"""Spends ephemeral keys at admin: of all the gateways that see one, one may serve its request."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import grpc.aio

from forebay.ephemeral_keys import EphemeralKey
from forebay.rpc import Peer
from forebay.wire.v1 import ephemeral_keys_pb2, ephemeral_keys_pb2_grpc
from forebay_gateway.refused import EphemeralSpent, StateUnavailable

log = logging.getLogger(__name__)

_WITHIN_S = 5.0


class EphemeralSpending(Protocol):
    async def spend(self, key: EphemeralKey) -> None:
        """Raises EphemeralSpent, and StateUnavailable when nobody answers, within seconds."""
        ...


class AdminSpending:
    def __init__(self, peer: Peer) -> None:
        self._stub: Any = ephemeral_keys_pb2_grpc.EphemeralKeysStub(peer.channel)
        self._metadata = peer.metadata

    async def spend(self, key: EphemeralKey) -> None:
        request = ephemeral_keys_pb2.SpendEphemeralKeyRequest(id=key.id, expires_at_us=key.expires_at * 1_000_000)
        try:
            answer = await self._stub.Spend(request, metadata=self._metadata, timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            log.info(
                "ephemeral key not spent",
                extra={"action": "ephemeral_unavailable", "code": error.code().name, "why": error.details()},
            )
            # It may have been spent all the same, and then another try finds that: better than two requests for one key.
            raise StateUnavailable(
                "Ephemeral keys cannot be checked at the moment. Try again shortly with a new one; API keys work as ever."
            ) from error
        if not answer.was_free:
            raise EphemeralSpent
