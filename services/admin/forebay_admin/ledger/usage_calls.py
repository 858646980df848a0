"""The operators' calls of `usage_desk`, `cost_desk` and `letters_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import admin_pb2, prices_pb2, usage_queries_pb2
from forebay_admin.ledger.cost_desk import CostDesk
from forebay_admin.ledger.letters_desk import LettersDesk
from forebay_admin.ledger.usage_desk import UsageDesk
from forebay_admin.people.access import Access


class UsageCalls:
    _access: Access
    _usage: UsageDesk
    _costs: CostDesk
    _letters: LettersDesk

    async def ShowUsage(self, request: admin_pb2.ShowUsageRequest, context: Any) -> admin_pb2.ShowUsageResponse:
        return await self._usage.show(request, self._access.actor())

    async def QueryUsage(
        self, request: usage_queries_pb2.QueryUsageRequest, context: Any
    ) -> usage_queries_pb2.QueryUsageResponse:
        return await self._usage.query(request, self._access.actor())

    async def ReadLedger(
        self, request: usage_queries_pb2.ReadLedgerRequest, context: Any
    ) -> usage_queries_pb2.ReadLedgerResponse:
        return await self._usage.read(request, self._access.actor())

    async def ShowCost(self, request: prices_pb2.ShowCostRequest, context: Any) -> prices_pb2.ShowCostResponse:
        return await self._costs.show(request, self._access.actor())

    async def ListDeadLetters(
        self, request: usage_queries_pb2.ListDeadLettersRequest, context: Any
    ) -> usage_queries_pb2.ListDeadLettersResponse:
        return await self._letters.list_all(request)

    async def ShowDeadLetter(
        self, request: usage_queries_pb2.ShowDeadLetterRequest, context: Any
    ) -> usage_queries_pb2.ShowDeadLetterResponse:
        return await self._letters.show(request)

    async def RetryDeadLetters(
        self, request: usage_queries_pb2.RetryDeadLettersRequest, context: Any
    ) -> usage_queries_pb2.RetryDeadLettersResponse:
        return await self._letters.retry(request, self._access.actor())
