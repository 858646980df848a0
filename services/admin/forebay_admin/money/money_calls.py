"""The operators' calls of `prices_desk` and `balances_desk`, as a part of the gRPC surface."""

from __future__ import annotations

from typing import Any

from forebay.wire.v1 import prices_pb2
from forebay_admin.money.balances_desk import BalancesDesk
from forebay_admin.money.prices_desk import PricesDesk
from forebay_admin.people.access import Access


class MoneyCalls:
    _access: Access
    _prices: PricesDesk
    _balances: BalancesDesk

    async def SetPrice(self, request: prices_pb2.SetPriceRequest, context: Any) -> prices_pb2.SetPriceResponse:
        return await self._prices.set_price(request, self._access.actor())

    async def CancelPrice(self, request: prices_pb2.CancelPriceRequest, context: Any) -> prices_pb2.CancelPriceResponse:
        return await self._prices.cancel_price(request, self._access.actor())

    async def ListPrices(self, request: prices_pb2.ListPricesRequest, context: Any) -> prices_pb2.ListPricesResponse:
        return await self._prices.list_prices(request)

    async def OpenBalance(self, request: prices_pb2.OpenBalanceRequest, context: Any) -> prices_pb2.OpenBalanceResponse:
        return await self._balances.open(request, self._access.actor())

    async def CloseBalance(
        self, request: prices_pb2.CloseBalanceRequest, context: Any
    ) -> prices_pb2.CloseBalanceResponse:
        return await self._balances.close(request, self._access.actor())

    async def PostBalance(self, request: prices_pb2.PostBalanceRequest, context: Any) -> prices_pb2.PostBalanceResponse:
        return await self._balances.post(request, self._access.actor())

    async def ListBalances(
        self, request: prices_pb2.ListBalancesRequest, context: Any
    ) -> prices_pb2.ListBalancesResponse:
        return await self._balances.list_balances(request)

    async def ShowBalance(self, request: prices_pb2.ShowBalanceRequest, context: Any) -> prices_pb2.ShowBalanceResponse:
        return await self._balances.show(request, self._access.actor())
