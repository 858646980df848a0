"""The operators' calls of `requests_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import key_terms_pb2
from forebay_admin.people.access import Access
from forebay_admin.quotas.requests_desk import QuotaRequestsDesk


class QuotaRequestCalls:
    _access: Access
    _quota_requests: QuotaRequestsDesk

    async def RequestQuota(
        self, request: key_terms_pb2.RequestQuotaRequest, context: Any
    ) -> key_terms_pb2.RequestQuotaResponse:
        return await self._quota_requests.request(request, self._access.actor())

    async def ListQuotaRequests(
        self, request: key_terms_pb2.ListQuotaRequestsRequest, context: Any
    ) -> key_terms_pb2.ListQuotaRequestsResponse:
        return await self._quota_requests.list_all(request, self._access.actor())

    async def DecideQuotaRequest(
        self, request: key_terms_pb2.DecideQuotaRequestRequest, context: Any
    ) -> key_terms_pb2.DecideQuotaRequestResponse:
        return await self._quota_requests.decide(request, self._access.actor())
