"""The operators' calls of `keys_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import admin_pb2, key_terms_pb2
from forebay_admin.keys.keys_desk import KeysDesk
from forebay_admin.people.access import Access


class KeyCalls:
    _access: Access
    _keys: KeysDesk

    async def SetKeyTerms(
        self, request: key_terms_pb2.SetKeyTermsRequest, context: Any
    ) -> admin_pb2.SetKeyTermsResponse:
        return await self._keys.set_terms(request, self._access.actor())

    async def RenewKey(self, request: key_terms_pb2.RenewKeyRequest, context: Any) -> admin_pb2.RenewKeyResponse:
        return await self._keys.renew(request, self._access.actor())

    async def RotateKey(self, request: key_terms_pb2.RotateKeyRequest, context: Any) -> admin_pb2.RotateKeyResponse:
        return await self._keys.rotate(request, self._access.actor())

    async def BlockKey(self, request: key_terms_pb2.BlockKeyRequest, context: Any) -> admin_pb2.BlockKeyResponse:
        return await self._keys.block(request, self._access.actor())

    async def UnblockKey(self, request: key_terms_pb2.UnblockKeyRequest, context: Any) -> admin_pb2.UnblockKeyResponse:
        return await self._keys.unblock(request, self._access.actor())
