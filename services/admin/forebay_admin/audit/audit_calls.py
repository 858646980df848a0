"""The operators' calls of `audit_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.wire.v1 import audit_pb2
from forebay_admin.audit.audit_desk import AuditDesk


class AuditCalls:
    _audit: AuditDesk

    async def ListAudit(self, request: audit_pb2.ListAuditRequest, context: Any) -> audit_pb2.ListAuditResponse:
        return await self._audit.list_entries(request)

    async def VerifyAudit(
        self, request: audit_pb2.VerifyAuditRequest, context: Any
    ) -> AsyncIterator[audit_pb2.VerifyAuditResponse]:
        async with aclosing(self._audit.verify(request)) as told:
            async for news in told:
                yield news
