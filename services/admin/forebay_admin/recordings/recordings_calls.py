"""The operators' calls of `recordings_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import recordings_pb2 as wire
from forebay_admin.people.access import Access
from forebay_admin.recordings.recordings_desk import RecordingsDesk


class RecordingsCalls:
    _access: Access
    _recordings: RecordingsDesk

    async def SearchRecordings(
        self, request: wire.SearchRecordingsRequest, context: Any
    ) -> wire.SearchRecordingsResponse:
        return await self._recordings.search(request, self._access.actor())

    async def ShowRecording(self, request: wire.ShowRecordingRequest, context: Any) -> wire.ShowRecordingResponse:
        return await self._recordings.show(request, self._access.actor())

    async def DeleteRecordings(
        self, request: wire.DeleteRecordingsRequest, context: Any
    ) -> wire.DeleteRecordingsResponse:
        return await self._recordings.delete(request, self._access.actor())

    async def ListRecordingPolicies(
        self, request: wire.ListRecordingPoliciesRequest, context: Any
    ) -> wire.ListRecordingPoliciesResponse:
        return await self._recordings.list_policies()

    async def SetRecordingPolicy(
        self, request: wire.SetRecordingPolicyRequest, context: Any
    ) -> wire.SetRecordingPolicyResponse:
        return await self._recordings.set_policy(request, self._access.actor())
