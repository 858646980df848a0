"""The operators' calls of `bulk_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import bulk_pb2
from forebay_admin.bulk.bulk_desk import BulkDesk
from forebay_admin.people.access import Access


class BulkCalls:
    _access: Access
    _bulk: BulkDesk

    async def ImportUsers(self, request: bulk_pb2.ImportUsersRequest, context: Any) -> bulk_pb2.ImportUsersResponse:
        return await self._bulk.import_users(request, self._access.actor())

    async def ImportKeys(self, request: bulk_pb2.ImportKeysRequest, context: Any) -> bulk_pb2.ImportKeysResponse:
        return await self._bulk.import_keys(request, self._access.actor())
