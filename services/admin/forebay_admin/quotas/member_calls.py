"""The operators' calls of `members_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import admin_pb2
from forebay_admin.people.access import Access
from forebay_admin.quotas.members_desk import MembersDesk


class MemberCalls:
    _access: Access
    _members: MembersDesk

    async def SetMemberLimits(
        self, request: admin_pb2.SetMemberLimitsRequest, context: Any
    ) -> admin_pb2.SetMemberLimitsResponse:
        return await self._members.set_limits(request, self._access.actor())

    async def ShowMemberLimits(
        self, request: admin_pb2.ShowMemberLimitsRequest, context: Any
    ) -> admin_pb2.ShowMemberLimitsResponse:
        return await self._members.show_limits(request)
