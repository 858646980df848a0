"""The operators' calls of `addresses_desk` and `events_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.people.access import Access
from forebay_admin.security.addresses_desk import AddressesDesk
from forebay_admin.security.events_desk import SecurityEventsDesk


class SecurityCalls:
    _access: Access
    _addresses: AddressesDesk
    _security_events: SecurityEventsDesk

    async def ListAddressRules(
        self, request: wire.ListAddressRulesRequest, context: Any
    ) -> wire.ListAddressRulesResponse:
        return await self._addresses.list_rules()

    async def SetAddressPolicy(
        self, request: wire.SetAddressPolicyRequest, context: Any
    ) -> wire.SetAddressPolicyResponse:
        return await self._addresses.set_policy(request, self._access.actor())

    async def AddAddressRule(self, request: wire.AddAddressRuleRequest, context: Any) -> wire.AddAddressRuleResponse:
        return await self._addresses.add_rule(request, self._access.actor())

    async def RemoveAddressRule(
        self, request: wire.RemoveAddressRuleRequest, context: Any
    ) -> wire.RemoveAddressRuleResponse:
        return await self._addresses.remove_rule(request, self._access.actor())

    async def ListBans(self, request: wire.ListBansRequest, context: Any) -> wire.ListBansResponse:
        return await self._addresses.list_bans(request)

    async def AddBan(self, request: wire.AddBanRequest, context: Any) -> wire.AddBanResponse:
        return await self._addresses.add_ban(request, self._access.actor())

    async def RemoveBan(self, request: wire.RemoveBanRequest, context: Any) -> wire.RemoveBanResponse:
        return await self._addresses.remove_ban(request, self._access.actor())

    async def ListSecurityEvents(
        self, request: wire.ListSecurityEventsRequest, context: Any
    ) -> wire.ListSecurityEventsResponse:
        return await self._security_events.list_events(request)

    async def WatchSecurityEvents(
        self, request: wire.WatchSecurityEventsRequest, context: Any
    ) -> AsyncIterator[wire.WatchSecurityEventsResponse]:
        async with aclosing(self._security_events.watch(request)) as told:
            async for news in told:
                self._access.demand_still("WatchSecurityEvents")  # whoever was sent away hears no more
                yield news
