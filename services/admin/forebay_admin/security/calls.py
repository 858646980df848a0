"""The operators' calls of `addresses_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import security_pb2 as wire
from forebay_admin.people.access import Access
from forebay_admin.security.addresses_desk import AddressesDesk


class SecurityCalls:
    _access: Access
    _addresses: AddressesDesk

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
